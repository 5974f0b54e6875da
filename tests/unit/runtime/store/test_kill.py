"""kill -9 at random moments: nothing that a store said was durable is lost, and nothing half-written is seen."""

import contextlib
import signal
import subprocess
import sys
import threading
from pathlib import Path

from blake3 import blake3

from hansa.core.rng import generator
from hansa.runtime.audit.chain import Verified, verify
from hansa.runtime.client.outbox import Outbox
from hansa.runtime.store.blobs import FileBlobs
from hansa.runtime.store.events import SqliteEvents

KILLS = 5


def killed(what: str, folder: Path, after_s: float) -> list[str]:
    """Start a writer, let it write for a while after its first word, kill it; what it said was durable."""
    script = Path(__file__).with_name("writers.py")
    with subprocess.Popen([sys.executable, script, what, folder], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        timer = threading.Timer(after_s, writer.kill)
        timer.start()
        said += writer.stdout.readlines()
        timer.join()
    assert writer.returncode == -signal.SIGKILL, said
    return [line.strip() for line in said if line.endswith("\n")]


def test_events_that_were_acknowledged_outlive_every_kill_and_the_chains_are_whole(tmp_path: Path) -> None:
    moments, said = generator(1), []
    for _ in range(KILLS):
        said += killed("events", tmp_path, moments.uniform(0.0, 0.2))
        with contextlib.closing(SqliteEvents(tmp_path / "events.sqlite")) as events:
            found = list(events.all())
        hashes = {event.hash for event in found}
        assert all(each in hashes for line in said for each in line.split())
        verdict = verify(found)
        assert isinstance(verdict, Verified)
        assert verdict.heads["a"].seq == 2 * verdict.heads["b"].seq, "a commit stands whole or not at all"


def test_results_that_were_put_outlive_every_kill_together_with_their_memory(tmp_path: Path) -> None:
    moments, said = generator(2), []
    for _ in range(KILLS):
        said += killed("outbox", tmp_path, moments.uniform(0.0, 0.2))
        with contextlib.closing(Outbox(tmp_path / "outbox.sqlite")) as outbox:
            kept = [each.key.seq for each in outbox.pending()]
            assert set(map(int, said)) <= set(kept)
            for seq in kept:
                digest = f"{seq:064x}"
                assert outbox.memory("run", 0, before=seq + 1) == {"one": digest, "two": digest}


def test_blobs_that_were_put_outlive_every_kill_and_all_that_are_seen_are_whole(tmp_path: Path) -> None:
    moments, said = generator(3), []
    for _ in range(KILLS):
        said += killed("blobs", tmp_path, moments.uniform(0.0, 0.2))
        with contextlib.closing(FileBlobs(tmp_path)) as blobs:
            assert all(blobs.size(digest) is not None for digest in said)
            for path in tmp_path.iterdir():
                assert path.is_dir() or blake3(path.read_bytes()).hexdigest() == path.name
            blobs.sweep(said, older_than_s=-60, now=4e9)
            assert [path.name for path in (tmp_path / "incoming").iterdir() if path.name != "lock"] == []
