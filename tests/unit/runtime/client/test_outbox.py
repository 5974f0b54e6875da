"""A site's outbox: what is sent, what is remembered, what a later attempt may see."""

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hansa.errors import InputError, StorageError, VersionError
from hansa.runtime.client.outbox import Kept, Key, Outbox

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with contextlib.closing(Outbox(tmp_path / "outbox.sqlite")) as opened:
        yield opened


def test_results_wait_in_the_order_in_which_they_were_put_until_they_are_done(outbox: Outbox) -> None:
    late, early = Key("run", 9, 1, 0), Key("run", 2, 1, 0)
    assert outbox.put(late, {"seconds": 0.5}, A)
    assert outbox.put(early, {"code": "client", "message": "Größe\n"})
    assert outbox.pending() == [
        Kept(late, {"seconds": 0.5}, A, sent=False),
        Kept(early, {"code": "client", "message": "Größe\n"}, None, sent=False),
    ]
    outbox.done(late)
    assert [kept.key for kept in outbox.pending()] == [early]


def test_results_and_memory_outlive_the_process(outbox: Outbox) -> None:
    key = Key("run", 1, 1, 3)
    outbox.put(key, {"x": 1}, A, memory={"control": B})
    outbox.close()
    with contextlib.closing(Outbox(outbox.path)) as again:
        assert again.pending() == [Kept(key, {"x": 1}, A, sent=False)]
        assert again.memory("run", 3) == {"control": B}


def test_a_result_that_stands_stays_as_it_is(outbox: Outbox) -> None:
    key = Key("run", 1, 1, 0)
    assert outbox.put(key, {"x": 1}, A, memory={"control": B})
    assert not outbox.put(key, {"x": 2}, C, memory={"control": D})
    assert outbox.pending() == [Kept(key, {"x": 1}, A, sent=False)]
    assert outbox.memory("run", 0) == {"control": B}


def test_an_assignment_that_comes_again_finds_its_result(outbox: Outbox) -> None:
    key = Key("run", 1, 1, 0)
    assert outbox.get(key) is None
    outbox.put(key, {"x": 1}, A)
    outbox.done(key)
    assert outbox.get(key) == Kept(key, {"x": 1}, None, sent=True)


def test_a_task_reads_what_earlier_tasks_left_and_never_its_own_half(outbox: Outbox) -> None:
    outbox.put(Key("run", 1, 1, 0), {}, memory={"control": A, "head": B})
    outbox.put(Key("run", 4, 1, 0), {}, memory={"control": C})
    assert outbox.memory("run", 0, before=1) == {}
    assert outbox.memory("run", 0, before=4) == {"control": A, "head": B}
    assert outbox.memory("run", 0, before=5) == outbox.memory("run", 0) == {"control": C, "head": B}
    assert outbox.memory("run", 1) == outbox.memory("other", 0) == {}


def test_a_later_attempt_replaces_what_an_earlier_one_left_even_by_nothing(outbox: Outbox) -> None:
    outbox.put(Key("run", 1, 1, 0), {}, memory={"control": A})
    outbox.put(Key("run", 2, 1, 0), {}, memory={"control": B, "head": B})
    outbox.put(Key("run", 2, 2, 0), {}, memory={"control": C})
    assert outbox.memory("run", 0) == {"control": C}
    outbox.put(Key("run", 2, 3, 0), {"code": "client"})
    assert outbox.memory("run", 0) == {"control": A}


def test_an_earlier_attempt_that_comes_late_leaves_nothing(outbox: Outbox) -> None:
    outbox.put(Key("run", 2, 2, 0), {}, memory={"control": B})
    outbox.put(Key("run", 2, 1, 0), {}, memory={"control": A, "head": A})
    assert outbox.memory("run", 0) == {"control": B}
    assert len(outbox.pending()) == 2


def test_a_result_that_did_not_count_leaves_no_memory(outbox: Outbox) -> None:
    outbox.put(Key("run", 1, 1, 0), {}, memory={"control": A})
    outbox.put(Key("run", 2, 1, 0), {}, memory={"control": B})
    outbox.done(Key("run", 1, 1, 0))
    outbox.done(Key("run", 2, 1, 0), counted=False)
    assert outbox.memory("run", 0) == {"control": A}


def test_trimming_keeps_what_a_task_can_still_read(outbox: Outbox) -> None:
    for seq, digest in ((1, A), (2, B), (3, C), (4, D)):
        outbox.put(Key("run", seq, 1, 0), {}, memory={"control": digest, f"only{seq}": digest})
    wanted = {before: outbox.memory("run", 0, before=before) for before in (3, 4, 5)}
    outbox.trim("run", before=3)
    assert {before: outbox.memory("run", 0, before=before) for before in (3, 4, 5)} == wanted
    assert outbox.memory("run", 0, before=2) == {"only1": A}


def test_the_blobs_that_are_needed_are_those_to_be_sent_and_those_remembered(outbox: Outbox) -> None:
    key = Key("run", 1, 1, 0)
    outbox.put(key, {}, A, memory={"control": B})
    assert outbox.digests() == {A, B}
    outbox.done(key)
    assert outbox.digests() == {B}


def test_a_run_that_is_over_is_forgotten_and_others_are_not(outbox: Outbox) -> None:
    outbox.put(Key("run", 1, 1, 0), {}, A, memory={"control": A})
    outbox.put(Key("other", 1, 1, 0), {}, B, memory={"control": B})
    outbox.forget_run("run")
    assert ([kept.key.run for kept in outbox.pending()], outbox.memory("run", 0), outbox.digests()) == (["other"], {}, {B})


def test_what_cannot_be_kept_is_refused_whole(outbox: Outbox) -> None:
    key = Key("run", 1, 1, 0)
    with pytest.raises(InputError, match="not a digest"):
        outbox.put(key, {}, "../../etc/passwd")
    with pytest.raises(InputError, match="not a digest"):
        outbox.put(key, {}, A, memory={"good": A, "bad": "b"})
    with pytest.raises(InputError, match="plain JSON"):
        outbox.put(key, {"x": float("nan")})
    assert (outbox.pending(), outbox.digests()) == ([], set())


def test_a_full_disk_keeps_nothing_half(outbox: Outbox) -> None:
    assert outbox._db is not None
    pages = outbox._db.execute("PRAGMA page_count").fetchone()[0]
    outbox._db.execute(f"PRAGMA max_page_count = {pages}")
    key, result = Key("run", 1, 1, 0), {"trace": "x" * 100_000}
    with pytest.raises(StorageError, match="the disk is full"):
        outbox.put(key, result, A, memory={"control": B})
    assert (outbox.pending(), outbox.digests()) == ([], set())
    outbox._db.execute(f"PRAGMA max_page_count = {2**30}")
    assert outbox.put(key, result, A, memory={"control": B})


def test_a_second_agent_is_refused(outbox: Outbox) -> None:
    with pytest.raises(StorageError, match="two agents"):
        Outbox(outbox.path)


def test_every_put_is_synced(outbox: Outbox) -> None:
    assert outbox._db is not None
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_newer_a_damaged_and_a_closed_outbox_say_so(outbox: Outbox, tmp_path: Path) -> None:
    outbox.close()
    with pytest.raises(StorageError, match="closed"):
        outbox.pending()
    with contextlib.closing(sqlite3.connect(outbox.path)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(VersionError, match="newer"):
        Outbox(outbox.path)
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 900)
    with pytest.raises(StorageError, match="corrupt"):
        Outbox(tmp_path / "bad.sqlite")
    with pytest.raises(StorageError, match="nowhere"):
        Outbox(tmp_path / "nowhere" / "outbox.sqlite")


def test_a_site_needs_no_database_library_of_the_servers() -> None:
    modules = "hansa.runtime.client.outbox, hansa.runtime.audit.chain, hansa.runtime.store.blobs"
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('sqlalchemy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
