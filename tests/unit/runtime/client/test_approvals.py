"""What a person of a site is shown of code that waits: its plan, and what is new in both."""

from pathlib import Path

from tests.e2e.world import make_project

from hansa.runtime.client.approvals import Waiting, changes, say, waiting
from hansa.runtime.client.places import Places
from hansa.runtime.config import load_kit
from hansa.runtime.jobs.build import build

JOB = """
import numpy as np

import hansa as hs


def rows(data) -> np.int64:
    return np.int64(len(data))


@hs.federated_computation(hs.FederatedType(object, hs.CLIENTS))
def counted(data):
    return hs.{how}(hs.federated_map(rows, data))


job = hs.Job("count", counted, data="heart")
"""


def test_what_is_new_in_the_plan_comes_before_what_is_new_in_the_code(tmp_path: Path) -> None:
    places = Places(load_kit(make_project(tmp_path / "office", ["north"]) / "kits" / "north"))
    first, second = (waits(places, tmp_path, how) for how in ("federated_sum", "federated_collect"))
    assert not [line for line in changes(places, first) if "plan" in line]
    assert "+def rows(data) -> np.int64:" in list(changes(places, first))
    say(places, first, "yes")
    (new,) = waiting(places)
    assert new.code == second.code
    lines = list(changes(places, new))
    assert lines[:2] == ["--- approved plan", "+++ new plan"]
    assert "-  leaves     rows int64: sum" in lines
    assert "+  leaves     rows int64: collect, of each site by itself" in lines
    assert lines.index("--- approved/count.py") > lines.index("+++ new plan")
    assert "-    return hs.federated_sum(hs.federated_map(rows, data))" in lines
    say(places, new, "yes")
    assert list(changes(places, new)) == []


def waits(places: Places, folder: Path, how: str) -> Waiting:
    """A run at the site whose code nobody has spoken of."""
    (folder / "count.py").write_text(JOB.format(how=how))
    room = places.state / "runs" / how.replace("_", "-")
    room.mkdir(parents=True)
    (room / "bundle.zip").write_bytes(build(f"{folder}/count.py:job"))
    return next(each for each in waiting(places) if each.run == room.name)
