"""What encloses a process before any of a job's code runs: limits; and, if strict, no network and nothing to write but its folders.

Sites' workers and the server's runs have it. The process puts it on by itself, irrevocably, with what the kernel gives an ordinary
user: Landlock (Linux 5.13) and namespaces. What was asked for and cannot be had is an error: no job ever runs with less than that.

Strict, a job's processes are in a PID namespace of their own, below two of ours: one stands outside for all of them, and one is
their init. When either goes, however it goes, the kernel ends whatever the job has started, in sessions of its own too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from hansa.errors import RefusedError

Mode = Literal["strict", "basic", "off"]

OPEN_FILES: Final = 1_024
PROCESSES: Final = 256  # of a strict worker: where namespaces count them apart from the user's others
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 2, 38
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
_MS_QUIET, _MS_BIND, _MS_PRIVATE = 2 | 4 | 8, 4096, 16384 | 1 << 18  # no set-user-id, devices, programs; with all below
_RUN: Final = Path("/run")  # where daemons have their sockets
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # one number on all architectures
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_V3: Final = 0x20080522
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_IOCTL_DEV: Final = 1 << 15
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}  # by version; from 5 on also ioctl
_SIGNALLED: Final = 128  # and the number of the signal: the exit code of an init whose process was ended by one
_SCOPES, _SCOPED_FROM = 1 | 2, 6  # abstract sockets, signals
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")
_GPUS: Final = ("nvidia[!0-9]*", "dri", "kfd")  # what all GPUs share


class SandboxError(RefusedError):
    """The sandbox that the site asks for cannot be had on this machine."""

    code = "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """How a process is enclosed. It writes in `folder` and `folders` alone, and of `hidden` sees only `shown`.

    In `openable` it can open a file whose name it knows, and cannot list any. 0 bytes: no limit of ours; `memory_bytes` are of
    addresses, `data_bytes` of memory of its own, in which files that are mapped do not count.
    """

    mode: Mode
    folder: Path
    folders: tuple[Path, ...] = ()
    openable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()
    memory_bytes: int = 0
    data_bytes: int = 0
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

    Strict, what returns is a new process, with this one's files: this one waits for it, and ends as it does.

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
        resource.RLIMIT_DATA: walls.data_bytes,
        resource.RLIMIT_FSIZE: walls.file_bytes,
    }
    for what, limit in limits.items():
        if limit or what == resource.RLIMIT_CORE:
            _limit(what, limit)
    _be_first_out_of_memory()
    if walls.mode == "strict":
        end = ctypes.c_int(0)
        _libc().prctl(_PR_GET_PDEATHSIG, ctypes.byref(end))
        sockets = _sockets()
        _leave()
        _cover(sockets, walls)
        _libc().prctl(_PR_SET_PDEATHSIG, end.value)  # a process that changes its rights has to ask again
        _be_alone()
        _limit(resource.RLIMIT_NPROC, walls.processes)
        _wall_in(walls)
        _drop_capabilities()
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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


def _be_first_out_of_memory() -> None:
    """When the machine has no more memory, the kernel ends a job before anything else."""
    with contextlib.suppress(OSError):  # some machines do not let it be said: then it chooses by size
        Path("/proc/self/oom_score_adj").write_bytes(b"1000")


def _sockets() -> list[Path]:
    """The sockets with a path that are open on this network: whoever may write there can connect, which Landlock leaves alone."""
    table = os.fsdecode(Path("/proc/net/unix").read_bytes())
    names = {line.split(None, 7)[-1] for line in table.splitlines()[1:] if line.count(" /")}
    return [Path(name) for name in sorted(names) if name.startswith("/")]


def _leave() -> None:
    """A network of one's own, with nothing in it; mounts and numbers of processes of one's own."""
    user, group = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWPID) != 0:
        number = ctypes.get_errno()
        what = "a thread is running already" if number == errno.EINVAL else os.strerror(number)
        hint = 'permit user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone), or sandbox = "basic"'
        raise SandboxError("this machine does not permit a network, mounts and processes of its own", got=what, hint=hint)
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_bytes(text.encode())
    except OSError as error:
        raise SandboxError("a user namespace cannot be set up", got=str(error), hint='sandbox = "basic" does without') from error


def _cover(sockets: Iterable[Path], walls: Walls) -> None:
    """Put something else in the place of the sockets that daemons of this machine listen at; an empty folder in that of /run."""
    _mount(None, Path("/"), None, _MS_PRIVATE)
    needed = (walls.folder, *walls.folders, *walls.openable, *walls.shown)
    if _RUN.is_dir() and not any(each.resolve().is_relative_to(_RUN) for each in needed):  # a daemon may open new ones there
        _mount("tmpfs", _RUN, "tmpfs", _MS_QUIET)
    for each in sockets:
        with contextlib.suppress(OSError):  # gone, or where this user cannot look anyway
            if stat.S_ISSOCK(each.stat().st_mode):
                _mount("/dev/null", each, None, _MS_BIND)


def _mount(source: str | None, target: Path, kind: str | None, flags: int) -> None:
    told = [None if each is None else os.fsencode(each) for each in (source, target, kind)]
    if _libc().mount(*told, ctypes.c_ulong(flags), None) != 0:
        why = os.strerror(ctypes.get_errno())
        raise SandboxError("nothing can be mounted over it for the worker alone", path=str(target), got=why)


def _be_alone() -> None:
    """Go on as a process in the new PID namespace: this one stands for it outside, and another one is its init."""
    if (init := os.fork()) != 0:
        _, status = os.waitpid(init, 0)
        code = os.waitstatus_to_exitcode(status)
        if (number := -code if code < 0 else code - _SIGNALLED) in signal.valid_signals():
            signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
            os.kill(os.getpid(), number)
        os._exit(code)
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _libc().mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(_MS_QUIET), None)  # a container may forbid it: numbers alone differ
    if (work := os.fork()) != 0:
        while True:  # what the job leaves behind is this one's to wait for
            ended, status = os.wait()
            if ended == work:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else _SIGNALLED - code)


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
