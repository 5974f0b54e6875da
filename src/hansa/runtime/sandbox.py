"""What encloses a process before any of a job's code runs: limits; and, if strict, no network and nothing to write but its folders.

Sites' workers and the server's runs have it. The process puts it on by itself, irrevocably, with what the kernel gives an ordinary
user: Landlock (Linux 5.13) and namespaces. What was asked for and cannot be had is an error: no job ever runs with less than that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hansa.errors import RefusedError

Mode = Literal["strict", "basic", "off"]

OPEN_FILES: Final = 1_024
PROCESSES: Final = 256  # of a strict worker: where namespaces count them apart from the user's others
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # one number on all architectures
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_V3: Final = 0x20080522
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_IOCTL_DEV: Final = 1 << 15
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by version; from 5 on also ioctl
_SCOPES, _SCOPED_FROM = 1 | 2, 6  # abstract sockets, signals
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")
_GPUS: Final = ("nvidia[!0-9]*", "dri", "kfd")  # what all GPUs share


class SandboxError(RefusedError):
    """The sandbox that the site asks for cannot be had on this machine."""

    code = "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """How a process is enclosed. It writes in `folder` and `folders` alone, and of `hidden` sees only `shown`.

    In `openable` it can open a file whose name it knows, and cannot list any. 0 bytes: no limit of ours.
    """

    mode: Mode
    folder: Path
    folders: tuple[Path, ...] = ()
    openable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()
    memory_bytes: int = 0
    file_bytes: int = 0
    gpus: tuple[str, ...] = ()
    processes: int = field(default=PROCESSES)


def end_with(agent: int, *close: int) -> None:
    """Leave a process behind that ends this process group when the agent has gone, whatever the job's code holds up meanwhile.

    `agent` is the reading end of a pipe that the agent keeps open; `close` are descriptors that only this process is to have.
    """
    if (between := os.fork()) != 0:
        os.waitpid(between, 0)
        os.close(agent)
        return
    if os.fork() != 0:  # so that it is nobody's child: code that waits for its children does not meet it
        os._exit(0)
    for descriptor in close:
        os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(agent, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def enclose(walls: Walls) -> None:
    """Enclose this process and its children for good. It must have one thread as yet.

    Raises:
        SandboxError: the kernel does not permit what the mode needs; says what, and what to do.
    """
    os.umask(0o077)
    if walls.mode == "off":
        return
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_AS: walls.memory_bytes,
        resource.RLIMIT_FSIZE: walls.file_bytes,
    }
    for what, limit in limits.items():
        if limit or what == resource.RLIMIT_CORE:
            _limit(what, limit)
    if walls.mode == "strict":
        _leave_network()
        _limit(resource.RLIMIT_NPROC, walls.processes)
        _wall_in(walls)
        _drop_capabilities()


def fault(mode: Mode, folder: Path) -> str:
    """Why this machine cannot enclose a process so, found out in one that ends at once; "" if it can. Call it before any thread."""
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            enclose(Walls(mode=mode, folder=folder))
        except (SandboxError, OSError) as error:
            os.write(writes, str(error).encode()[:2_000])
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as said:
        why = said.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return why


def _limit(what: int, limit: int) -> None:
    _, hard = resource.getrlimit(what)
    most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (most, most))


def _leave_network() -> None:
    """A network of one's own, with nothing in it."""
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        what = "a thread is running already" if number == errno.EINVAL else os.strerror(number)
        hint = 'permit user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone), or sandbox = "basic"'
        raise SandboxError("this machine does not permit a network namespace", got=what, hint=hint)
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_bytes(text.encode())
    except OSError as error:
        raise SandboxError("a user namespace cannot be set up", got=str(error), hint='sandbox = "basic" does without') from error


def _wall_in(walls: Walls) -> None:
    """Landlock: read all but what is hidden, write in one folder."""
    libc = _libc()
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        hint = 'a kernel from 5.13 on with Landlock enabled (lsm=landlock,...), or sandbox = "basic"'
        raise SandboxError("this machine has no Landlock", got=os.strerror(ctypes.get_errno()), hint=hint)
    rights = _RIGHTS.get(version, (1 << 16) - 1)
    asked = (ctypes.c_uint64 * 3)(rights, 0, _SCOPES)  # the last since version 6, Linux 6.12: signals stay among the enclosed
    ruleset = libc.syscall(_LANDLOCK_CREATE, asked, 24 if version >= _SCOPED_FROM else 8, 0)
    if ruleset < 0:
        raise SandboxError("Landlock makes no rules", got=os.strerror(ctypes.get_errno()))
    try:
        for path in (*_visible(Path("/"), [each.resolve() for each in walls.hidden]), *walls.shown):
            _allow(ruleset, path, (_EXECUTE | _READ_FILE | _READ_DIR) & rights)
        for path in walls.openable:
            _allow(ruleset, path.resolve(), _READ_FILE & rights)
        for path in (walls.folder, *walls.folders):
            _allow(ruleset, path.resolve(), rights & ~_IOCTL_DEV)
        for device in _devices(walls.gpus):
            _allow(ruleset, device, (_READ_FILE | _WRITE_FILE | _IOCTL_DEV) & rights)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
            raise SandboxError("Landlock does not enclose the worker", got=os.strerror(ctypes.get_errno()))
    finally:
        os.close(ruleset)


def _visible(place: Path, hidden: list[Path]) -> Iterator[Path]:
    """The largest folders below `place` that hold nothing hidden."""
    if not any(each.is_relative_to(place) for each in hidden):
        yield place
        return
    if place in hidden:
        return
    try:
        with os.scandir(place) as entries:
            inside = [Path(entry.path) for entry in entries if not entry.is_symlink()]
    except PermissionError:  # nor can the worker look into it
        return
    for each in inside:
        yield from _visible(each, hidden)


def _devices(gpus: Sequence[str]) -> Iterable[Path]:
    """The devices that are everybody's, and the GPUs of these names: those alone, where the names are numbers."""
    found = [Path(name) for name in _DEVICES if Path(name).exists()]
    own = [f"nvidia{name}" for name in gpus] if all(name.isdigit() for name in gpus) else ["nvidia*"]
    return found + ([path for pattern in (*own, *_GPUS) for path in Path("/dev").glob(pattern)] if gpus else [])


def _allow(ruleset: int, path: Path, rights: int) -> None:
    class Rule(ctypes.Structure):
        _pack_ = 1
        _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]

    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or not for us: then it is not allowed
        return
    try:
        if not path.is_dir():
            rights &= _EXECUTE | _READ_FILE | _WRITE_FILE | _IOCTL_DEV | 1 << 14  # the rights on files; 14 is truncate
        if _libc().syscall(_LANDLOCK_ADD, ruleset, 1, ctypes.byref(Rule(rights, handle)), 0) != 0:
            raise SandboxError("Landlock does not take a rule", path=str(path), got=os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)


def _drop_capabilities() -> None:
    """Give up what a new user namespace has given."""
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        raise SandboxError("strict is not known for this kind of machine", got=os.uname().machine, hint='sandbox = "basic"')
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_V3, 0)
    if _libc().syscall(number, header, (ctypes.c_uint32 * 6)()) != 0:
        raise SandboxError("capabilities cannot be given up", got=os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
