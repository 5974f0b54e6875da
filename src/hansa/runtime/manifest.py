"""A job as it travels: a zip of the user's code with its plan, a manifest of hashes and the author's signature.

`hansa` itself is never in it: that is the site's own install.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, cast

import msgspec

from hansa import registry
from hansa.core.computation import Computation
from hansa.core.job import Job
from hansa.core.types import CLIENTS
from hansa.errors import JobReferenceError
from hansa.references import load_reference

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
PLAN: Final = "plan.json"
PACKED: Final = 64 << 20  # bytes
ENTRIES: Final = 2_000
NAME: Final = re.compile(r"(?=.{1,200}$)(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,9}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a bundle says of itself. `files` are SHA-256 by path, `plan_hash` is that of its plan: what runs
    and what leaves, a claim.

    `chain` is the author's certificates, `signature` theirs over `signed`; both in base64. `core` does not check them.
    """

    format: int = FORMAT
    reference: str
    job: str
    data: str
    seed: int = 0
    plan_hash: str
    requires: list[str] = []
    progress_s: float | None = 300.0
    environment: str = ""
    cores: Annotated[int, msgspec.Meta(ge=1)] = 1
    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    files: dict[str, str] = {}
    author: str = ""
    chain: list[str] = []
    signature: str = ""

    @property
    def signed(self) -> bytes:
        """The bytes that the author signs: all but the signature."""
        return b"hansa bundle 2\n" + msgspec.json.encode(msgspec.structs.replace(self, signature=""), order="deterministic")


def load_job(folder: Path, reference: str) -> Job:
    """The job that a bundle's reference leads to, from the folder that it was extracted to. Runs the user's code.

    A computation is the job that runs it once, on the data called as its parameter is.

    Raises:
        JobReferenceError: it leads nowhere, or to something else than a job.
        ConfigError: it leads to a computation that takes more than the sites' data.
    """
    if reference.endswith((".toml", ".json")):  # a job file, or the configuration of an app of another system
        kind = reference.rpartition(".")[2]
        found = cast(Callable[[Path], object], registry.find("jobs", kind))(folder / reference)
    elif ".py:" in reference:
        found = load_reference(reference, base=folder)
    else:
        sys.path.insert(0, str(folder))
        try:
            found = load_reference(reference)
        finally:
            sys.path.remove(str(folder))
    if isinstance(found, Computation):
        own = [each.name for each in found.parameters if each.placement is CLIENTS]
        found = Job(found.name, found, data=own[0] if own else "data")
    if not isinstance(found, Job):
        raise JobReferenceError(
            "the name leads to something else than a Job or a computation", got=f"{reference} is a {type(found).__name__}"
        )
    return found
