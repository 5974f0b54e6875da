"""A workflow that is resumed is held to what it had asked for, and answered from the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.core import trees
from hansa.core.task import Failure, Reply, Shareable, Task
from hansa.errors import CheckpointError, ReplayError, StorageError
from hansa.simulation.journal import Journal

SITES = ["a", "b", "c"]


def count(round_: int = 1, **body: float) -> Task:
    return Task("count", Shareable({name: np.array(value) for name, value in body.items()}), round=round_)


def written(folder: Path) -> Journal:
    """A journal of one finished task, in which b was refused and c was lost, and one that was under way."""
    journal = Journal(folder, SITES)
    assert journal.ask(count(1), [0, 1, 2]) is None
    journal.keep(1, 0, Shareable({"n": np.array(7.0)}, {"loss": 0.5}, {"kind": "x"}), {"seen": {"n": np.arange(3)}})
    refused = Reply(1, "b", Shareable(), Failure("client", "ValueError: x", "rows", "Traceback"))
    lost = Reply(2, "c", Shareable(), Failure("lost", "the site dropped out"))
    journal.done(1, [0], [refused], [lost], clock=2.5, traffic={"bytes_up": 8})
    assert journal.ask(count(2), [0]) is None
    journal.keep(2, 0, Shareable({"n": np.array(8.0)}), {})
    return journal


def test_a_finished_task_is_answered_as_it_was(tmp_path: Path) -> None:
    written(tmp_path)
    recorded = Journal.open(tmp_path, SITES).ask(count(1), [0, 1, 2])
    assert recorded is not None
    [reply] = recorded
    assert (reply.slot, reply.site, float(np.asarray(reply.shareable.body["n"]))) == (0, "a", 7.0)
    assert (reply.shareable.metrics, reply.shareable.headers) == ({"loss": 0.5}, {"kind": "x"})
    assert [each.failure for each in recorded.refused] == [Failure("client", "ValueError: x", "rows", "Traceback")]
    assert [(each.site, each.failure.code if each.failure else "") for each in recorded.lost] == [("c", "lost")]


def test_a_finished_task_leaves_behind_memory_time_and_traffic_once_more(tmp_path: Path) -> None:
    written(tmp_path)
    recorded = Journal.open(tmp_path, SITES).ask(count(1), [0, 1, 2])
    assert recorded is not None
    [(slot, puts)] = recorded.memories()
    assert slot == 0
    assert trees.equal(puts, {"seen": {"n": np.arange(3)}})
    assert (recorded.step.clock, recorded.step.traffic) == (2.5, {"bytes_up": 8})


def test_a_file_of_a_site_that_was_not_admitted_is_no_reply(tmp_path: Path) -> None:
    written(tmp_path)
    folder = tmp_path / "journal" / "1"
    for name in ("2.safetensors", "memory/2.safetensors"):
        (folder / name).write_bytes((folder / name.replace("2", "0")).read_bytes())
    recorded = Journal.open(tmp_path, SITES).ask(count(1), [0, 1, 2])
    assert recorded is not None
    assert ([reply.slot for reply in recorded], [slot for slot, _ in recorded.memories()]) == ([0], [0])


def test_what_an_attempt_before_a_crash_had_left_is_gone_when_the_task_is_asked_again(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal.open(tmp_path, SITES)
    journal.ask(count(1), [0, 1, 2])
    assert (tmp_path / "journal" / "2" / "0.safetensors").exists()
    journal.ask(count(2), [0])
    assert not (tmp_path / "journal" / "2").exists()


def test_a_journal_that_is_not_exact_holds_a_workflow_to_tasks_and_slots(tmp_path: Path) -> None:
    Journal(tmp_path, SITES).ask(count(1, w=1.0), [0, 1])
    assert Journal.open(tmp_path, SITES, exact=False).ask(count(1, w=1.5), [0, 1]) is None
    assert Journal.open(tmp_path, SITES).ask(count(1, w=1.5), [0, 1]) is None  # what was asked last is on record
    for task, slots in ((count(2, w=1.0), [0, 1]), (count(1, w=1.0), [0])):
        with pytest.raises(ReplayError):
            Journal.open(tmp_path, SITES, exact=False).ask(task, slots)


def test_a_task_that_was_under_way_is_asked_again(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal.open(tmp_path, SITES)
    journal.ask(count(1), [0, 1, 2])
    assert journal.ask(count(2), [0]) is None


def test_a_write_that_a_crash_cut_off_is_no_reply(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "journal" / "1" / ".2.safetensors.1234abcd.part").write_bytes(b"half")
    recorded = Journal.open(tmp_path, SITES).ask(count(1), [0, 1, 2])
    assert [reply.slot for reply in recorded or ()] == [0]


def test_a_torn_last_line_is_left_out_and_the_next_one_stands_by_itself(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":3,"ta')
    journal = Journal.open(tmp_path, SITES)
    assert path.read_bytes() == whole
    journal.go_on(2)
    journal.ask(count(3), [0])
    assert len(path.read_bytes().splitlines()) == 4


def test_a_line_that_is_no_step_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"junk\n" + lines[1])
    with pytest.raises(StorageError, match=r"journal\.jsonl:2"):
        Journal.open(tmp_path, SITES)


def test_a_memory_that_was_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "journal" / "1" / "memory" / "0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    recorded = Journal.open(tmp_path, SITES).ask(count(1), [0, 1, 2])
    assert recorded is not None
    with pytest.raises(CheckpointError):
        list(recorded.memories())


@pytest.mark.parametrize(
    ("task", "slots"),
    [
        (Task("other", round=1), [0, 1, 2]),
        (count(2), [0, 1, 2]),
        (count(1), [0, 1]),
        (count(1, w=1.0), [0, 1, 2]),
        (Task("count", Shareable(headers={"lr": 0.1}), round=1), [0, 1, 2]),
    ],
    ids=["name", "round", "slots", "body", "headers"],
)
def test_a_workflow_that_asks_for_something_else_stops_at_the_first_differing_step(
    tmp_path: Path, task: Task, slots: list[int]
) -> None:
    written(tmp_path)
    with pytest.raises(ReplayError, match=r"differs at step 1; .*expected task 'count' of round 1"):
        Journal.open(tmp_path, SITES).ask(task, slots)


def test_bodies_that_differ_in_dtype_or_shape_alone_are_not_the_same_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SITES)
    journal.ask(Task("count", Shareable({"w": np.zeros((2, 1), np.float32)})), [0])
    for other in (np.zeros((1, 2), np.float32), np.zeros((2, 1), np.int32)):
        with pytest.raises(ReplayError):
            Journal.open(tmp_path, SITES).ask(Task("count", Shareable({"w": other})), [0])


def test_a_workflow_that_ends_before_its_record_does_is_told_the_step_it_left_out(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal.open(tmp_path, SITES)
    journal.ask(count(1), [0, 1, 2])
    with pytest.raises(ReplayError, match=r"differs at step 2; .*got the workflow's end"):
        journal.end()


def test_a_workflow_that_checkpoints_is_compared_and_not_answered(tmp_path: Path) -> None:
    written(tmp_path)
    journal = Journal.open(tmp_path, SITES)
    journal.checkpointed = True
    assert journal.ask(count(1), [0, 1, 2]) is None
    journal.keep(1, 0, Shareable({"n": np.array(9.0)}), {})
    with pytest.raises(ReplayError, match="step 2"):
        journal.ask(count(5), [0])


def test_replies_of_two_tasks_under_way_are_kept_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SITES)
    for number in (1, 2):
        journal.ask(count(number), [0])
    for seq in (1, 2):
        journal.keep(seq, 0, Shareable({"n": np.array(float(seq))}), {})
        journal.done(seq, [0], [], [], clock=1.0, traffic={})
    again = Journal.open(tmp_path, SITES)
    recorded = [again.ask(count(number), [0]) for number in (1, 2)]
    assert [float(np.asarray(reply.shareable.body["n"])) for each in recorded if each for reply in each] == [1.0, 2.0]


def test_without_a_folder_nothing_is_kept() -> None:
    journal = Journal()
    assert journal.ask(count(1), [0]) is None
    journal.keep(1, 0, Shareable(), {})
    journal.done(1, [], [], [], clock=0.0, traffic={})
    journal.end()
