"""The data of a federation on one machine: each site gets its share of a federated data set, by slot."""

from __future__ import annotations

from collections.abc import Mapping

from hansa.config.loading import load
from hansa.core.protocols import FederatedData
from hansa.errors import DataError, InputError
from hansa.references import load_reference


def by_label(job: str | None, data: str | None, *, folder: str | None = None) -> Mapping[str, FederatedData]:
    """The federated data sets by label: what `data` names ("file.py:name", "label=file.py:name"), else what the job brings.

    Without a label and without a job, the label is the name. folder: of larger data sets.

    Raises:
        DataError: it is no federated data. JobReferenceError: a reference leads nowhere.
    """
    label, _, reference = (data or "").rpartition("=")
    if job is not None and not label:
        return load(job, data=data, environment=folder).data
    if not reference:
        return {}
    found = load_reference(reference)
    if callable(found) and not isinstance(found, FederatedData):
        found = found()
    if isinstance(found, Mapping) and not label:
        return dict(found)
    if not isinstance(found, FederatedData):
        expected = "a FederatedData" if label else "a FederatedData, or one by label"
        hint = f"a dict has labels of its own: leave out {label}=" if isinstance(found, Mapping) else None
        raise DataError("not federated data", path=reference, got=type(found).__name__, expected=expected, hint=hint)
    return {label or reference.rpartition(":")[2]: found}


def shard(job: str | None, data: str | None, *, folder: str | None, label: str, slot: int) -> object:
    """One site's share."""
    return by_label(job, data, folder=folder)[label].load(slot)


def count(sets: Mapping[str, FederatedData]) -> int | None:
    """How many sites all of the data sets can serve; None if there are none.

    Raises:
        InputError: one has no site.
    """
    sizes = {label: len(each.sites) for label, each in sets.items()}
    if empty := [label for label, size in sizes.items() if size < 1]:
        raise InputError("a data set has no sites", path=empty[0])
    return min(sizes.values(), default=None)


def loader(job: str | None, data: str | None, *, folder: str | None, labels: list[str], slot: int) -> str:
    """The text of a site's `shard.py`: a function for each label, in order, that loads the site's share."""
    lines = ['"""This site\'s share of the data, as `hansa up` dealt it."""', "", "from hansa.admin.here.shards import shard", ""]
    for number, label in enumerate(labels):
        call = f"shard({job!r}, {data!r}, folder={folder!r}, label={label!r}, slot={slot})"
        lines += ["", f"def load_{number}():", f"    return {call}", ""]
    return "\n".join(lines)
