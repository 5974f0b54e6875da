"""Kill a process that writes blobs at its k-th system call, for every k; after each, look at what it left and go on from there.

Run as a script with a folder. Prints how many points there were; fails at the first blob that is not what its name says.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from hansa.runtime.store.blobs import FileBlobs

DATA = bytes(range(256)) * 1_200  # 300 kB, in three chunks
CALLS = ("open", "pwrite", "fsync", "replace", "unlink", "utime", "ftruncate")


def work(root: Path) -> None:
    """Put a blob, upload another in pieces from wherever it stood, sweep."""
    with contextlib.closing(FileBlobs(root)) as blobs:
        blobs.put([DATA[:1000], DATA[:500]])
        upload = blobs.upload(blake3(DATA).hexdigest(), len(DATA), owner="north")
        while upload.offset < len(DATA):
            upload.append(upload.offset, DATA[upload.offset : upload.offset + 100_000])
        upload.finish()
        blobs.sweep([upload.digest], older_than_s=-60, now=4e9)


def killed_at(point: int) -> None:
    """Have the `point`-th call end this process, half of it done where it is a write."""
    count = 0

    def counted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                if name == "pwrite":
                    call(args[0], args[1][: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return instead

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), name))


def look(root: Path) -> None:
    """Every blob that can be seen is whole."""
    for path in root.iterdir():
        if path.is_file() and blake3(path.read_bytes()).hexdigest() != path.name:
            sys.exit(f"a half blob is seen: {path}")


def main(folder: Path) -> int:
    """How many points there are."""
    for point in range(1, 1_000):
        root = folder / str(point)
        child = os.fork()
        if child == 0:
            killed_at(point)
            work(root)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if root.is_dir():
            look(root)
        work(root)  # started again
        look(root)
        with contextlib.closing(FileBlobs(root)) as blobs:
            if blobs.read(blake3(DATA).hexdigest(), 0, len(DATA)) != DATA:
                sys.exit(f"the blob is lost after point {point}")
        if os.waitstatus_to_exitcode(status) == 0:
            return point - 1
    sys.exit("the work never ends")


if __name__ == "__main__":
    sys.stdout.write(str(main(Path(sys.argv[1]))))
