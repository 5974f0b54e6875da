"""Files that are whole or not there: atomic writes, and the typed error of a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from hansa.errors import StorageError

Buffer: TypeAlias = bytes | bytearray | memoryview


def write_atomic(path: str | Path, parts: Iterable[Buffer]) -> None:
    """Write the parts, one after the other, as the file `path`: a temporary file beside it, fsync, rename, fsync of the folder.

    A symbolic link is followed: the file that it leads to is replaced, and the link stays.

    Raises:
        StorageError: says which file and how many bytes; a full disk is named; a folder or a device is not replaced. What stood
            under the name still stands.
    """
    asked, chunks = Path(path), list(parts)
    target = Path(os.path.realpath(asked)) if asked.is_symlink() else asked
    if target.exists() and not target.is_file():
        raise StorageError("not a regular file, so it is not replaced", path=str(path))
    part_file = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_file.open("xb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        part_file.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise storage_error(error, target, size=sum(memoryview(part).nbytes for part in chunks)) from error
    finally:
        with contextlib.suppress(OSError):  # after the rename, or in a folder that could not be made, there is none
            part_file.unlink(missing_ok=True)


def storage_error(error: OSError, path: str | Path, *, size: int | None = None) -> StorageError:
    """The typed error of an OSError: a full disk says so, and how many bytes were wanted."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return StorageError(
        "the disk is full" if full else f"a file operation failed: {error.strerror or error}",
        path=str(path),
        expected=None if size is None else f"room for {size:,} bytes",
        hint="free some space and resume; nothing that stood was changed" if full else None,
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
