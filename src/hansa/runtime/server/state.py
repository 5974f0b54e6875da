"""What the server knows, as a fold of its committed events: runs, their steps, and what is new for each site. Pure, no I/O.

At the start all events are folded; afterwards each is, as soon as it is committed. So what a server says after `kill -9` is what it
said before. The stream `project` holds what concerns all, `run/ID` what concerns a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from hansa.core.task import Failure
from hansa.runtime.jobs.link import Came, Close, Drop
from hansa.runtime.protocol.messages import Assignment, Ended, Hello, NotCounted, Offer
from hansa.runtime.server.known import PROJECT, Asked, Item, Run, Site, Step, Submitted
from hansa.runtime.store.event import Event

_OF_A_STEP: Final = frozenset({"task.assigned", "task.lost", "result", "task.closed", "task.dropped"})


@dataclass
class Book:
    """All that was committed, folded. `last` is the newest event's number, `epoch` counts the server's starts."""

    runs: dict[str, Run] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    tickets: dict[str, str] = field(default_factory=dict)  # hash of a one-time token -> the key it was used for
    epoch: int = 0
    last: int = 0

    def site(self, name: str) -> Site:
        """The site of that name."""
        return self.sites.setdefault(name, Site(name))

    def run(self, name: str) -> Run | None:
        """The run of that name that was not deleted."""
        found = self.runs.get(name)
        return None if found is None or found.deleted else found

    def apply(self, event: Event) -> set[str]:
        """Take an event in; the names of the sites for which something is new."""
        self.last = max(self.last, event.id)
        if event.stream == PROJECT:
            return self._of_project(event)
        if event.kind == "run.submitted":
            what = msgspec.convert(event.data, Submitted)
            self.runs[what.run] = Run(what, event.at)
            return set()
        run = self.runs.get(event.stream.removeprefix("run/"))
        return set() if run is None else self._of_run(run, event)

    def _of_project(self, event: Event) -> set[str]:
        data = event.data
        match event.kind:
            case "server.started":
                self.epoch = data["epoch"]
            case "site.enrolled":
                self.tickets[data["hash"]] = data["used_for"]
                self.site(data["site"]).certified = data.get("until")
            case "site.renewed":
                self.site(data["site"]).certified = data["until"]
            case "site.hello":
                self.site(data["site"]).hello = msgspec.convert(data["hello"], Hello)
            case "site.disabled":
                self.site(data["site"]).disabled = data["reason"]
            case "site.enabled":
                self.site(data["site"]).disabled = None
            case _:
                return set()
        return {data["site"]} if "site" in data else set()

    def _of_run(self, run: Run, event: Event) -> set[str]:
        data = event.data
        if run.over and event.kind != "run.deleted":
            return set()  # it was being committed while the run ended: what ended it stands
        if event.kind in _OF_A_STEP and data["seq"] not in run.steps:
            return set()  # or while the step was forgotten
        match event.kind:
            case "run.offered":
                return self._offer(run, event.id)
            case "site.accepted" | "site.refused":
                run.answers[data["site"]] = data.get("message", "") if event.kind == "site.refused" else ""
                self._drop(run, data["site"], Offer)
            case "run.started" | "run.resumed":
                run.state = "running"
                run.restarts = 0
            case "run.ready":
                run.rounds = data["rounds"]
            case "run.paused":
                run.state = "paused"
            case "run.crashed":
                run.restarts += 1
            case "task.opened":
                return self._open(run, event)
            case "task.started":
                run.began.add(data["site"])
            case "task.assigned":
                return self._assign(run, event.id, data["seq"], data["slot"], data["attempt"])
            case "task.lost" | "result":
                return self._came(run, event)
            case "task.closed":
                return self._close(run, event)
            case "task.dropped":
                drop = msgspec.convert(data, Drop)
                reasons = {each.slot: each.failure.message if each.failure else "" for each in drop.dropped}
                return self._not_counted(run, event.id, run.steps[drop.seq], reasons)
            case "round":
                run.round, run.metrics = max(run.round, data["record"].get("round", 0)), data["record"].get("global", {})
            case "checkpoint":
                if data["seq"] != run.floor:
                    run.behind, run.floor = run.floor, data["seq"]
                run.steps = {seq: step for seq, step in run.steps.items() if seq > run.floor - KEPT}
            case "run.ended":
                return self._end(run, event)
            case "run.deleted":
                run.deleted = True
        return set()

    def _offer(self, run: Run, number: int) -> set[str]:
        what = run.what
        run.offered = True
        for slot, name in enumerate(what.sites):
            self.site(name).items[number] = Offer(
                run=run.id, job=what.job, author=what.author, bundle=what.bundle, bundle_bytes=what.bundle_bytes, slot=slot
            )
        return set(what.sites)

    def _open(self, run: Run, event: Event) -> set[str]:
        data = event.data
        step = Step(
            data["seq"],
            data["task"],
            data["round"],
            data["body"],
            data["body_bytes"],
            data.get("deadline_s"),
            event.at,
            tuple(data["slots"]),
        )
        run.steps[step.seq] = step
        told: set[str] = set()
        for slot in step.slots:
            told |= self._assign(run, event.id, step.seq, slot, 1)
        return told

    def _assign(self, run: Run, number: int, seq: int, slot: int, attempt: int) -> set[str]:
        step, what, name = run.steps[seq], run.what, run.what.sites[slot]
        before = step.asked.get(slot)
        if before is not None:
            self.site(name).items.pop(before.item, None)
        step.asked[slot] = Asked(slot, attempt, number)
        self.site(name).items[number] = Assignment(
            run=run.id,
            seq=seq,
            attempt=attempt,
            slot=slot,
            task=step.task,
            round=step.round,
            body=step.body,
            body_bytes=step.body_bytes,
            bundle=what.bundle,
            seed=what.seed,
            population=len(what.sites),
            job=what.job,
            data=what.data,
            deadline_s=step.deadline_s,
            progress_s=what.progress_s,
        )
        return {name}

    def _came(self, run: Run, event: Event) -> set[str]:
        """A site's answer to its newest attempt, or its loss. One that is there, and was given up, is told so."""
        data, lost = event.data, event.kind == "task.lost"
        step = run.steps[data["seq"]]
        asked = step.asked[data["slot"]]
        if asked.state != "out" or data["attempt"] != asked.attempt:
            return self._passed_by(run, event, step)
        asked.state, asked.blob = ("lost" if lost else "answered"), data.get("blob")
        name = run.what.sites[asked.slot]
        self.site(name).items.pop(asked.item, None)
        told = {name} if data.get("stalled") else set()
        if told:
            ended = Ended(run=run.id, reason=data["reason"], seq=step.seq, attempt=asked.attempt)
            self.site(name).items[event.id] = ended
        if asked.blob is not None:
            run.newest[asked.slot] = (step.seq, asked.attempt, asked.blob)
        step.came.append(
            Came(
                seq=step.seq,
                slot=asked.slot,
                attempt=asked.attempt,
                at=event.at,
                blob=asked.blob,
                blob_bytes=data.get("blob_bytes", 0),
                failure=Failure(data["code"], data["message"], data.get("path"), data.get("trace", "")) if "code" in data else None,
                lost=lost,
            )
        )
        return told

    def _passed_by(self, run: Run, event: Event, step: Step) -> set[str]:
        """An answer that was being committed while the step went on without it: the site, told that it counts, is told better."""
        data = event.data
        if "blob" not in data:
            return set()
        told = NotCounted(
            run=run.id, seq=step.seq, attempt=data["attempt"], slot=data["slot"], reason="the round had gone on without it"
        )
        self.site(data["site"]).items[event.id] = told
        return {data["site"]}

    def _close(self, run: Run, event: Event) -> set[str]:
        """The step's end: what is out is cancelled, what came and was not admitted does not count."""
        step, closed = run.steps[event.data["seq"]], msgspec.convert(event.data, Close)
        step.closed, run.restarts = closed, 0
        admitted = {each.slot for each in closed.admitted}
        run.contributed |= {run.what.sites[slot] for slot in admitted}
        why = {each.slot: each.failure.message for each in closed.refused if each.failure is not None}
        unwanted = closed.abandoned or "the round had ended"
        reasons = {slot: why.get(slot, unwanted) for slot in step.asked if slot not in admitted}
        return self._cancel(run, event.id, step) | self._not_counted(run, event.id, step, reasons)

    def _not_counted(self, run: Run, number: int, step: Step, reasons: Mapping[int, str]) -> set[str]:
        """Tell the sites of these slots, if their results were acknowledged, that they did not count."""
        told: set[str] = set()
        for slot, reason in reasons.items():
            asked = step.asked[slot]
            if asked.blob is None or asked.dropped:
                continue
            asked.dropped, name = True, run.what.sites[slot]
            self.site(name).items[number] = NotCounted(
                run=run.id, seq=step.seq, attempt=asked.attempt, slot=slot, reason=reason[:500]
            )
            told.add(name)
        return told

    def _cancel(self, run: Run, number: int, step: Step) -> set[str]:
        """What is still out is not wanted any more."""
        told: set[str] = set()
        for asked in step.asked.values():
            if asked.state == "out":
                asked.state, name = "cancelled", run.what.sites[asked.slot]
                items = self.site(name).items
                items.pop(asked.item, None)
                items[number] = Ended(run=run.id, reason="not wanted any more", seq=step.seq)
                told.add(name)
        return told

    def _end(self, run: Run, event: Event) -> set[str]:
        data = event.data
        run.state, run.reason, run.ended, run.models = data["state"], data["reason"], event.at, data.get("models", {})
        told = set()
        for name in run.what.sites:
            items = self.site(name).items
            mine = [number for number, item in items.items() if item.run == run.id]
            for number in mine:
                del items[number]
            if mine or run.answers.get(name) == "":
                items[event.id] = Ended(
                    run=run.id, reason=run.reason or run.state, models=run.models if name in run.contributed else {}
                )
                told.add(name)
        run.steps = {}
        return told

    def _drop(self, run: Run, site: str, kind: type[Item]) -> None:
        items = self.site(site).items
        for number in [number for number, item in items.items() if isinstance(item, kind) and item.run == run.id]:
            del items[number]

    def may_read(self, site: str, digest: str) -> bool:
        """Whether the blob is for the site: it was given it, or takes part in the run whose job or model it is."""
        for item in self.site(site).items.values():
            match item:
                case Assignment() if digest in (item.body, item.bundle):
                    return True
                case Offer() if digest == item.bundle:
                    return True
        runs = (run for run in self.runs.values() if not run.deleted and site in run.what.sites)
        return any(digest == run.what.bundle or (site in run.contributed and digest in run.models.values()) for run in runs)

    def spent_blobs(self, run: Run) -> set[str]:
        """What the steps of a run held that lie behind two checkpoints, and nothing else needs."""
        return {digest for step in run.steps.values() if step.seq <= run.behind for digest in step.blobs} - set(self.wanted_blobs())

    def wanted_blobs(self) -> Iterator[str]:
        """The digests that are still needed: bundles, models, and what steps since the last but one checkpoint hold."""
        for run in self.runs.values():
            if run.deleted:
                continue
            yield run.what.bundle
            yield from run.models.values()
            for step in run.steps.values():
                if step.seq > run.behind:
                    yield from step.blobs


KEPT: Final = 64  # steps behind the checkpoint of which answers are remembered, for results that are sent again
