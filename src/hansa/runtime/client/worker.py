"""The worker of one run at a site: a process that keeps the job and the data loaded and does the tasks that the agent passes on.

Started as `python -m hansa.runtime.client.worker SOCKET PIPE`, two descriptors: what is said, and what breaks when the agent ends.
It encloses itself before any code of the job, and even before the numeric libraries, which start threads.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hansa.runtime.client.channel import Abort, Begin, Broken, Do, Ready, to_line, to_worker
from hansa.runtime.sandbox import SandboxError, Walls, enclose, end_with

if TYPE_CHECKING:
    from hansa.runtime.client.serving import Served


def main(descriptor: int, agent: int) -> int:
    """Do the tasks that come over the socket of that number, until the agent ends; the exit code if none can be done."""
    end_with(agent, descriptor)
    with socket.socket(fileno=descriptor) as link, link.makefile("rb") as lines:
        begin = to_worker(lines.readline())
        if not isinstance(begin, Begin):
            return 1
        if begin.cores:
            os.sched_setaffinity(0, begin.cores)
        try:
            enclose(_walls(begin))
        except SandboxError as error:
            link.sendall(to_line(Broken(code=error.code, message=str(error))))
            return 1
        return _serve(begin, link, lines)


def _serve(begin: Begin, link: socket.socket, lines: BinaryIO) -> int:
    from threadpoolctl import threadpool_limits

    from hansa.runtime.client.serving import load, types_of
    from hansa.runtime.client.telling import Voice, log_to

    voice = Voice(link)
    log_to(voice)
    if not begin.reference:
        with threadpool_limits(begin.threads, user_api="blas"):
            voice.say(Ready(types=types_of(begin)))
        return 0
    served = load(begin, voice)
    if isinstance(served, Broken):
        voice.say(served)
        return 1
    voice.say(Ready())
    tasks: queue.SimpleQueue[Do] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, tasks, served), name="agent", daemon=True).start()  # it ends the process
    with threadpool_limits(begin.threads, user_api="blas"):  # with two threads, bits differ from run to run: a job has to ask
        while True:
            done = served.do(tasks.get())
            sys.stdout.flush()
            sys.stderr.flush()
            voice.say(done)


def _listen(lines: BinaryIO, tasks: queue.SimpleQueue[Do], served: Served) -> None:
    """Pass on what the agent says. When it has gone, so must this process and its children, whatever they are doing."""
    for line in lines:
        match to_worker(line):
            case Do() as task:
                tasks.put(task)
            case Abort(reason=reason):
                served.abort(reason)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _walls(begin: Begin) -> Walls:
    return Walls(
        mode=begin.sandbox,
        folder=Path(begin.folder),
        hidden=tuple(map(Path, begin.hidden)),
        shown=tuple(map(Path, begin.shown)),
        memory_bytes=begin.memory_bytes,
        file_bytes=begin.file_bytes,
        gpus=tuple(begin.gpus),
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
