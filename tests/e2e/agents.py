"""Real site agents for tests: a kit with a site.toml, and the agent's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SITE_TOML = """
sandbox = "{sandbox}"
[data]
heart = "shards.py:load"
[publish]
types = false
[policy]
authors = "any"
code = "any"
min_cohort = 1
traceback = {traceback}
"""
SHARDS = """
from hansa.data import datasets, partition

DATA = partition.column(datasets.heart(), by="site", split=(0.6, 0.15, 0.25))


def load(slot):
    return DATA.load(slot)
"""


def furnish(kit: Path, *, sandbox: str = "basic", traceback: bool = True, toml: str = SITE_TOML, shards: str = SHARDS) -> Path:
    """A site's own files beside its kit's."""
    (kit / "site.toml").write_text(toml.format(sandbox=sandbox, traceback=str(traceback).lower()))
    (kit / "shards.py").write_text(shards)
    return kit


@dataclass
class Agent:
    """An agent's process; `kill` is -9, `stop` is SIGTERM."""

    kit: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        return self.kit / "agent.log"

    def start(self, *, ready: bool = True) -> Agent:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hansa.runtime.client", str(self.kit)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environment},
            )
        return self.ready() if ready else self

    def ready(self) -> Agent:
        """Returns when the server has let the agent in."""
        assert self.process is not None
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("ready https://"):
            raise AssertionError(self.log.read_text())
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        return self.process.returncode

    def ended(self, timeout_s: float = 20.0) -> int:
        """The exit code of an agent that ends by itself."""
        assert self.process is not None
        try:
            self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode

    def workers(self) -> list[int]:
        """The pids of all processes that belong to this agent's runs, living or left behind."""
        place = str(self.kit.absolute())
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    own = b"runtime.client.worker" in (entry / "cmdline").read_bytes()
                    if own and str((entry / "cwd").readlink()).startswith(place):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


@contextmanager
def agents(kits: Path, names: list[str], *, environment: dict[str, str] | None = None, **how: str) -> Iterator[dict[str, Agent]]:
    """Agents of the sites, started together, stopped clean. `environment` is what theirs has besides the test's own."""
    started: dict[str, Agent] = {}
    try:
        for name in names:
            started[name] = Agent(furnish(kits / name, **how), environment or {}).start(ready=False)  # type: ignore[arg-type]  # of text
        for agent in started.values():
            agent.ready()
        yield started
    finally:
        for agent in started.values():
            if agent.process is not None and agent.process.poll() is None:
                agent.stop()
