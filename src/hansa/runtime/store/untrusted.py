"""Files that an enclosed process has left: taken over only if they are what they should be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from hansa.errors import InputError
from hansa.files import storage_error
from hansa.runtime.store.blob import Blob, Blobs

_BLOCK: Final = 1 << 20


def take_file(path: Path, blobs: Blobs, *, limit: int) -> Blob:
    """The file that an enclosed process wrote, as a blob of ours; the file is removed.

    Raises:
        InputError: it is no plain file, or too large. StorageError: it cannot be read, or there is no room.
    """
    handle = _opened(path, limit)
    try:
        blob = blobs.adopt(handle, path, os.fstat(handle).st_size) or blobs.put(_pieces(handle, limit, path))
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path.name) from error
    finally:
        os.close(handle)
    return blob


def open_below(folder: Path, path: str) -> BinaryIO:
    """The plain file at a path below a folder in which an enclosed process writes. No link is followed, whatever it puts there.

    Raises:
        InputError: there is none.
    """
    *folders, name = PurePosixPath(path).parts or ("",)
    flags = os.O_RDONLY | os.O_NOFOLLOW
    try:
        with contextlib.ExitStack() as behind:
            place = os.open(folder, flags | os.O_DIRECTORY)
            for each in folders:
                behind.callback(os.close, place)
                place = os.open(each, flags | os.O_DIRECTORY, dir_fd=place)
            behind.callback(os.close, place)
            handle = os.open(name, flags | os.O_NONBLOCK, dir_fd=place)
    except OSError as error:
        raise InputError("there is no such file", path=path, got=error.strerror) from error
    if stat.S_ISREG(os.fstat(handle).st_mode) and ".." not in folders:
        return os.fdopen(handle, "rb", buffering=0)
    os.close(handle)
    raise InputError("this is no plain file", path=path)


def _opened(path: Path, limit: int) -> int:
    """A descriptor of a file that may be anything: a link to a secret, a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError("the process has left no such file", path=path.name, got=error.strerror) from error
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= limit:
        return handle
    os.close(handle)
    got = f"{found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "something else than a file"
    raise InputError("this is not taken over", path=path.name, got=got, expected=f"a file of at most {limit:,} bytes")


def _pieces(handle: int, limit: int, path: Path) -> Iterator[bytes]:
    """The file's bytes. They are read, not mapped: the process is still there, and could cut the file off meanwhile."""
    total = 0
    while block := os.read(handle, _BLOCK):
        total += len(block)
        if total > limit:
            raise InputError("a file grows while it is read", path=path.name, expected=f"at most {limit:,} bytes")
        yield block
