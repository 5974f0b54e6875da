"""Apps in the style of FLARE 2.0, run as users run them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hansa.cli import main

APPS = Path(__file__).parents[2] / "examples" / "flare"
GOLDEN = [[4, 5, 6], [7, 8, 9], [10, 11, 12]]


def test_hello_numpy_sag_runs_as_it_is_and_gives_what_flare_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code = main(["run", "--flare", str(APPS / "hello-numpy-sag"), "--sites", "2", "--out", str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code, told["status"], told["rounds"]) == (0, "completed", 3)
    assert load_file(run / "model.safetensors")["numpy_key"].tolist() == GOLDEN
    assert np.load(run / "workspace/server/run_1/models/server.npy").tolist() == GOLDEN
    assert np.load(run / "workspace/site-2/run_1/model/best_numpy.npy").tolist() == GOLDEN
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["round"], sorted(line["sites"])) for line in lines] == [(number, ["site-1", "site-2"]) for number in (1, 2, 3)]
