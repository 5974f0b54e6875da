"""What leaves a site: looked at by the agent, after the sandbox, under the site's own policy."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from hansa.core import codec, trees
from hansa.core.task import Failure, Shareable
from hansa.errors import ClientError, InputError, RefusedError
from hansa.files import storage_error
from hansa.runtime.client.channel import Done
from hansa.runtime.config import SitePolicy
from hansa.runtime.store.blob import Blob, Blobs

_BLOCK: Final = 1 << 20
_SLACK: Final = 64 * 1024  # bytes: what a bare reply may always have


class LeavingError(RefusedError):
    """The site's policy keeps the reply."""

    code = "leaving"


def take(path: Path, blobs: Blobs, policy: SitePolicy) -> Blob:
    """The reply that a worker wrote, as a blob that may leave; durable on return.

    Raises:
        LeavingError: the policy keeps it. SpecError: it is no message. InputError: it is no plain file.
    """
    blob = keep(path, blobs, limit=(policy.max_upload_mb << 20) + _SLACK)
    before = _read(blobs.path(blob.digest))
    after = _permitted(before, policy)
    if after is before:
        return blob
    return blobs.put(codec.encode_parts(after))


def keep(path: Path, blobs: Blobs, *, limit: int) -> Blob:
    """The file that a worker wrote, as a blob; the file is removed.

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


def told(done: Done, policy: SitePolicy) -> Failure:
    """The failure as its author may see it. What code says when it fails may quote data: without `traceback` its kind is told."""
    if policy.traceback:
        return Failure(done.code, done.message, done.path, done.trace)
    if done.code == ClientError.code:
        kind = done.message.partition(":")[0].strip()
        return Failure(done.code, f"the job's code raised {kind if kind.replace('.', '').isidentifier() else 'an error'}")
    return Failure(done.code, done.message, done.path)


def _permitted(shareable: Shareable, policy: SitePolicy) -> Shareable:
    """The message without what the policy keeps; the same object if that is nothing."""
    if "arrays" not in policy.kinds and trees.nbytes(shareable.body):
        raise LeavingError("arrays do not leave this site", expected=", ".join(policy.kinds) or "nothing")
    if "metrics" not in policy.kinds and shareable.metrics:
        return replace(shareable, metrics={})
    return shareable


def _opened(path: Path, limit: int) -> int:
    """A descriptor of a file that may be anything: a link to a secret, a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InputError("the worker has left no reply", path=path.name, got=error.strerror) from error
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= limit:
        return handle
    os.close(handle)
    got = f"{found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "something else than a file"
    raise InputError("this may not leave the site", path=path.name, got=got, expected=f"a file of at most {limit:,} bytes")


def _pieces(handle: int, limit: int, path: Path) -> Iterator[bytes]:
    """The file's bytes. They are read, not mapped: the worker is still there, and could cut the file off meanwhile."""
    total = 0
    while block := os.read(handle, _BLOCK):
        total += len(block)
        if total > limit:
            raise InputError("a file grows while it is read", path=path.name, expected=f"at most {limit:,} bytes")
        yield block


def _read(path: Path) -> Shareable:
    """The message in a blob."""
    with path.open("rb") as file:
        return codec.decode(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
