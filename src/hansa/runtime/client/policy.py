"""Whether a site takes part in a run: its own policy, looked at for each offer and each task. The site has the last word."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from hansa.core.task import LOCAL_MODEL
from hansa.runtime.config import SitePolicy
from hansa.runtime.manifest import Manifest

ASK_AGAIN_S: Final = 3_600.0  # for a person's word: what they say is heard at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a site is asked to take part in. The author's name and organisation are those of a checked signature.

    population: how many sites the run has; None where that is not known yet. here: the labels of data that the site has. collected:
    by task, what its plan says that nobody aggregates. task: its name, "" while only the run is offered. lack: the code and the
    reason of what the job needs and this machine does not have. said: what a person of the site has said of the code, and why; None
    if nothing.
    """

    author: str
    org: str
    project: str
    manifest: Manifest
    population: int | None = None
    here: Collection[str] = ()
    collected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    task: str = ""
    lack: tuple[str, str] | None = None
    said: tuple[Literal["yes", "no"], str] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the site says. A refusal has a stable `code` and a `reason` for the author; a wait ends after `wait_s` seconds."""

    verdict: Literal["accept", "refuse", "wait"]
    code: str = ""
    reason: str = ""
    wait_s: float = 0.0


def decide(policy: SitePolicy | None, asked: Asked, now: datetime) -> Decision:
    """What a site with that policy says at the local time `now`. Without a policy it says no.

    >>> manifest = Manifest(reference="job.py:job", job="j", data="heart", plan_hash="")
    >>> asked = Asked(author="ada", org="Uni", project="hearts", manifest=manifest, here=["heart"])
    >>> decide(SitePolicy(authors=("ada",), code="any"), asked, datetime(2024, 1, 1)).verdict
    'accept'
    >>> decide(SitePolicy(authors=("bob",), code="any"), asked, datetime(2024, 1, 1)).reason
    'this site runs no jobs of ada (Uni)'
    """
    if policy is None:
        return _no("closed", "this site has no policy, so it runs nothing")
    code = code_hash(asked.manifest)
    who = f"{asked.author} ({asked.org})"
    if policy.authors != "any" and asked.author not in policy.authors and policy.orgs != "any" and asked.org not in policy.orgs:
        return _no("author", f"this site runs no jobs of {who}")
    if policy.projects != "any" and asked.project not in policy.projects:
        return _no("project", f"this site runs no jobs of project {asked.project}")
    known = policy.code != "any" and code in policy.code
    by_hand = policy.approval == "by_hand" and not known
    if policy.code != "any" and not known and not by_hand:
        return _no("code", f"this site has not approved the code with the hash {code}")
    if by_hand and asked.said is not None and asked.said[0] == "no":
        return _no("approval", f"a person at this site has refused the code {code}: {asked.said[1] or 'no reason given'}")
    if asked.population is not None and asked.population < policy.min_cohort:
        return _no("min_cohort", f"this site takes part with at least {policy.min_cohort} sites; this run has {asked.population}")
    if _own_model(asked.task) and not policy.local_models:
        return _no("local_models", "this site's own model does not go to other sites")
    if not policy.collect and (
        alone := [f"{task}: {', '.join(names)}" for task, names in asked.collected.items() if not _own_model(task)]
    ):
        return _no("collect", f"this site gives nothing that nobody aggregates ({alone[0]})")
    if lack := _lack(asked):
        return lack
    if by_hand and asked.said is None:
        return Decision("wait", "approval", f"a person at this site has yet to approve the code with the hash {code}", ASK_AGAIN_S)
    return _opening(policy, now)


def code_hash(manifest: Manifest) -> str:
    """The SHA-256 that a site's policy knows a job's code by: of what is started, and of each file."""
    content = {"reference": manifest.reference, "files": manifest.files}
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _own_model(task: str) -> bool:
    """Whether a task takes the site's own model: `local_models` is asked about it."""
    return task.partition("@")[0] == LOCAL_MODEL


def _lack(asked: Asked) -> Decision | None:
    """What the job needs and the site does not have."""
    label = asked.manifest.data
    if label not in asked.here:
        return _no("data", f"this site has no data with the label {label!r}")
    if asked.lack is not None:
        return _no(*asked.lack)
    return None


def _opening(policy: SitePolicy, now: datetime) -> Decision:
    minute = now.hour * 60 + now.minute
    if policy.open_at(minute):
        return Decision("accept")
    wait = next(ahead for ahead in range(1, 24 * 60 + 1) if policy.open_at((minute + ahead) % (24 * 60)))
    opens = (now + timedelta(minutes=wait)).replace(second=0, microsecond=0)
    return Decision("wait", "hours", f"this site works from {opens:%H:%M}", (opens - now).total_seconds())


def _no(code: str, reason: str) -> Decision:
    return Decision("refuse", code, reason)
