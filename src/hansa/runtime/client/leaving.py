"""What leaves a site: looked at by the agent, after the sandbox, under the site's own policy."""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import Final

from hansa.core import codec, trees
from hansa.core.task import Failure, Shareable
from hansa.errors import ClientError, RefusedError
from hansa.runtime.client.channel import Done
from hansa.runtime.config import SitePolicy
from hansa.runtime.store.blob import Blob, Blobs
from hansa.runtime.store.untrusted import take_file

_SLACK: Final = 64 * 1024  # bytes: what a bare reply may always have


class LeavingError(RefusedError):
    """The site's policy keeps the reply."""

    code = "leaving"


def take(path: Path, blobs: Blobs, policy: SitePolicy) -> Blob:
    """The reply that a worker wrote, as a blob that may leave; durable on return.

    Raises:
        LeavingError: the policy keeps it. SpecError: it is no message. InputError: it is no plain file.
    """
    blob = take_file(path, blobs, limit=(policy.max_upload_mb << 20) + _SLACK)
    before = _read(blobs.path(blob.digest))
    after = _permitted(before, policy)
    if after is before:
        return blob
    return blobs.put(codec.encode_parts(after))


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


def _read(path: Path) -> Shareable:
    """The message in a blob."""
    with path.open("rb") as file:
        return codec.decode(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
