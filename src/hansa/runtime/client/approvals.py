"""Approval by hand: code that waits for a person of this site, what is new in it, and what that person has said."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from hansa.errors import HansaError, InputError
from hansa.files import storage_error, write_atomic
from hansa.runtime.client.places import Places
from hansa.runtime.client.policy import code_hash
from hansa.runtime.jobs.bundle import Bundle, open_bundle

_TEXT_LIMIT: Final = 1 << 20  # bytes of a file, beyond which it is named and not shown


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said of code, by its hash. `at` is in seconds since 1970."""

    code: str
    verdict: Literal["yes", "no"]
    job: str
    author: str
    by: str
    at: float
    reason: str = ""


@dataclass(frozen=True)
class Waiting:
    """Code that nobody has spoken of yet, and a run that waits for it."""

    code: str
    run: str
    bundle: Bundle


def said(places: Places, code: str) -> Said | None:
    """What was said of the code; None if nothing was.

    Raises:
        StorageError: it cannot be read. InputError: what stands there was not written by `say`.
    """
    path = places.approvals / f"{code}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Said)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    except msgspec.MsgspecError as error:
        raise InputError(f"not what a person said: {error}", path=str(path), hint="remove the file, and say it again") from error


def waiting(places: Places) -> list[Waiting]:
    """The code of runs at this site that nobody has spoken of, each once."""
    found: dict[str, Waiting] = {}
    for room in sorted((places.state / "runs").glob("*/bundle.zip")):
        bundle = _opened(room)
        code = None if bundle is None else code_hash(bundle.manifest)
        if bundle is not None and code is not None and code not in found and said(places, code) is None:
            found[code] = Waiting(code, room.parent.name, bundle)
    return list(found.values())


def say(places: Places, what: Waiting, verdict: Literal["yes", "no"], *, reason: str = "") -> Said:
    """Keep what a person says; the agent acts on it within seconds. Approved code is kept, to be compared with what comes next."""
    manifest = what.bundle.manifest
    told = Said(
        code=what.code,
        verdict=verdict,
        job=manifest.job,
        author=manifest.author,
        by=os.environ.get("USER") or str(os.getuid()),
        at=time.time(),
        reason=reason,
    )
    places.approvals.mkdir(mode=0o700, parents=True, exist_ok=True)
    if verdict == "yes":
        content = (places.state / "runs" / what.run / "bundle.zip").read_bytes()
        write_atomic(places.approvals / f"{what.code}.zip", [content])
    write_atomic(places.approvals / f"{what.code}.json", [msgspec.json.encode(told)])
    return told


def changes(places: Places, what: Waiting) -> Iterator[str]:
    """What is new in the code, as lines of a unified diff: against what was approved last of the same job, else all of it.

    Of a job that was approved before, what is new in its plan comes first.
    """
    job = what.bundle.manifest.job
    earlier = sorted((each for each in _all(places) if (each.verdict, each.job) == ("yes", job)), key=lambda each: each.at)
    last = _opened(places.approvals / f"{earlier[-1].code}.zip") if earlier else None
    before = {} if last is None else last.files
    if last is not None:
        one, other = (str(each.plan).splitlines() for each in (last, what.bundle))
        yield from difflib.unified_diff(one, other, fromfile="approved plan", tofile="new plan", lineterm="")
    for path in sorted({*before, *what.bundle.files}):
        old, new = before.get(path, b""), what.bundle.files.get(path, b"")
        if old == new:
            continue
        if max(len(old), len(new)) > _TEXT_LIMIT or b"\0" in old + new:
            yield f"{path}: {len(old):,} bytes before, {len(new):,} now, not text"
            continue
        one, other = (each.decode(errors="backslashreplace").splitlines() for each in (old, new))
        yield from difflib.unified_diff(one, other, fromfile=f"approved/{path}", tofile=f"new/{path}", lineterm="")


def _all(places: Places) -> Iterator[Said]:
    for path in sorted(places.approvals.glob("*.json")):
        if (found := said(places, path.stem)) is not None:
            yield found


def _opened(path: Path) -> Bundle | None:
    try:
        return open_bundle(path.read_bytes())
    except (HansaError, OSError):  # half of it is here as yet, or it was refused
        return None
