"""What the stores on disk share: one owner at a time, and names that outlive a power cut."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hansa.errors import StorageError
from hansa.files import storage_error


def owner_of(store: Path) -> str | None:
    """The process that writes to a store, as "process 17"; None if there is none."""
    if not lock_of(store).exists():
        return None
    try:
        Claim(lock_of(store)).close()
    except StorageError as error:
        return str(error.got) if isinstance(error.got, str) else None
    return None


def lock_of(store: Path) -> Path:
    """The file that says who writes to a store."""
    return store.with_name(f"{store.name}.lock")


class Claim:
    """The right to be the only process that writes to a store; it ends with `close`, or with the process, however that ends.

    Raises:
        StorageError: another process has it; says which. Or the file cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._handle: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise storage_error(error, self.path) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, str(os.getpid()).encode(), 0)
        except BlockingIOError as error:
            owner = os.pread(self._handle, 20, 0).decode("ascii", "replace")
            self.close()
            hint = "two servers, or two agents, must not share one folder"
            raise StorageError("another process uses this store", path=str(self.path), got=f"process {owner}", hint=hint) from error
        except OSError as error:
            self.close()
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Give the right back; a second time does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn the disk's errors into ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def file_size(path: Path) -> int | None:
    """How many bytes the file has; None if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def pwrite(handle: int, view: memoryview, offset: int) -> None:
    """Write all of the bytes at the offset."""
    done = 0
    while done < view.nbytes:
        done += os.pwrite(handle, view[done:], offset + done)


def pread(handle: int, offset: int, length: int) -> bytes:
    """The bytes at the offset; fewer than `length` only at the end of the file."""
    first = os.pread(handle, length, offset)
    parts, have = [first], len(first)
    while have < length and (more := os.pread(handle, length - have, offset + have)):
        parts.append(more)
        have += len(more)
    return first if len(parts) == 1 else b"".join(parts)
