"""Typed computations over a real federation: the simulation's bytes, what is refused, and what sites say of their data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e import temperature_jobs
from tests.e2e.agents import agents, furnish
from tests.e2e.temperature_jobs import STATIONS, VALUES
from tests.e2e.world import make_project, serving

import hansa as hs
from hansa import codec
from hansa.admin.client import connect
from hansa.errors import RunError

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
READINGS = f"""
import numpy as np


def load(slot):
    return [np.float32(value) for value in {VALUES}[slot]]
"""
FILE = str(Path(temperature_jobs.__file__))


def test_a_computation_deployed_gives_the_simulations_bytes_and_what_a_site_does_not_permit_does_not_run(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "office", STATIONS)
    with (
        serving(folder),
        agents(folder / "kits", STATIONS, toml=TOML, shards=READINGS),
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

        with pytest.raises(RunError, match="no secure protocol for federated_secure_sum_bitwidth"):
            lea.submit(f"{FILE}:secret", sites=STATIONS).result()

        furnish(folder / "kits" / STATIONS[0], toml=TOML + "collect = true\n", shards=READINGS)
        some = lea.submit(f"{FILE}:collected", sites=STATIONS, min_sites=1)
        assert some.result().value == {STATIONS[0]: [68.5, 70.0]}
        said = "this site gives nothing that nobody aggregates (values_of: values_of) [collect]"
        assert some.status().refused == dict.fromkeys(STATIONS[1:], said)
