"""Whether a server's record is whole, checked by a person who keeps the heads of what they saw."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from hansa.admin.client import Session
from hansa.errors import InputError
from hansa.files import storage_error, write_atomic
from hansa.runtime.audit.chain import Verdict, Verified
from hansa.runtime.audit.chain import verify as check
from hansa.runtime.store.event import Event, Head

LIMIT: Final = 64 << 20  # bytes of a file of heads


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    project: str
    heads: list[Head]
    format: int = 1


def verify(session: Session, kept: Path | None = None) -> Verdict:
    """Whether every stream of the server's record is whole, and goes on from the heads in the file `kept`.

    If so, the file then holds the heads of now.

    Raises:
        InputError: the file is another project's, or no such file.
    """
    before = _read(kept, session.kit.project) if kept is not None else []
    streams = {*session.streams(), *(head.stream for head in before)}
    events: list[Event] = [event for stream in streams for event in session.audit(stream)]
    verdict = check(sorted(events, key=lambda event: event.id), before)
    if kept is not None and isinstance(verdict, Verified):
        content = _Kept(session.kit.project, [verdict.heads[stream] for stream in sorted(verdict.heads)])
        write_atomic(kept, [msgspec.json.format(msgspec.json.encode(content), indent=1), b"\n"])
    return verdict


def _read(path: Path, project: str) -> list[Head]:
    if not path.exists():
        return []
    try:
        if path.stat().st_size > LIMIT:
            raise InputError("not a file of heads: too long", path=str(path))
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except OSError as error:
        raise storage_error(error, path) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"not a file of heads: {error}", path=str(path), hint="name a new file") from error
    if kept.project != project:
        raise InputError("the heads are another project's", path=str(path), got=kept.project, expected=project)
    return kept.heads
