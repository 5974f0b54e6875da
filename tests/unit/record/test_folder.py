import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa import tensors
from hansa.core import trees
from hansa.core.task import Shareable
from hansa.errors import CheckpointError, InputError, StorageError, VersionError
from hansa.record.folder import RunFolder
from hansa.record.info import Reference, RunInfo

INFO = RunInfo(id="r", job="digits", slots=["a", "b"], rounds=3, started="2025-03-04T10:00:00.000+00:00")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "run", "digits")
    made.write_info(INFO)
    return made


def record(number: int, loss: float = 0.5) -> dict[str, Any]:
    return {"round": number, "global": {"loss": loss}, "sites": {"a": {"loss": loss}}, "refused": [], "lost": []}


def test_a_new_folder_is_named_after_time_and_job(tmp_path: Path) -> None:
    made = RunFolder.create(None, "my job/1", root=tmp_path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-my-job-1-[0-9a-f]{4}", made.path.name)
    assert made.path.is_dir()
    assert made.id == made.path.name


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create(tmp_path, "digits")
    with pytest.raises(InputError, match="not empty"):
        RunFolder.create(tmp_path / "note.txt", "digits")


def test_run_json_comes_back_as_it_was_written(folder: RunFolder) -> None:
    content = RunInfo(
        id="r",
        job="j",
        reference=Reference(path="job.toml", overrides=["seed=1"]),
        settings={"learner": {"lr": 0.1}},
        machine={"cores": 2},
    )
    folder.write_info(content)
    assert RunFolder.open(folder.path).info == content


def test_names_of_more_than_ten_thousand_sites_are_counted_instead(folder: RunFolder) -> None:
    folder.write_info(RunInfo(id="r", job="j", slots=[str(n) for n in range(10_001)]))
    assert folder.info.slots == 10_001
    assert folder.info.sites == 10_001


def test_a_run_of_a_newer_version_is_refused_with_both_versions(folder: RunFolder) -> None:
    (folder.path / "run.json").write_text('{"format": 9, "unheard": true}')
    with pytest.raises(VersionError, match="expected format 1 or older; got format 9"):
        RunFolder.open(folder.path)


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_a_garbled_run_json_is_a_storage_error(folder: RunFolder) -> None:
    (folder.path / "run.json").write_text('{"format": 1')
    with pytest.raises(StorageError, match=r"run\.json"):
        RunFolder.open(folder.path)


def test_metrics_are_valid_json_and_nan_comes_back(folder: RunFolder) -> None:
    folder.append_round(record(1, math.nan))
    line = json.loads((folder.path / "metrics.jsonl").read_text(), parse_constant=lambda token: pytest.fail(token))
    assert line["global"] == {"loss": None}
    (got,) = folder.rounds()
    assert math.isnan(got["global"]["loss"])
    assert math.isnan(got["sites"]["a"]["loss"])


def test_a_torn_last_line_is_left_out_and_dropped_on_resume(folder: RunFolder) -> None:
    for number in (1, 2, 3):
        folder.append_round(record(number))
    path = folder.path / "metrics.jsonl"
    with path.open("ab") as file:
        file.write(b'{"round": 4, "glo')
    assert [r["round"] for r in folder.rounds()] == [1, 2, 3]
    folder.resume_from(2)
    assert path.read_bytes().count(b"\n") == 2
    folder.append_round(record(3, 0.25))
    assert [r["global"]["loss"] for r in folder.rounds()] == [0.5, 0.5, 0.25]


def test_a_broken_line_in_the_middle_is_named(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").write_bytes(b'{"round": 1}\nnoise\n{"round": 2}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl:2"):
        folder.rounds()


def test_a_checkpoint_comes_back_with_its_meta(folder: RunFolder) -> None:
    tree = {"model": {"w": np.arange(3.0)}, "momentum": {}}
    folder.save_checkpoint(1, tree, {"best": math.inf, "history": [1, {"a": None}]})
    found = folder.latest_checkpoint()
    assert found is not None
    assert (found.round, found.meta, found.notes) == (1, {"best": math.inf, "history": [1, {"a": None}]}, [])
    assert found.tree["momentum"] == {}
    assert trees.equal(found.tree["model"], {"w": np.arange(3.0)})


def test_there_is_no_checkpoint_in_a_new_run(folder: RunFolder) -> None:
    assert folder.latest_checkpoint() is None


def test_the_last_three_checkpoints_stay(folder: RunFolder) -> None:
    for number in range(1, 12):
        folder.save_checkpoint(number, {"w": np.zeros(1)}, {})
    names = sorted(path.name for path in (folder.path / "checkpoints").iterdir())
    assert names == ["round-10.safetensors", "round-11.safetensors", "round-9.safetensors"]


@pytest.mark.parametrize("harm", ["truncate", "flip", "swap"])
def test_a_corrupt_checkpoint_is_passed_over_with_a_note(folder: RunFolder, harm: str) -> None:
    for number in (1, 2):
        folder.save_checkpoint(number, {"w": np.full(4, float(number))}, {})
    first, second = (folder.path / "checkpoints" / f"round-{n}.safetensors" for n in (1, 2))
    data = bytearray(second.read_bytes())
    if harm == "truncate":
        data = data[:-3]
    elif harm == "flip":
        data[-1] ^= 1
    else:
        data = bytearray(first.read_bytes())
    second.write_bytes(data)
    found = folder.latest_checkpoint()
    assert found is not None
    assert found.round == 1
    assert len(found.notes) == 1
    assert found.notes[0].startswith("round-2.safetensors was passed over: ")


def test_a_checkpoint_written_after_a_corrupt_later_one_is_not_removed(folder: RunFolder) -> None:
    folder.keep = 1
    folder.save_checkpoint(2, {"w": np.zeros(1)}, {})
    (folder.path / "checkpoints" / "round-9.safetensors").write_bytes(b"broken")
    folder.save_checkpoint(3, {"w": np.ones(1)}, {})
    found = folder.latest_checkpoint()
    assert found is not None
    assert found.round == 3


def test_when_every_checkpoint_is_corrupt_the_error_says_so_for_each(folder: RunFolder) -> None:
    for number in (1, 2):
        folder.save_checkpoint(number, {"w": np.zeros(1)}, {})
        (folder.path / "checkpoints" / f"round-{number}.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"round-2.*round-1"):
        folder.latest_checkpoint()


def test_a_full_disk_is_named_with_file_and_bytes_and_harms_nothing(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save_checkpoint(1, {"w": np.zeros(1)}, {})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full; at path .*round-2.safetensors; expected room for [\d,]+ bytes"):
        folder.save_checkpoint(2, {"w": np.zeros(100)}, {})
    found = folder.latest_checkpoint()
    assert found is not None
    assert found.round == 1


def test_updates_come_back_by_slot(folder: RunFolder) -> None:
    for slot in (10, 2):
        folder.save_update(1, "local_train", slot, Shareable({"w": np.full(2, float(slot))}, {"loss": 0.5}, {"examples": 3}))
    folder.save_update(1, "evaluate", 2, Shareable())
    updates = folder.load_updates(1, "local_train")
    assert list(updates) == [2, 10]
    assert updates[10].headers == {"examples": 3}
    assert trees.equal(updates[2].body, {"w": np.full(2, 2.0)})
    assert folder.load_updates(2, "local_train") == {}


def test_a_damaged_update_is_named(folder: RunFolder) -> None:
    folder.save_update(1, "local_train", 0, Shareable({"w": np.zeros(3)}))
    path = folder.path / "updates" / "round-1" / "local_train-0.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StorageError, match="a kept update is damaged") as caught:
        folder.load_updates(1, "local_train")
    assert caught.value.path == str(path)


def test_models_are_saved_and_loaded(folder: RunFolder) -> None:
    folder.save_model({"w": np.zeros(1)})
    folder.save_best({"w": np.ones(1)})
    assert folder.load_model()["w"] == 0
    assert folder.load_model(best=True)["w"] == 1
    assert tensors.load_tree(folder.path / "model.safetensors")[1] == {}


def test_a_run_without_a_model_says_so(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="no such model"):
        folder.load_model()


def test_the_end_of_a_run_writes_its_state_and_its_page(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    folder.append_round(record(1))
    notes = folder.finish("failed", summary={"auc": 0.9}, error="boom", now=datetime(2025, 3, 4, 10, 0, 5, tzinfo=UTC))
    assert folder.info.state == "failed"
    assert folder.info.finished == "2025-03-04T10:00:05.000+00:00"
    assert folder.info.summary == {"auc": 0.9}
    page = (folder.path / "report.html").read_text()
    assert "boom" in page
    assert "took 5.0 s" in page
    assert len(notes) == 1
    assert "hansa[plot]" in notes[0]
    assert not (folder.path / "curves.png").exists()


def test_the_end_of_a_run_draws_its_curves_where_matplotlib_is(folder: RunFolder) -> None:
    pytest.importorskip("matplotlib")
    folder.append_round(record(1))
    assert folder.finish("completed") == []
    assert (folder.path / "curves.png").read_bytes().startswith(b"\x89PNG")
