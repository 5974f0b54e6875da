"""Light sites for W6: many sites' real sessions in one process, `python -m benchmarks.crowd_sites KITS JOB FIRST COUNT`.

Each has its own key, certificate, token and connections, polls, beats, fetches what it is asked and sends its result, through the
agent's own transport. It has no outbox and no worker: the job's executor is called in place.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from blake3 import blake3

from benchmarks import crowd_job
from hansa import codec
from hansa.core.job import Job
from hansa.core.task import FLContext, Signal
from hansa.data.federated import Rows
from hansa.errors import InputError
from hansa.runtime.client.renewing import credentials_of
from hansa.runtime.config import load_kit
from hansa.runtime.protocol.messages import BEAT_S, HOLD_S, Ack, Assignment, Beat, Hello, Result, Welcome, Work
from hansa.runtime.transport.blobs import download, upload
from hansa.runtime.transport.http import Connection

AT_ONCE = 20  # sites that join: they share a processor here, and would not in life
ROWS = Rows(np.zeros((1, 1), np.float32), np.zeros(1))


class Bytes:
    """A blob that comes into memory."""

    def __init__(self, digest: str) -> None:
        self.digest, self.content = digest, bytearray()

    @property
    def offset(self) -> int:
        """How many bytes have come."""
        return len(self.content)

    def append(self, offset: int, chunk: Any) -> int:  # a buffer
        """Take the next bytes in."""
        self.content += chunk
        return offset + len(chunk)

    def finish(self) -> None:
        """Verify them."""
        if blake3(self.content).hexdigest() != self.digest:
            raise InputError("other bytes came", path=self.digest)


@dataclass
class LightSite:
    """One site. `scratch` is where its replies stand while they are sent."""

    name: str
    connection: Connection
    job: Job
    scratch: Path
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, ready: asyncio.Event) -> None:
        """Work until cancelled; `ready` is set when the site is at rest."""
        await self.connection.post("/v1/hello", Hello(versions=[1], software="crowd", data={"crowd": ""}), Welcome)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._beat(ready))

    async def _beat(self, ready: asyncio.Event) -> None:
        """Ready with the first one: a site at rest has a connection that is held, and one for the rest."""
        while True:
            await self.connection.tell("/v1/beats", Beat())
            ready.set()
            await asyncio.sleep(BEAT_S * (0.5 + random.random() / 2))  # noqa: S311  spreads the load, no secret

    async def _poll(self) -> None:
        after = 0
        while True:
            params = {"after": str(after), "hold_s": f"{HOLD_S:g}"}
            work = await self.connection.get("/v1/work", Work, params=params, hold_s=HOLD_S)
            after = work.after
            for offer in work.offers:
                await self._answer(Result(run=offer.run, seq=0, attempt=1, slot=offer.slot))
            for asked in work.assignments:
                await self._answer(await self._done(asked))

    async def _done(self, asked: Assignment) -> Result:
        body = Bytes(asked.body)
        await download(self.connection, asked.body, asked.body_bytes, lambda: body)
        ctx = FLContext(
            job=asked.job,
            run=asked.run,
            site=self.name,
            slot=asked.slot,
            round=asked.round,
            seed=asked.seed,
            population=asked.population,
            data=asked.data,
            load=lambda _: ROWS,
        )
        reply = codec.encode(self.job.serve().execute(asked.task, codec.decode(memoryview(body.content)), ctx, Signal()))
        digest, path = blake3(reply).hexdigest(), self.scratch / self.name
        path.write_bytes(reply)
        await upload(self.connection, digest, path)
        return Result(run=asked.run, seq=asked.seq, attempt=asked.attempt, slot=asked.slot, blob=digest, blob_bytes=len(reply))

    async def _answer(self, result: Result) -> None:
        await self.connection.post("/v1/results", result, Ack)


async def serve(kits: Path, job: Job, first: int, count: int) -> None:
    """Serve the sites until cancelled; says `ready` when the server has let all of them in."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:  # replies are not to cost the disk twice
        async with asyncio.TaskGroup() as group:
            for start in range(first, first + count, AT_ONCE):
                waiting = []
                for number in range(start, min(start + AT_ONCE, first + count)):
                    connection = Connection(credentials_of(load_kit(kits / name_of(number))))
                    waiting.append(asyncio.Event())
                    site = LightSite(name_of(number), connection, job, Path(scratch))
                    group.create_task(site.serve(waiting[-1]))
                for ready in waiting:
                    await ready.wait()
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the benchmark closes it
            os._exit(0)  # open polls are not waited for


def name_of(number: int) -> str:
    """The site of that number."""
    return f"site-{number}"


if __name__ == "__main__":
    place, chosen, begin, size = sys.argv[1:]
    asyncio.run(serve(Path(place), cast(Job, getattr(crowd_job, chosen)), int(begin), int(size)))
