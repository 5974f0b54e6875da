"""project.toml: what it may say, and where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from tests.unit.provision.offices import NOW, opened

from hansa.errors import ConfigError, IdentityError
from hansa.provision.project import Project, ServerSection, read_project
from hansa.runtime.authz.certificates import make_root, pem
from hansa.runtime.authz.policy import Role, Rules
from hansa.runtime.config import load_kit

GOOD = """
name = "hearts"
[server]
host = "fl.example.org"
port = 443
addresses = ["10.0.0.1"]
[[organisations]]
name = "Uni"
[[organisations]]
name = "Klinikum Süd, Haus 2"
[[sites]]
name = "south"
org = "Klinikum Süd, Haus 2"
[[people]]
name = "alice@uni.example"
org = "Uni"
role = "project_admin"
[policy]
min_cohort = 3
"""


def read(folder: Path, text: str = GOOD) -> Project:
    (folder / "project.toml").write_text(text)
    return read_project(folder / "project.toml")


def test_a_project_names_its_server_sites_and_people(tmp_path: Path) -> None:
    project = read(tmp_path)
    assert project.url == "https://fl.example.org:443"
    assert project.hosts == ("fl.example.org", "10.0.0.1")
    assert [(member.name, member.kind, member.role) for member in project.members()] == [
        ("server", "server", None),
        ("south", "site", None),
        ("alice@uni.example", "admin", "project_admin"),
    ]
    assert project.policy.min_cohort == 3


def test_an_ipv6_address_is_put_in_brackets(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace("fl.example.org", "fd00::1")).url == "https://[fd00::1]:443"


@pytest.mark.parametrize(
    ("old", "new", "path", "said"),
    [
        ('name = "hearts"', 'name = "he arts"', "$.name", "not a name"),
        ('name = "hearts"', "", "$.name", "missing"),
        ('host = "fl.example.org"', 'hots = "a"', "$.server.hots", "did you mean 'host'?"),
        ('host = "fl.example.org"', 'host = "https://a"', "$.server.host", "no https://"),
        ("port = 443", "port = 70000", "$.server.port", "wrong value"),
        ("port = 443", 'port = "443"', "$.server.port", "wrong value"),
        ('"10.0.0.1"', '"10.0.0.1:443"', "$.server.addresses[0]", "not a host"),
        ("port = 443", 'port = 443\norg = "Unii"', "$.server.org", "did you mean 'Uni'?"),
        ('name = "south"', 'name = "../south"', "$.sites[0].name", "not a name"),
        ('name = "south"', 'name = "server"', "$.sites[0].name", "taken"),
        ('name = "south"', 'name = "Admin"', "$.sites[0].name", "taken"),
        ('name = "alice@uni.example"', 'name = "SOUTH"', "$.people[0].name", "$.sites[0]"),
        ('name = "Uni"', 'name = "Uni\\nOU=admin"', "$.organisations[0].name", "not a name"),
        ('org = "Uni"', 'org = "Unj"', "$.people[0].org", "did you mean 'Uni'?"),
        ('role = "project_admin"', 'role = "root"', "$.people[0].role", "wrong value"),
        ('role = "project_admin"', 'rule = "lead"', "$.people[0].rule", "did you mean 'role'?"),
        ('role = "project_admin"', 'role = "lead"', "$.people", "project_admin"),
        ("port = 443", 'port = 443\ntrust = "system"', "$.server.trust", "ends TLS"),
        ("port = 443", "port = 443\nlisten_tls = false", "$.server.listen_tls", "ends TLS"),
        ("port = 443", "port = 443\ndirect = false\nlisten_tls = false", "$.server.listen", "one machine"),
        ("port = 443", 'port = 443\ndirect = false\ntrust = "no.pem"', "$.server.trust", "No such file"),
        ("port = 443", 'port = 443\ndirect = false\ntrust = "project.toml"', "$.server.trust", "no certificates"),
        ("min_cohort = 3", "min_cohorts = 3", "$.policy.min_cohorts", "did you mean 'min_cohort'?"),
        ("min_cohort = 3", "min_cohort = 0", "$.policy.min_cohort", "wrong value"),
    ],
)
def test_a_wrong_entry_is_named_with_its_path(tmp_path: Path, old: str, new: str, path: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert caught.value.path == path
    assert said in str(caught.value)


@pytest.mark.parametrize("trust", ["project", "system", "hospital.pem"])
def test_a_proxy_that_ends_tls_is_believed_by_the_project_the_machine_or_its_own_ca(tmp_path: Path, trust: str) -> None:
    ca = pem(make_root("hospital", now=NOW).certificate)
    (tmp_path / "hospital.pem").write_bytes(b"Hospital CA\n" + ca)  # as `openssl x509 -text` writes it
    project = read(tmp_path, GOOD.replace("port = 443", f'port = 443\ndirect = false\ntrust = "{trust}"'))
    assert project.server.front_ca == (ca.decode() if trust == "hospital.pem" else None)
    opened(tmp_path / "office", project)
    for name in ("south", "alice@uni.example"):
        kit = load_kit(tmp_path / "office" / "kits" / name)
        assert not kit.direct
        expected = {"project": kit.ca, "system": None, "hospital.pem": kit.folder / "front-ca.pem"}[trust]
        assert kit.trusted == expected
        assert kit.ca_certificate().subject != make_root("hospital", now=NOW).certificate.subject
    if trust == "hospital.pem":
        assert kit.trusted is not None
        kit.trusted.write_bytes(pem(make_root("another", now=NOW).certificate))
        with pytest.raises(IdentityError, match=r"altered.*front-ca\.pem"):
            load_kit(kit.folder)


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_project(tmp_path / "project.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        read(tmp_path, "name = [")
    with pytest.raises(ConfigError, match="no organisation"):
        read(tmp_path, 'name = "a"\norganisations = []\n[server]\nhost = "a"')


def test_a_word_that_is_none_of_those_that_may_stand_there_is_told_with_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace("project_admin", "admin"))
    assert caught.value.path == "$.people[0].role"
    assert caught.value.expected == "auditor, lead, member, org_admin, project_admin"


def test_the_page_on_project_toml_shows_a_project_that_can_be_and_names_every_role_and_every_key_of_the_server(
    tmp_path: Path,
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "project-toml.md").read_text(encoding="utf-8")
    path = tmp_path / "project.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    assert [member.name for member in read_project(path).members()] == ["server", "north", "south", "ada", "alice"]
    words = [*get_args(Role), *ServerSection.__struct_fields__, *Rules.__struct_fields__, *Project.__struct_fields__]
    assert [word for word in words if word not in page] == []
