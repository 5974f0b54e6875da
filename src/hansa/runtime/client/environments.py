"""The virtual environments that a site offers: a job's label, the interpreter that it leads to, and what is installed there."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Final

import msgspec

from hansa.errors import RefusedError

_DISTRIBUTION: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
LOOK_S: Final = 60.0  # for an interpreter to say what it has
_OURS: Final = "hansa"
_ASK: Final = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class LackError(RefusedError):
    """The site lacks what the job needs: `code` says what kind of thing."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def interpreter(environments: Mapping[str, str], label: str, base: Path) -> Path:
    """The Python that a job with this label is run by; without a label, the agent's own.

    Raises:
        LackError: the site has no such environment, it is an image, for which there is no runtime here, or it is not there.
    """
    if not label:
        return Path(sys.executable)
    named = environments.get(label)
    if named is None:
        raise LackError("environment", f"this site has no environment {label!r}")
    python = base / named / "bin" / "python"
    if "://" in named or not (base / named).is_dir():
        raise LackError("environment", f"environment {label!r} is no folder here; images cannot be run at this site")
    if not python.exists():
        raise LackError("environment", f"environment {label!r} holds no bin/python")
    return python


def require(python: Path, names: tuple[str, ...]) -> None:
    """Return if the distributions are installed for an interpreter, and so is this version of Hansa.

    Raises:
        LackError: names the first that is not.
    """
    if wrong := [name for name in names if not _DISTRIBUTION.fullmatch(name)]:
        raise LackError("requires", f"not the name of a distribution: {wrong[0][:80]!r}")
    if python == Path(sys.executable):
        for name in names:
            try:
                distribution(name)
            except PackageNotFoundError:
                raise LackError("requires", f"this site has no {name} installed, which the job requires") from None
        return
    found, own = _installed(str(python), names, _stamp(python)), version(_OURS)
    if found.get(_OURS) != own:
        raise LackError("environment", f"the environment has hansa {found.get(_OURS, 'not at all')}; this site runs {own}")
    for name in names:
        if name not in found:
            raise LackError("requires", f"the environment has no {name} installed, which the job requires")


@functools.lru_cache(maxsize=64)
def _installed(python: str, names: tuple[str, ...], stamp: int) -> dict[str, str]:  # noqa: ARG001  the stamp ages the answer
    """The versions that an interpreter finds."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK, _OURS, *names], capture_output=True, timeout=LOOK_S, check=True, stdin=subprocess.DEVNULL
        )
        return msgspec.json.decode(done.stdout, type=dict[str, str])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise LackError("environment", f"the environment's Python does not run: {error}") from error


def _stamp(python: Path) -> int:
    """Changes when something is installed or removed."""
    return sum(path.stat().st_mtime_ns for path in python.parent.parent.glob("lib/python*/site-packages"))
