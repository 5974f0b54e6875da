"""The machine's cores, GPUs and memory, leased to one run each, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from hansa.runtime.config import Resources
from hansa.runtime.manifest import Manifest

_GPUS: Final = "CUDA_VISIBLE_DEVICES"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lease:
    """What one run has: numbers of cores (none: bound to none), names of GPUs as CUDA has them, bytes (0: no limit of its own)."""

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    run: str
    wanted: Manifest
    granted: asyncio.Future[Lease]


class Leases:
    """What a site gives to runs. `environment` is the agent's: where it names GPUs, those are the ones that are given."""

    def __init__(self, resources: Resources, environment: Mapping[str, str]) -> None:
        self._bound = resources.cores > 0
        self._cores = sorted(os.sched_getaffinity(0))[: resources.cores] if self._bound else list(range(os.cpu_count() or 1))
        named = [name.strip() for name in environment.get(_GPUS, "").split(",") if name.strip()]
        self._gpus = (named or [str(number) for number in range(resources.gpus)])[: resources.gpus]
        self._memory = resources.memory_mb << 20
        self._held: dict[str, tuple[Lease, int]] = {}  # by run: what it has, and how many cores that counts as
        self._queue: deque[_Waiting] = deque()

    async def take(self, run: str, wanted: Manifest) -> Lease:
        """What the run is given, once it is free; the same again until it is given back."""
        if run not in self._held:
            waiting = _Waiting(run, wanted, asyncio.get_running_loop().create_future())
            self._queue.append(waiting)
            self._grant()
            try:
                await waiting.granted
            except asyncio.CancelledError:
                self._queue = deque(each for each in self._queue if each is not waiting)
                self.give_back(run)
                raise
        return self._held[run][0]

    def give_back(self, run: str) -> None:
        """The run needs nothing any more."""
        self._held.pop(run, None)
        self._grant()

    def _grant(self) -> None:
        """Serve the queue, first come first served: a large request is not passed over for ever."""
        while self._queue and (lease := self._free(self._queue[0].wanted)) is not None:
            first = self._queue.popleft()
            if first.granted.done():  # its run was given up in this moment
                continue
            self._held[first.run] = (lease, first.wanted.cores)
            first.granted.set_result(lease)

    def _free(self, wanted: Manifest) -> Lease | None:
        """What could be given now."""
        leases = [lease for lease, _ in self._held.values()]
        cores = _without(self._cores, [core for lease in leases for core in lease.cores])
        gpus = _without(self._gpus, [gpu for lease in leases for gpu in lease.gpus])
        busy, memory = sum(count for _, count in self._held.values()), wanted.memory_mb << 20
        used = sum(lease.memory_bytes for lease in leases)
        fits = wanted.cores <= len(self._cores) - busy and wanted.gpus <= len(gpus)
        if not fits or (memory and self._memory and used + memory > self._memory):
            return None
        return Lease(tuple(cores[: wanted.cores]) if self._bound else (), tuple(gpus[: wanted.gpus]), memory)


def _without(everything: Sequence[T], taken: Sequence[T]) -> list[T]:
    return [each for each in everything if each not in taken]


def beyond(resources: Resources, wanted: Manifest) -> str:
    """Why a site can never give what a run wants; "" if it can."""
    cores = resources.cores or os.cpu_count() or 1
    for what, asked, has in (
        ("cores", wanted.cores, cores),
        ("GPUs", wanted.gpus, resources.gpus),
        ("MB of memory", wanted.memory_mb, resources.memory_mb or wanted.memory_mb),
    ):
        if asked > has:
            return f"this site gives at most {has} {what} to a run; this one asks for {asked}"
    return ""
