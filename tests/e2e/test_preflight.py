"""Preflight and enrolment at the command line, against a real server: each fault has its own exit code and its mend."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.networks import ConnectProxy
from tests.e2e.world import free_port, make_project, serving

from hansa.admin.client import connect
from hansa.provision.changes import provision, revoke, rotate
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.policy import Rules
from hansa.runtime.config import load_kit

namespaces = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False).returncode == 0
needs_namespaces = pytest.mark.skipif(not namespaces, reason="this machine permits no user namespace: no disk of the test's own")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make_project(tmp_path_factory.mktemp("preflight") / "fed", ["north", "south"])
    for name in ("north", "south"):
        furnish(folder / "kits" / name)
    with serving(folder):
        yield folder


def furnish(kit: Path) -> None:
    (kit / "site.toml").write_text('[data]\nheart = "data.py:load"\n[policy]\nauthors = "any"\ncode = "any"\n')
    (kit / "data.py").write_text("def load(): ...\n")


def preflight(kit: Path, *, before: str = "", proxy: str = "") -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and each check by its name. `before` is what a shell does first."""
    command = ["sh", "-c", f'{before}\nexec "$0" -m hansa.cli preflight "$1" --json', sys.executable, str(kit)]
    if "mount" in before or "/proc/sys" in before:
        command = ["unshare", "--map-root-user", "--mount", *command]
    environment = {**os.environ, **({"HTTPS_PROXY": proxy} if proxy else {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["exit_code"] == done.returncode
    return done.returncode, {check["name"]: check for check in said["checks"]}


def test_a_sound_site_and_a_person_pass_every_check(project: Path) -> None:
    code, checks = preflight(project / "kits" / "north")
    assert (code, set(checks)) == (
        0,
        {"kit", "certificate", "address", "roster", "clock", "disk", "open files", "site.toml", "sandbox"},
    )
    assert preflight(project / "kits" / "lea")[0] == 0


def test_a_server_that_runs_is_told_from_one_whose_port_is_taken(project: Path, tmp_path: Path) -> None:
    code, checks = preflight(project / "kits" / "server")
    assert (code, checks["address"]["ok"]) == (0, True)
    assert "the server is running, process " in checks["address"]["detail"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ServerSection(host="127.0.0.1", port=taken.getsockname()[1], listen="127.0.0.1")
        folder = make_project(tmp_path / "fed", ["north"], server=server)
        code, checks = preflight(folder / "kits" / "server")
    assert (code, checks["address"]["ok"]) == (12, False)
    assert "cannot listen" in checks["address"]["detail"]


def test_a_kit_that_was_altered_and_one_that_others_can_read_are_named(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", ["north"])
    kit = folder / "kits" / "north"
    (kit / "kit.toml").write_text((kit / "kit.toml").read_text() + "\n")
    code, checks = preflight(kit)
    assert code == 10
    assert "kit.toml" in checks["kit"]["detail"]
    kit = folder / "kits" / "lea"
    (kit / "key.pem").chmod(0o644)
    code, checks = preflight(kit)
    assert code == 10
    assert checks["kit"]["hint"].startswith("chmod 600")


def test_faults_of_the_way_have_codes_of_their_own(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", ["north"])
    furnish(folder / "kits" / "north")
    code, checks = preflight(folder / "kits" / "north")
    assert (code, "nobody listens" in checks["address"]["detail"]) == (12, True)
    port = int(load_kit(folder / "kits" / "north").url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as silent:
        silent.settimeout(0)
        began = time.monotonic()
        code, checks = preflight(folder / "kits" / "north")
        assert (code, time.monotonic() - began < 15) == (12, True)
        assert "no answer in time" in checks["address"]["detail"]


def test_a_server_of_another_project_and_a_revoked_name_are_told_apart(project: Path, tmp_path: Path) -> None:
    port = int(load_kit(project / "kits" / "north").url.rpartition(":")[2])
    other = Project(
        name="other",
        server=ServerSection(host="127.0.0.1", port=port),
        organisations=(Organisation(name="north"),),
        sites=(Site(name="north", org="north"),),
        people=(Person(name="ada", org="north", role="project_admin"),),
        central_keys=True,
    )
    provision(other, tmp_path / "other", now=time.time(), zips=False)
    furnish(tmp_path / "other" / "kits" / "north")
    code, checks = preflight(tmp_path / "other" / "kits" / "north")
    assert (code, checks["TLS"]["ok"]) == (13, False)
    assert "CA" in checks["TLS"]["detail"]
    revoke(project, name="south", reason="left", now=time.time())
    ends = time.monotonic() + 10
    while (found := preflight(project / "kits" / "south"))[0] == 0 and time.monotonic() < ends:
        pass  # a revocation bites within 10 s
    code, checks = found
    assert (code, "south was revoked: left" in checks["roster"]["detail"]) == (11, True)
    with connect(project / "kits" / "ada") as ada:
        south = ada.site("south")
    assert (south.online, south.revoked) == (False, "left")


@pytest.mark.parametrize(
    ("how", "told", "hint"),
    [
        ({"login": "heart:secret"}, "asks for a login", "proxy.login"),
        ({"denied": True}, "rules forbid", "allow CONNECT"),
        ({"names": {}}, "does not reach the server", "resolve"),
        (None, "the proxy does not answer", "HTTPS_PROXY"),
    ],
    ids=["login", "denied", "lost", "down"],
)
def test_each_fault_of_a_proxy_is_told_with_exit_code_14(tmp_path: Path, how: dict[str, Any] | None, told: str, hint: str) -> None:
    folder = make_project(tmp_path / "fed", ["north"], server=ServerSection(host="fl.example.test"))
    furnish(folder / "kits" / "north")
    with ConnectProxy(**{"names": {"fl.example.test:8443": 1}, **(how or {})}).serving() as proxy:
        address = proxy.url if how is not None else f"http://127.0.0.1:{free_port()}"
        code, checks = preflight(folder / "kits" / "north", proxy=address)
    assert (code, checks["proxy"]["ok"]) == (14, False)
    assert told in checks["proxy"]["detail"]
    assert hint in checks["proxy"]["hint"]


def test_clocks_that_differ_are_told_with_exit_code_15_before_the_server_refuses_and_after(tmp_path: Path) -> None:
    for ahead_s, told in ((45.0, "s ahead"), (-90.0, "ahead of the server's")):
        folder = make_project(tmp_path / str(ahead_s), ["north"])
        furnish(folder / "kits" / "north")
        with serving(folder, ahead_s=ahead_s):
            code, checks = preflight(folder / "kits" / "north")
        assert (code, checks["clock"]["ok"]) == (15, False)
        assert told in checks["clock"]["detail"]
        assert "NTP" in checks["clock"]["hint"]


@needs_namespaces
def test_a_small_disk_and_one_that_is_read_only_are_told_with_exit_code_16(project: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    copied = f"mount -t tmpfs -o size=8m small {tmp_path}/small && cp -R {project}/kits/north {tmp_path}/small/"
    code, checks = preflight(tmp_path / "small" / "north", before=copied)
    assert (code, checks["disk"]["detail"].startswith("0.0 GiB free"), checks["disk"]["hint"][:9]) == (16, True, "make room")
    code, checks = preflight(tmp_path / "small" / "north", before=f"{copied} && mount -o remount,ro {tmp_path}/small")
    assert (code, "cannot be written" in checks["disk"]["detail"]) == (16, True)


def test_too_few_open_files_are_told_with_exit_code_17(project: Path) -> None:
    code, checks = preflight(project / "kits" / "north", before="ulimit -n 256")
    assert (code, checks["open files"]["detail"]) == (17, "256 allowed")
    assert "LimitNOFILE=1024" in checks["open files"]["hint"]


@needs_namespaces
def test_a_sandbox_that_the_machine_does_not_permit_is_told_with_exit_code_18(project: Path, tmp_path: Path) -> None:
    kit = shutil.copytree(project / "kits" / "north", tmp_path / "north")
    (kit / "site.toml").write_text('sandbox = "strict"\n' + (kit / "site.toml").read_text())
    code, checks = preflight(kit, before="echo 0 > /proc/sys/user/max_user_namespaces")
    assert (code, checks["sandbox"]["ok"]) == (18, False)
    assert "does not permit a network, mounts and processes of its own" in checks["sandbox"]["detail"]
    assert "user.max_user_namespaces" in checks["sandbox"]["detail"] + checks["sandbox"]["hint"]


def test_a_site_without_data_or_settings_is_told_what_to_write(project: Path, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", ["north"])
    kit = folder / "kits" / "north"
    with serving(folder):
        code, checks = preflight(kit)
        assert (code, checks["site.toml"]["detail"]) == (19, "no data")
        furnish(kit)
        (kit / "data.py").unlink()
        assert preflight(kit)[0] == 19
        furnish(kit)
        (kit / "site.toml").write_text('sandboks = "off"\n')
        code, checks = preflight(kit)
        assert (code, "sandbox" in checks["site.toml"]["hint"]) == (19, True)


def test_a_site_enrols_once_with_a_key_that_never_left_it(tmp_path: Path) -> None:
    project = Project(
        name="hearts",
        server=ServerSection(host="127.0.0.1", port=free_port(), listen="127.0.0.1"),
        organisations=(Organisation(name="Uni"),),
        sites=(Site(name="north", org="Uni"),),
        people=(Person(name="ada", org="Uni", role="project_admin"),),
        policy=Rules(min_cohort=1),
    )
    folder = tmp_path / "fed"
    provision(project, folder, now=time.time(), zips=False)
    kit = folder / "kits" / "north"
    furnish(kit)
    code, checks = preflight(kit)
    assert (code, "site enroll" in checks["certificate"]["hint"]) == (11, True)
    enroll = [sys.executable, "-m", "hansa.cli", "site", "enroll", str(kit), "--json"]
    with serving(folder):
        done = subprocess.run(enroll, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["site"] == "north"
        assert load_kit(kit).enrolled
        assert preflight(kit)[0] == 0
        done = subprocess.run(enroll, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        rotate(folder, "north", now=time.time(), zips=False)
        ends = time.monotonic() + 10
        while (done := subprocess.run(enroll, capture_output=True, text=True, check=False, timeout=60)).returncode:
            assert time.monotonic() < ends, done.stderr  # the server takes the new tickets and roster in within 10 s
        assert preflight(kit)[0] == 0
