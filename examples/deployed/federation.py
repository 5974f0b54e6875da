"""A real federation of four hospitals on this machine, step by step, with the commands that people type.

python federation.py           (half a minute; the data comes with Hansa)
python federation.py --small   (without the server that is killed)

A server, four hospitals and two people, each with a start-up kit of their own. The hospitals make their keys themselves, train
together, and get the model of the simulation, bit for bit. Then one hospital says no to the author, the server is killed in the
middle of a run, and a hospital is revoked.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from job import job  # type: ignore[import-not-found]  # both stand beside this file
from patients import NAMES, hospitals  # type: ignore[import-not-found]  # the same

import hansa as hs
from hansa import codec

HERE = Path(__file__).parent
FED = Path("federation")
ADA = str(FED / "kits" / "ada")
SITE_TOML = """\
[data]
heart = "patients.py:load"

[policy]
authors = {authors}
code = "any"
"""


def project_toml() -> str:
    """Who takes part; the port is a free one."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    lines = ['name = "hearts"', "[server]", 'host = "127.0.0.1"', f"port = {port}", 'listen = "127.0.0.1"']
    lines += ["[[organisations]]", 'name = "University"']
    lines += [line for site in NAMES for line in ("[[organisations]]", f'name = "Hospital of {site}"')]
    lines += [line for site in NAMES for line in ("[[sites]]", f'name = "{site}"', f'org = "Hospital of {site}"')]
    for name, role in (("carl", "project_admin"), ("ada", "lead")):
        lines += ["[[people]]", f'name = "{name}"', 'org = "University"', f'role = "{role}"']
    return "\n".join(lines) + "\n"


def hansa(*arguments: str, code: int = 0) -> dict[str, Any]:
    """What the command says with --json; it is printed as a person would type it."""
    print("$ hansa", *arguments)
    command = [sys.executable, "-m", "hansa.cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def start(*arguments: str) -> subprocess.Popen[str]:
    """A server or a site, ready."""
    print("$ hansa", *arguments, "&")
    with Path(FED, f"{Path(arguments[-1]).name}.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "hansa.cli", *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready"), Path(log.name).read_text()
    return process


def open_to(site: str, authors: str) -> None:
    """A hospital's own file says whose jobs run there; it is read anew for each."""
    (FED / "kits" / site / "site.toml").write_text(SITE_TOML.format(authors=authors))


def submit(*more: str, code: int = 0) -> dict[str, Any]:
    return hansa("job", "submit", str(HERE / "job.py") + ":job", "--kit", ADA, "--seed", "7", "--wait", *more, code=code)


def together() -> None:
    """Train, take the model home, and compare it with the simulation's."""
    said = submit("--sites", ",".join(NAMES))
    home = hansa("job", "download", said["run"], "--out", str(FED / "home"), "--kit", ADA)
    simulated = codec.digest(hs.simulate(job, hospitals, seed=7).model)
    print(f"AUC {said['global']['auc']:.3f}\ndeployed   {home['model_sha256']}\nsimulated  {simulated}")
    assert home["model_sha256"] == simulated


def one_says_no() -> None:
    """A hospital that does not trust the author refuses; the others go on without it, if they are enough."""
    open_to(NAMES[3], '["grace"]')
    said = submit(code=3)
    print(f"{said['status']}: {said['refused']}")
    assert said["status"] == "refused"
    said = submit("--min-sites", "3")
    print(f"with three: {said['status']}")
    open_to(NAMES[3], '["ada"]')


def killed(server: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """The server is killed in the middle of a run; started again, the run goes on to the same model."""
    with hs.connect(ADA) as session:
        run = session.submit(str(HERE / "job.py") + ":job", sites=NAMES, seed=7)
        assert any(event.kind == "round" for event in run.events())
        server.send_signal(signal.SIGKILL)
        server.communicate()
        server = start("server", "start", str(FED / "kits" / "server"))
        print(f"{run.id} is {run.wait().state}")
        model = run.result().model
    assert model is not None
    assert codec.digest(model) == codec.digest(hs.simulate(job, hospitals, seed=7).model)
    print("the same model, after kill -9 of the server")
    return server


def one_leaves(site: subprocess.Popen[str]) -> None:
    """A hospital is revoked: its agent is let in no more, and says why."""
    name = NAMES[2]
    hansa("provision", "revoke", name, "--reason", "left the project", "--dir", str(FED))
    code = site.wait(timeout=30)
    print(f"{name} ended with {code}: {(FED / f'{name}.log').read_text().splitlines()[-1]}")
    assert code == 3
    said = submit()
    print(f"with those that remain: {said['status']}")
    checked = hansa("audit", "verify", "--kit", str(FED / "kits" / "carl"))
    print(f"the record is whole: {checked['events']} events")


def main() -> None:
    Path("project.toml").write_text(project_toml())
    hansa("provision", "new", "project.toml", "--out", str(FED))
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        processes["server"] = start("server", "start", str(FED / "kits" / "server"))
        for site in NAMES:
            shutil.copy(HERE / "patients.py", FED / "kits" / site)
            open_to(site, '["ada"]')
            hansa("site", "enroll", str(FED / "kits" / site))
            processes[site] = start("site", "start", str(FED / "kits" / site))
        together()
        one_says_no()
        if "--small" not in sys.argv:
            processes["server"] = killed(processes["server"])
        one_leaves(processes[NAMES[2]])
    finally:
        for process in processes.values():
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate()


if __name__ == "__main__":
    main()
