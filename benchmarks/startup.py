"""W4, from the command to the first client's work: `hansa run job.toml` without torch; and what `import hansa` costs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Cost, Figure, run_python

LEARNER = '''
import time
from pathlib import Path
from hansa.adapters.numpy import logistic


class Stamped:
    """A learner that notes when it is first asked to train."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def bound_to(self, data, classes=None):
        return Stamped(self.inner.bound_to(data, classes))

    def fit(self, *args, **kwargs):
        stamp = Path(__file__).with_name("stamp")
        if not stamp.exists():
            stamp.write_text(f"{time.monotonic()} {time.process_time()}")
        return self.inner.fit(*args, **kwargs)


learner = Stamped(logistic())
'''
JOB = """
name = "first"
[data]
source = "heart"
[learner]
kind = "learner.py:learner"
[algorithm]
name = "fedavg"
rounds = 1
standardise = true
"""
IMPORTS = """
import json, sys, time
import numpy
start = time.process_time()
{}
print(json.dumps([time.process_time() - start, "torch" in sys.modules]))
"""


def run(*, small: bool) -> list[Figure]:
    """The figures of the workload; the first start, which compiles and fills the file system's cache, is not counted."""
    with tempfile.TemporaryDirectory() as compiled:
        # Compiled modules are kept, as in any installation, whatever this process was told about writing them.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return _figures({**env, "PYTHONPYCACHEPREFIX": compiled}, repeats=2 if small else 11)


def _figures(env: dict[str, str], *, repeats: int) -> list[Figure]:
    costs = [_first_task(env) for _ in range(repeats + 1)][1:]
    starts = [cost.wall_s for cost in costs]
    bare = [_bare_start(env) for _ in range(repeats)]
    codes = ("import hansa", "import hansa; hansa.simulate")
    imports = {code: [_import(code, env) for _ in range(repeats + 1)][1:] for code in codes}
    details: dict[str, Any] = {
        "first task, s": {
            "median": round(median(starts), 3),
            "range": [round(min(starts), 3), round(max(starts), 3)],
            "n": repeats,
        },
        "python -c 'import numpy', s": round(median(bare), 3),
        "CPU s": {name: round(median(each), 4) for name, each in imports.items()},
    }
    numpy = "python and numpy alone"
    return [
        Figure("W4", "first client task after `hansa run`", median(starts), "s", numpy, 0.5, "<=", details),
        Figure("W4", "the same, CPU alone", median(cost.cpu_s for cost in costs), "CPU s", numpy),
        Figure("W4", "import hansa", median(imports["import hansa"]), "CPU s beyond numpy", numpy, 0.1, "<="),
        Figure(
            "W4", "import hansa and its simulation", median(imports["import hansa; hansa.simulate"]), "CPU s beyond numpy", numpy
        ),
    ]


def _first_task(env: dict[str, str]) -> Cost:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "learner.py").write_text(LEARNER, encoding="utf-8")
        (folder / "job.toml").write_text(JOB, encoding="utf-8")
        command = [sys.executable, str(Path(sys.executable).with_name("hansa")), "run", "job.toml", "--out", "run"]
        start = time.monotonic()
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=env)
        at, cpu = (folder / "stamp").read_text(encoding="utf-8").split()
        return Cost(float(cpu), float(at) - start)


def _bare_start(env: dict[str, str]) -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True, env=env)
    return time.monotonic() - start


def _import(code: str, env: dict[str, str]) -> float:
    seconds, torch = run_python("-c", IMPORTS.format(code), env=env)
    if torch:
        raise RuntimeError(f"{code} imported torch")
    return float(seconds)
