"""Cost of a piece of work: CPU seconds of the whole process tree, and wall seconds."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work took, in seconds."""

    cpu_s: float
    wall_s: float

    def __truediv__(self, parts: int) -> Cost:
        return Cost(self.cpu_s / parts, self.wall_s / parts)


@dataclass(frozen=True)
class Figure:
    """One number with what it should be. `sense` says on which side of `target` it should lie; no target, no judgement."""

    workload: str
    name: str
    value: float
    unit: str
    baseline: str
    target: float | None = None
    sense: Literal["<=", ">="] = "<="
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.sense == "<=" else self.value >= self.target

    def record(self) -> dict[str, Any]:
        """The figure as JSON."""
        return {**asdict(self), "met": self.met}


def cost_of(work: Callable[[], object], parts: int = 1) -> Cost:
    """What one of the parts of a call takes, in this process and its children."""
    before = Stopwatch()
    work()
    return before.cost() / parts


class Stopwatch:
    """Starts when it is made; counts this process, and its children, whether they are alive or have been waited for."""

    def __init__(self) -> None:
        self._cpu, self._wall = tree_cpu_s(), time.perf_counter()

    def cost(self) -> Cost:
        """What has passed since the start."""
        return self.until(Stopwatch())

    def until(self, later: Stopwatch) -> Cost:
        """What has passed between two starts."""
        return Cost(later._cpu - self._cpu, later._wall - self._wall)


def tree_cpu_s() -> float:
    """User and system seconds of this process and its children."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = sum(_ticks(child.pid) for child in multiprocessing.active_children() if child.pid)
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    try:
        # Fields 14 and 15, counted from 1; the second one is the name in brackets, which may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except FileNotFoundError:  # it ended meanwhile
        return 0
    return int(fields[11]) + int(fields[12])


def alternate(works: Mapping[str, Callable[[], Cost]], *, repeats: int) -> dict[str, list[Cost]]:
    """The costs of each work, measured in turn: what else the machine does meets all of them alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            costs[name].append(work())
    return costs


def ratio(ours: Sequence[Cost], theirs: Sequence[Cost], *, wall: bool = False) -> float:
    """The median of ours over theirs, pair by pair."""
    return median((a.wall_s / b.wall_s) if wall else (a.cpu_s / b.cpu_s) for a, b in zip(ours, theirs, strict=True))


def middle(costs: Sequence[Cost]) -> Cost:
    """The medians."""
    return Cost(median(cost.cpu_s for cost in costs), median(cost.wall_s for cost in costs))


def shown(costs: Mapping[str, Sequence[Cost]], *, scale: float = 1e3, unit: str = "ms") -> dict[str, Any]:
    """The medians of each work, and their spread, as JSON."""
    return {
        name: {
            f"cpu_{unit}": round(middle(each).cpu_s * scale, 3),
            f"wall_{unit}": round(middle(each).wall_s * scale, 3),
            f"cpu_{unit}_range": [round(f(c.cpu_s for c in each) * scale, 3) for f in (min, max)],
            "n": len(each),
        }
        for name, each in costs.items()
    }


def in_child(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What the function returns in a fresh interpreter, which may have children of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def figures_of(module: str, small: bool) -> list[dict[str, Any]]:
    """The figures of a workload, as JSON."""
    return [figure.record() for figure in importlib.import_module(f"benchmarks.{module}").run(small=small)]


class Peak:
    """The most memory that this process holds from the making of this object on, beyond what it held then, in MB."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
        self._before = _status_mb("VmRSS")

    def mb(self) -> float:
        """The peak so far."""
        return _status_mb("VmHWM") - self._before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name", platform.processor())
    if "model" in found:
        name += f", family {found['cpu family']} model {found['model']}"
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load": [round(x, 2) for x in os.getloadavg()],
        "versions": {"python": platform.python_version(), **{n: v for n in ("hansa", "numpy", "torch") if (v := _version(n))}},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_python(*arguments: str, env: Mapping[str, str]) -> Any:
    """The JSON that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout)
