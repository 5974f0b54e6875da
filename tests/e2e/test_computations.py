"""Typed computations over a real federation: the simulation's bytes, what is refused, and what sites say of their data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import temperature_jobs
from tests.e2e.agents import agents, furnish
from tests.e2e.temperature_jobs import STATIONS, VALUES
from tests.e2e.world import make_project, serving

import hansa as hs
from hansa import codec
from hansa.admin.client import Session, connect
from hansa.errors import RefusedError

TOML = """
sandbox = "{sandbox}"
[data]
readings = "shards.py:load"
[policy]
authors = "any"
code = "any"
min_cohort = 1
traceback = {traceback}
"""
SILENT = TOML.replace("[policy]", "[publish]\ntypes = false\n[policy]")
READINGS = f"""
import numpy as np


def load(slot):
    return [np.float32(value) for value in {VALUES}[slot]]
"""
OTHER = """
import numpy as np


def load():
    return [np.zeros(3), np.ones(3)]
"""
FILE = str(Path(temperature_jobs.__file__))


def test_a_computation_deployed_gives_the_simulations_bytes_and_what_a_site_does_not_permit_does_not_run(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "office", STATIONS)
    with (
        serving(folder),
        agents(folder / "kits", STATIONS, toml=SILENT, shards=READINGS),
        connect(folder / "kits" / "lea") as lea,
    ):
        run = lea.submit(f"{FILE}:average_temperature", sites=STATIONS)
        simulated = hs.simulate(hs.Job("average_temperature", temperature_jobs.average_temperature), temperature_jobs.Readings())
        assert run.result().value == float(simulated.value)
        assert "leaves     mean_of float32: mean, weighted by length" in run.plan().plan
        assert run.plan().document["computations"][0]["stages"][0]["runs"][0]["function"] == "temperature_jobs:mean_of"

        own = lea.submit(f"{FILE}:job", sites=STATIONS).result()
        whole = hs.simulate(temperature_jobs.job, temperature_jobs.data, out=tmp_path / "simulated")
        assert own.model is not None
        assert codec.digest(own.model) == codec.digest(whole.model)
        assert [line["global"] for line in own.metrics] == [line["global"] for line in whole.metrics]
        assert own.value == json.loads((tmp_path / "simulated" / "result.json").read_bytes())

        with pytest.raises(RefusedError, match="no secure protocol for federated_secure_sum_bitwidth"):
            lea.submit(f"{FILE}:secret", sites=STATIONS)

        furnish(folder / "kits" / STATIONS[0], toml=SILENT + "collect = true\n", shards=READINGS)
        some = lea.submit(f"{FILE}:collected", sites=STATIONS, min_sites=1)
        assert some.result().value == {STATIONS[0]: [68.5, 70.0]}
        said = "this site gives nothing that nobody aggregates (values_of: values_of) [collect]"
        assert some.status().refused == dict.fromkeys(STATIONS[1:], said)


def test_each_site_publishes_the_type_of_its_data_and_a_job_is_checked_against_all_before_anything_runs(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "office", STATIONS)
    kits = folder / "kits"
    with serving(folder), agents(kits, STATIONS, toml=TOML, shards=READINGS) as sites, connect(kits / "lea") as lea:
        published(lea, lambda data: set(data.values()) == {"float32*"})
        assert [(each.site, each.fits, each.type) for each in temperature_jobs.job.check(lea)] == [
            (name, True, "float32*") for name in STATIONS
        ]
        furnish(kits / STATIONS[1], toml=SILENT, shards=READINGS)
        furnish(kits / STATIONS[2], toml=TOML, shards=OTHER)
        published(lea, lambda data: data == {STATIONS[0]: "float32*", STATIONS[1]: "", STATIONS[2]: "float64[3]*"})
        fits, silent, differs = lea.check(f"{FILE}:job")
        assert (fits.fits, silent.fits, differs.fits) == (True, None, False)
        assert silent.why.startswith("the site publishes no type")
        assert list(map(str, differs.misfits)) == ["readings[]: expected float32, got float64[3]"]

        code, out = checked(kits / "lea", "job", "check", f"{FILE}:job")
        assert (code, out.splitlines()[-1]) == (1, "switzerland: readings[]: expected float32, got float64[3]")
        code, out = checked(kits / "lea", "job", "check", f"{FILE}:job", "--sites", STATIONS[0], "--json")
        said = json.loads(out)
        assert (code, said["fits"], said["sites"][0]["type"]) == (0, True, "float32*")
        code, out = checked(kits / "lea", "job", "check", f"{FILE}:average_temperature", "--json")
        assert [each["misfits"] for each in json.loads(out)["sites"]][2][0]["path"] == "readings[]"
        code, out = checked(kits / "lea", "site", "show", STATIONS[2])
        assert "data        readings float64[3]*" in out
        assert checked(kits / "lea", "job", "check", f"{FILE}:job", "--sites", "nowhere")[0] == 2
        assert lea.runs() == []
        assert [agent.workers() for agent in sites.values()] == [[], [], []]
        assert [list((kits / name / "state").glob("types.*")) for name in STATIONS] == [[], [], []]


def published(lea: Session, until: Callable[[dict[str, str]], bool]) -> None:
    """Return when the sites have said of their data what is wanted."""
    ends = time.monotonic() + 30
    while not until(said := {site.site: site.data["readings"] for site in lea.sites()}):
        assert time.monotonic() < ends, said
        time.sleep(0.1)


def checked(kit: Path, *arguments: str) -> tuple[int, str]:
    command: list[Any] = [sys.executable, "-m", "hansa.cli", *arguments, "--kit", str(kit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout
