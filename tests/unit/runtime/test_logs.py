"""One fact is one line, as text and as JSON, and no secret is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable

import pytest

from hansa.runtime.logs import Json, Text

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub3J0aCJ9.c2lnbmF0dXJl"  # noqa: S105  nobody's
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"


def lines(formatter: logging.Formatter, log: Callable[[logging.Logger], None]) -> list[str]:
    out = io.StringIO()
    logger = logging.Logger("hansa.site")
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    log(logger)
    return out.getvalue().splitlines()


def test_a_fact_is_one_json_object_with_what_it_says_by_name() -> None:
    [line] = lines(Json(), lambda log: log.info("task.failed run=%s seq=%d why=%r", "r1", 3, "a\r\nb"))
    told = json.loads(line)
    assert {name: told[name] for name in ("level", "logger", "event", "run", "seq", "why")} == {
        "level": "info", "logger": "hansa.site", "event": "task.failed", "run": "r1", "seq": 3, "why": "a\r\nb",
    }  # fmt: skip


def test_a_message_of_others_is_kept_whole() -> None:
    [line] = lines(Json(), lambda log: log.warning("100%% of %s, odd=%s", "all", 1))
    assert json.loads(line)["message"] == "100% of all, odd=1"


@pytest.mark.parametrize("attack", ["x\r\n2026-01-01 00:00:00 ERROR hansa.site forged", "x\x1b[2Jy", "x\u2028y", "x\x85y"])
def test_nothing_that_is_said_begins_a_line_of_its_own(attack: str) -> None:
    for formatter in (Text(), Json()):
        assert len(lines(formatter, lambda log: log.error("run.refused why=%s", attack))) == 1


def test_a_traceback_is_indented_and_cannot_look_like_a_record() -> None:
    def fail(log: logging.Logger) -> None:
        try:
            raise ValueError("x\n2026-01-01 00:00:00,000 ERROR hansa.site forged")
        except ValueError:
            log.exception("task.failed run=%s", "r1")

    first, *rest = lines(Text(), fail)
    assert first.endswith("task.failed run=r1")
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    [line] = lines(Json(), fail)
    assert "ValueError" in json.loads(line)["trace"]


@pytest.mark.parametrize("secret", [TOKEN, PEM])
def test_a_token_or_a_private_key_is_not_in_the_log(secret: str) -> None:
    for formatter in (Text(), Json()):
        text = "".join(lines(formatter, lambda log: log.error("request.failed what=%s", f"DPoP {secret}")))
        assert "[secret]" in text
        assert secret.splitlines()[-1] not in text
        assert "MHcCAQEE" not in text
