"""Preflight and enrolment at the command line, against a real server: each fault has its own exit code and its mend."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.world import free_port, make_project, serving

from hansa.provision.changes import provision, revoke, rotate
from hansa.provision.project import Organisation, Person, Project, ServerSection, Site
from hansa.runtime.authz.policy import Rules
from hansa.runtime.config import load_kit


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


def preflight(kit: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    command = [sys.executable, "-m", "hansa.cli", "preflight", str(kit), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
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


def test_a_server_whose_port_is_taken_is_told(project: Path) -> None:
    code, checks = preflight(project / "kits" / "server")
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
