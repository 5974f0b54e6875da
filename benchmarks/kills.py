"""`python -m benchmarks.kills DIR [--times 30] [--seed 0]`: kill -9 at random moments of a run, and see that nothing is lost.

Each time a whole federation runs a job of four sites and three rounds; at a random moment one of its processes is killed, or all of
them at once. What had a parent that watches it is started again by it; a server, a site or everything is started again as systemd
would, by `hansa up` on the same folder. Then the run must complete by itself, with the undisturbed run's SHA-256, each update
counted once, and no process left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.federation import below
from hansa import codec
from hansa.admin.client import Run, connect

KINDS = ("server", "run", "site", "worker", "all")
PARTS = {"run": b"server.run_main", "worker": b"client.worker"}
LONGEST_S = 4.0  # from the submission to the kill
WITHIN_S = 120.0  # for the run to complete


def main() -> None:
    """Kill as often as asked; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the federations are made: an empty folder")
    parser.add_argument("--job", required=True, help="FILE.py:name of a job with data")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)  # noqa: S311  moments, no secrets
    expected = ""
    faults: Counter[str] = Counter()
    for number in range(options.times + 1):
        kind = "" if number == 0 else KINDS[(number - 1) % len(KINDS)]
        found, fault = once(options.folder / f"{number}", options.job, kind, draw.uniform(0.0, LONGEST_S), draw)
        expected = expected or found
        fault = fault or ("" if found == expected else f"another model: {found}")
        faults[kind or "undisturbed"] += bool(fault)
        print(json.dumps({"number": number, "killed": kind, "fault": fault}), flush=True)
    print(json.dumps({"times": options.times, "faults": dict(faults)}))
    sys.exit(1 if any(faults.values()) else 0)


def once(folder: Path, job: str, kind: str, after_s: float, draw: random.Random) -> tuple[str, str]:
    """The SHA-256 of the model of a run in the middle of which processes of a kind were killed, and what was wrong with it."""
    started: set[int] = set()
    with up(folder, "--data", f"heart={job.rpartition(':')[0]}:data") as process:
        with connect(folder / "kits" / "admin") as session:
            made = session.submit(job, seed=3)
        time.sleep(after_s)
        started.update(below(process.pid))
        again = _kill(process, kind, draw) if kind else False
        if not again:
            return _outcome(folder, made.id, process, started)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
    with up(folder) as process:
        return _outcome(folder, made.id, process, started)


def _kill(process: subprocess.Popen[str], kind: str, draw: random.Random) -> bool:
    """Kill; whether the federation is to be started again."""
    pids = below(process.pid)
    if kind == "all":
        chosen = pids
    elif kind in PARTS:
        chosen = [pid for pid in pids if PARTS[kind] in _command(pid)][: 1 if kind == "run" else None]
        chosen = [draw.choice(chosen)] if chosen else []
    else:
        named = [pid for pid in pids if _name(pid) == "hansa server"] if kind == "server" else []
        chosen = named or [draw.choice([pid for pid in pids if _name(pid).startswith("hansa site")])]
    for pid in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return kind in ("server", "site", "all")


def _outcome(folder: Path, run: str, process: subprocess.Popen[str], started: set[int]) -> tuple[str, str]:
    with connect(folder / "kits" / "admin") as session:
        made = session.run(run)
        state = _ended(made)
        if state != "completed":
            return "", f"the run is {state}: {made.status().reason}"
        counted = Counter((event.data["step"], event.data["slot"]) for event in made.events() if event.kind == "result")
        model = made.result().model
    started.update(below(process.pid))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    left = [pid for pid in started if not _gone(pid)]
    twice = [key for key, times in counted.items() if times > 1]
    fault = f"left: {left}" if left else f"counted twice: {twice}" if twice else ""
    return codec.digest(model) if model is not None else "", fault


def _ended(made: Run) -> str:
    """The state in which the run ended, or the one that it has after a while."""
    ends = time.monotonic() + WITHIN_S
    while time.monotonic() < ends and not made.status().over:
        time.sleep(0.2)
    return made.status().state


@contextmanager
def up(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A federation that is up. It is ended at the end, if it has not been."""
    command = [sys.executable, "-m", "hansa.cli", "up", "--dir", str(folder), *more, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if process.stdout is None or not process.stdout.readline().startswith('{"url"'):
            raise RuntimeError("the federation did not come up")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def _gone(pid: int) -> bool:
    """Whether the process is there no more, a little later at most."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle, closefd=True):
        return bool(select.select([handle], [], [], 15)[0])


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
