import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from hansa.record import plot, report
from hansa.record.info import RunInfo
from hansa.record.series import Curve, curves
from hansa.record.svg import draw, site_colours

INFO = RunInfo(
    id="r<1>", job="<script>alert(1)</script>", slots=["a", "b"], rounds=3, plan="map <f>", settings={"learner": {"lr": 0.1}}
)


def records(sites: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "round": n,
            "global": {"loss": 1 / n, "accuracy": 0.5},
            "sites": {f"<s{k}>": {"loss": 1 / n + k} for k in range(sites)},
            "refused": [{"site": "<s1>", "code": "not_finite", "path": "w"}] if n == 2 else [],
            "lost": ["<s0>"] if n == 3 else [],
            "bytes_up": 1000,
            "bytes_down": 500,
        }
        for n in (1, 2, 3)
    ]


def test_the_page_escapes_what_sites_and_jobs_are_called_and_loads_nothing() -> None:
    page = report.render(INFO, records())
    assert "<script" not in page
    assert "<s1>" not in page
    assert "&lt;s1&gt;" in page
    assert "src=" not in page
    assert "http://" not in page.replace("http-equiv", "")


def test_the_page_says_who_was_refused_and_lost_and_how_the_run_was_made() -> None:
    page = report.render(INFO, records())
    assert "update refused: not_finite at w" in page
    assert "no answer" in page
    assert "learner.lr" in page
    assert "4.5 kB" in page


def test_a_run_without_rounds_has_a_page() -> None:
    page = report.render(RunInfo(id="r", job="j", state="failed", error="no site answered"), [])
    assert "no site answered" in page
    assert "<svg" not in page


def test_twelve_sites_have_a_line_each_and_more_a_band() -> None:
    few, many = curves(records(12)), curves(records(13))
    assert draw(few[0], site_colours(few)).count("<polyline") == 13
    assert site_colours(many) == {}
    assert draw(many[0], {}).count("<polygon") == 1


def test_a_curve_is_well_formed_whatever_its_values() -> None:
    for points in ([], [(1, math.nan)], [(1, 0.0)], [(1, 1e-9), (2, math.inf), (3, 1e9)], [(5, -2.0), (900, -2.0)]):
        ET.fromstring(draw(Curve("<x>", points, {"a": points}), {"a": "#000"}))  # noqa: S314  our own text


def test_a_value_that_is_not_finite_leaves_a_gap() -> None:
    curve = Curve("loss", [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, 2.0)])
    assert draw(curve, {}).count("<polyline") == 2


@pytest.mark.parametrize("sites", [2, 13])
def test_the_png_has_the_curves_of_one_run_or_several(sites: int) -> None:
    pytest.importorskip("matplotlib")
    one = plot.render([("a", records(sites))])
    assert one.startswith(b"\x89PNG")
    assert plot.render([("a", records(sites)), ("_$b", records())]).startswith(b"\x89PNG")
    assert plot.render([("empty", [])]).startswith(b"\x89PNG")
