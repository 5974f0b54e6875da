"""What leaves a site: looked at by the agent, after the sandbox, under the site's own policy."""

from __future__ import annotations

import inspect
import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

from hansa import codec, registry
from hansa.core import trees
from hansa.core.protocols import Filter
from hansa.core.task import Failure, FLContext, Shareable
from hansa.errors import ClientError, ConfigError, InputError, RefusedError, UpdateError
from hansa.runtime.client.channel import Done
from hansa.runtime.config import SitePolicy
from hansa.runtime.store.blob import Blob, Blobs
from hansa.runtime.store.untrusted import take_file

_SLACK: Final = 64 * 1024  # bytes: what a bare reply may always have


class LeavingError(RefusedError):
    """The site's policy keeps the reply."""

    code = "leaving"


def demanded(policy: SitePolicy) -> list[Filter]:
    """The filters that the policy demands, from this site's own install. They look at all of a reply, unless the policy says less.

    Raises:
        ConfigError: there is no such filter, or it does not take these settings.
    """
    return [_filter(number, table) for number, table in enumerate(policy.filters)]


def take(path: Path, blobs: Blobs, policy: SitePolicy, ctx: FLContext) -> Blob:
    """The reply that a worker wrote, as a blob that may leave, after the filters that the policy demands; durable on return.

    Raises:
        LeavingError: the policy keeps it, or a filter of the site's cannot take it.
        SpecError: it is no message. InputError: it is no plain file.
    """
    blob = take_file(path, blobs, limit=(policy.max_upload_mb << 20) + _SLACK)
    before = _read(blobs.path(blob.digest))
    after = _filtered(_permitted(before, policy), policy, ctx)
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


def _filter(number: int, table: Mapping[str, Any]) -> Filter:
    place = f"$.policy.filters[{number}]"
    make = cast(Callable[..., Filter], registry.find("filters", str(table.get("kind")), path=f"{place}.kind"))
    given = {name: value for name, value in table.items() if name != "kind"}
    if "path" in inspect.signature(make).parameters:  # a job names its update as it likes: no name is a way around
        given = {"path": "", **given}
    try:
        return make(**given)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"not settings of this filter: {error}", path=place) from error


def _filtered(shareable: Shareable, policy: SitePolicy, ctx: FLContext) -> Shareable:
    """The message after the filters that the policy demands; the same object if there are none."""
    for each in demanded(policy) if shareable.body else []:
        try:
            shareable = each(shareable, ctx)
        except (UpdateError, InputError) as error:
            raise LeavingError(f"this site's filter {each!r} does not take it: {error.message}", path=error.path) from error
    return shareable


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
