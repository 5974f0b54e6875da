"""Whether a process is at work in a run folder: it holds a lock there, which the system lets go of however the process ends."""

from __future__ import annotations

import os
from pathlib import Path

LOCK = ".lock"  # the file that a run locks; it holds the process id


def is_free(folder: Path) -> bool:
    """Whether a process ran in the folder and none does now; False where that cannot be told."""
    try:
        import fcntl  # not on every system that can read a run folder

        handle = os.open(folder / LOCK, os.O_RDONLY)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system has no locks
        return False
    finally:
        os.close(handle)
    return True
