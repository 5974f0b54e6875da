"""A training script in the spelling of FLARE's Client API, unchanged, under an algorithm of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.adapters.script import ScriptLearner
from hansa.core.job import Job
from hansa.data.federated import paths
from hansa.learning import fedavg
from hansa.simulation.engine import simulate

SCRIPT = """
import nvflare.client as flare
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
import numpy as np

flare.init()
while flare.is_running():
    model = flare.receive()
    assert flare.is_train() and flare.get_site_name() in ("north", "south"), flare.system_info()
    delta = {"north": 1.0, "south": 4.0}[flare.get_site_name()]
    flare.log("loss", 1.0 / (model.current_round + 1), global_step=1)
    diff = flare.get_config()["diff"]
    params = {"w": np.full(2, delta)} if diff else {"w": model.params["w"] + delta}
    kind = ParamsType.DIFF if diff else ParamsType.FULL
    flare.send(FLModel(kind, params, metrics={"accuracy": 0.5}, meta={"NUM_STEPS_CURRENT_ROUND": 1 if delta == 1.0 else 2}))
"""


@pytest.mark.parametrize("diff", [False, True])
def test_a_script_that_imports_nvflare_client_trains_as_it_is(tmp_path: Path, diff: bool) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
    learner = ScriptLearner(tmp_path / "train.py", init={"w": np.zeros(2)}, config={"diff": diff})
    data = paths({name: tmp_path / name for name in ("north", "south")})
    result = simulate(Job("flare-script", fedavg(learner, rounds=2), data="rows"), {"rows": data})
    assert np.asarray(result.model["w"]).tolist() == [6.0, 6.0]  # (1 + 2 * 4) / 3 a round
