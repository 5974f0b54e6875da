"""What was kept of a run gives its model once more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.simulation.means import job, sites

from hansa.record.folder import RunFolder
from hansa.simulation.engine import simulate
from hansa.simulation.faults import Faults
from hansa.simulation.verify import verify


@pytest.mark.parametrize(
    ("options", "faults"),
    [
        ({"deadline_s": 0.5}, Faults(duration_s=0.1)),
        ({"cohort": 3, "over_select": 0.6}, Faults()),
        ({"cohort": 3, "over_select": 0.6, "attempts": 2, "deadline_s": 3.0}, Faults(spread=1.0, dropout=0.2, bad=0.2)),
    ],
    ids=["a short deadline", "lots", "faults"],
)
def test_the_kept_updates_give_the_same_states_whatever_befell_the_sites(
    tmp_path: Path, options: dict[str, Any], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # drawing curves takes longer than the run
    one = job(rounds=3, **options)
    simulate(one, sites(*range(6)), seed=3, faults=faults, out=tmp_path / "run", keep_updates=True)
    assert verify(RunFolder.open(tmp_path / "run"), one, list("abcdef")).ok
