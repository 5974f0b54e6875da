"""What an enclosed process can do: each probe is Python text that a real process of its own runs behind the walls."""

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

START = """
import os, resource, socket, subprocess, sys
from pathlib import Path
from hansa.runtime.sandbox import SandboxError, Walls, enclose
mode, folder, secret, shown, memory, size = sys.argv[1:]
try:
    enclose(Walls(mode=mode, folder=Path(folder), hidden=(Path(secret), Path(shown).parent), shown=(Path(shown),),
                  memory_bytes=int(memory), file_bytes=int(size)))
except SandboxError as error:
    print("no walls:", error)
    sys.exit(77)
folder, secret, shown = Path(folder), Path(secret), Path(shown)
def attempt(what):
    try:
        what()
        print("done")
    except (OSError, MemoryError) as error:
        print(type(error).__name__, getattr(error, "strerror", ""))
"""


def probe(tmp_path: Path, mode: str, text: str, *, memory: int = 0, size: int = 0) -> list[str]:
    """The lines that the probe prints."""
    folder, secret, shown = tmp_path / "work", tmp_path / "kit" / "key.pem", tmp_path / "kit" / "state" / "run"
    folder.mkdir(exist_ok=True)
    shown.mkdir(parents=True, exist_ok=True)
    secret.write_text("secret")
    (shown / "body").write_text("body")
    (shown.parent / "outbox").write_text("others")
    (tmp_path / "kit" / "data.csv").write_text("rows")
    arguments = [mode, str(folder), str(secret), str(shown), str(memory), str(size)]
    command = [sys.executable, "-c", dedent(START) + dedent(text), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    if done.returncode == 77:
        pytest.skip(f"this kernel forbids it: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_strict_worker_writes_in_its_folder_and_nowhere_else(tmp_path: Path) -> None:
    text = """
    attempt(lambda: (folder / "x").write_text("x"))
    attempt(lambda: (folder / "below").mkdir())
    attempt(lambda: (folder.parent / "x").write_text("x"))
    attempt(lambda: Path("/tmp/hansa-sandbox-probe").write_text("x"))
    attempt(lambda: (shown / "body").write_text("x"))
    attempt(lambda: (folder.parent / "kit" / "data.csv").unlink())
    attempt(lambda: Path("/dev/null").write_text("x"))
    """
    denied = "PermissionError Permission denied"
    assert probe(tmp_path, "strict", text) == ["done", "done", denied, denied, denied, denied, "done"]


@pytest.mark.parametrize(("end", "code"), [("os._exit(255)", 255), ("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)])
def test_a_strict_worker_ends_as_its_code_does(tmp_path: Path, end: str, code: int) -> None:
    command = [sys.executable, "-c", dedent(START) + end, "strict", str(tmp_path), *[str(tmp_path)] * 2, "0", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(f"this kernel forbids it: {done.stdout.strip()}")
    assert (done.returncode, done.stderr) == (code, "")


def test_a_strict_worker_ends_what_it_has_started_and_nothing_else(tmp_path: Path) -> None:
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 6:
        pytest.skip("this kernel's Landlock does not hold signals back: Linux 6.12 does")
    text = """
    own = subprocess.Popen(["sleep", "60"])
    attempt(lambda: os.kill(own.pid, 9))
    own.wait()
    attempt(lambda: os.kill(os.getppid(), 0))
    """
    assert probe(tmp_path, "strict", text) == ["done", "PermissionError Operation not permitted"]


def test_a_strict_worker_reads_data_and_its_run_and_no_secret(tmp_path: Path) -> None:
    text = """
    attempt(lambda: (folder.parent / "kit" / "data.csv").read_text())
    attempt(lambda: (shown / "body").read_text())
    attempt(secret.read_text)
    attempt((shown.parent / "outbox").read_text)
    os.symlink(secret, folder / "link")
    attempt((folder / "link").read_text)
    attempt(lambda: os.link(secret, folder / "hard"))
    print(subprocess.run(["/bin/cat", str(secret)], capture_output=True).returncode)
    """
    lines = probe(tmp_path, "strict", text)
    assert lines[:2] == ["done", "done"]
    assert all(line.startswith(("PermissionError", "OSError")) for line in lines[2:6]), lines
    assert lines[6] == "1"


def test_a_strict_worker_has_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        text = f"""
        attempt(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2))
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port})))
        attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
        """
        lines = probe(tmp_path, "strict", text)
    assert "done" not in lines
    assert len(lines) == 3


def test_a_strict_worker_has_no_capabilities_and_gains_none(tmp_path: Path) -> None:
    text = """
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(found["CapEff"], 16), int(found["CapPrm"], 16), int(found["NoNewPrivs"]))
    """
    assert probe(tmp_path, "strict", text) == ["0 0 1"]


def test_what_a_strict_worker_starts_is_enclosed_as_well(tmp_path: Path) -> None:
    text = """
    code = "open('/tmp/hansa-sandbox-probe', 'w')"
    print(subprocess.run([sys.executable, "-c", code], capture_output=True).returncode)
    """
    assert probe(tmp_path, "strict", text) == ["1"]


def test_an_ordinary_users_strict_worker_cannot_start_processes_without_end() -> None:
    """The kernel limits everybody but root, who for this test becomes nobody."""
    code = """
    import ctypes, os, signal, sys
    from pathlib import Path
    from hansa.runtime.sandbox import PROCESSES, SandboxError, Walls, enclose
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: one's own /proc entries are one's own again
    try:
        enclose(Walls(mode="strict", folder=Path("/tmp")))
    except SandboxError as error:
        print("no walls:", error)
        sys.exit(77)
    children = []
    try:
        while len(children) < 2 * PROCESSES:
            if (pid := os.fork()) == 0:
                signal.pause()
            children.append(pid)
    except BlockingIOError:
        print("limited", len(children) < PROCESSES)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(f"this kernel forbids it: {done.stdout.strip()}")
    assert (done.returncode, done.stdout.strip()) == (0, "limited True"), done.stderr


@pytest.mark.parametrize("mode", ["basic", "strict"])
def test_memory_and_files_are_limited(tmp_path: Path, mode: str) -> None:
    text = """
    attempt(lambda: bytearray(1 << 30))
    attempt(lambda: (folder / "x").write_bytes(bytes(2_000_000)))
    attempt(lambda: (folder / "y").write_bytes(bytes(500_000)))
    attempt(lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(2_000)])
    print(oct(os.stat(folder / "y").st_mode & 0o777))
    """
    lines = probe(tmp_path, mode, text, memory=700 << 20, size=1_000_000)
    assert lines == ["MemoryError ", "OSError File too large", "done", "OSError Too many open files", "0o600"]


def test_an_open_worker_is_not_limited(tmp_path: Path) -> None:
    text = """
    attempt(lambda: (folder.parent / "x").write_text("x"))
    attempt(lambda: (folder / "x").write_bytes(bytes(2_000_000)))
    """
    assert probe(tmp_path, "off", text, size=1_000_000) == ["done", "done"]


def test_a_machine_without_namespaces_is_told_and_nothing_runs(tmp_path: Path) -> None:
    """A process with a second thread may not make a user namespace: the kernel's refusal, whatever its cause, is an error."""
    code = """
    import sys, threading
    from pathlib import Path
    from hansa.runtime.sandbox import SandboxError, Walls, enclose
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        enclose(Walls(mode="strict", folder=Path(sys.argv[1])))
        print("enclosed")
    except SandboxError as error:
        print(error.exit_code, error.code, error)
    over.set()
    thread.join()
    """
    done = subprocess.run([sys.executable, "-c", dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("3 sandbox this machine does not permit a network, mounts and processes of its own"), done
    assert 'sandbox = "basic"' in done.stdout


def test_what_a_strict_worker_leaves_behind_in_sessions_of_its_own_ends_with_it(tmp_path: Path) -> None:
    """Two forks and a session of its own escape a process group, and not a PID namespace."""
    mark = f"hansa-left-{tmp_path.name}"
    text = f"""
    code = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); open('there', 'w'); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code, "{mark}"])
    while not Path("there").exists():
        pass
    print(os.getpid() < 10, "{mark}" in str([each.read_bytes() for each in Path("/proc").glob("[0-9]*/cmdline")]))
    """
    assert probe(tmp_path, "strict", text) == ["True True"]
    named = [each for each in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _told(each)]
    assert named == []


def test_a_strict_worker_ends_as_its_work_does(tmp_path: Path) -> None:
    for text, code in (("sys.exit(7)", 7), ("os.kill(os.getpid(), 11)", -11), ("os.kill(os.getpid(), 9)", -9), ("pass", 0)):
        command = [
            sys.executable,
            "-c",
            dedent(START) + text,
            "strict",
            str(tmp_path),
            *[str(tmp_path / name) for name in "sk"],
            "0",
            "0",
        ]
        (tmp_path / "k").mkdir(exist_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        if done.returncode == 77:
            pytest.skip(f"this kernel forbids it: {done.stdout.strip()}")
        assert done.returncode == code, (text, done.stderr)


def test_a_strict_worker_reaches_no_daemon_through_its_socket_and_its_own_children_through_theirs(tmp_path: Path) -> None:
    """docker.sock and its like: Landlock leaves connecting alone, and a network of one's own does not hide paths."""
    places = [tmp_path / "daemon.sock", Path("/run") / f"hansa-{tmp_path.parent.name}-{tmp_path.name}.sock"]
    listeners = list[socket.socket]()
    try:
        for place in places if os.access("/run", os.W_OK) else places[:1]:
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(str(place))
            listeners[-1].listen()
        text = f"""
        def reach(place):
            with socket.socket(socket.AF_UNIX) as own:
                own.connect(place)
        attempt(lambda: reach("{places[0]}"))
        attempt(lambda: reach("{places[1]}"))
        mine = socket.socket(socket.AF_UNIX)
        Path("own.sock").unlink(missing_ok=True)
        mine.bind("own.sock")
        mine.listen()
        attempt(lambda: reach("own.sock"))
        """
        refused, missing, own = probe(tmp_path, "strict", text)
        assert (refused.split()[0], missing.split()[0], own) == ("ConnectionRefusedError", "FileNotFoundError", "done")
        assert probe(tmp_path, "basic", text)[0] == "done"  # what the walls are measured against
    finally:
        for listener, place in zip(listeners, places, strict=False):
            listener.close()
            place.unlink(missing_ok=True)


def _told(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""
