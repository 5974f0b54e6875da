"""One process at a time runs in a run folder; `hansa.record.lock` reads whether one does."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from hansa.errors import InputError
from hansa.files import storage_error
from hansa.record.lock import LOCK

_held: set[int] = set()  # file descriptors of this process alone


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Hold a run folder while a run is under way; the system lets go of it however the process ends.

    Raises:
        InputError: another run holds it; names its process. StorageError: the lock's file cannot be written.
    """
    import fcntl  # not on every system that can read a run folder

    _kept_from_children()
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise storage_error(error, path) from error
    _held.add(handle)
    mine = False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            owner = os.pread(handle, 20, 0).decode("ascii", "replace")
            where, hint = str(folder), "wait for its end, or stop that process"
            raise InputError("the run is already running", path=where, got=f"process {owner}", hint=hint) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks keeps nobody out
                raise storage_error(error, path) from error
        yield
    finally:
        if mine and not (folder / "run.json").exists():  # it ended before it began: the folder is left as empty as it was
            path.unlink(missing_ok=True)
        _held.discard(handle)
        os.close(handle)


@functools.cache
def _kept_from_children() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """A worker must not hold the folder of a run whose process is gone: the lock goes with the last copy of its descriptor."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()
