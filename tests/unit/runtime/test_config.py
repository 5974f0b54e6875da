"""Kits that are whole, and a site's own settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.unit.provision.offices import NOW, opened

from hansa.errors import ConfigError, HansaError, IdentityError, InputError
from hansa.runtime.authz.certificates import check_chain, der, make_root, pem, signing_request
from hansa.runtime.authz.enrolment import enrol
from hansa.runtime.authz.policy import read_policy
from hansa.runtime.authz.renewal import write_secret
from hansa.runtime.config import (
    Kit,
    SiteConfig,
    SitePolicy,
    is_place,
    load_kit,
    load_site,
    save_certificate,
    site_key,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kits of a project; `kits` gives a test its own copy."""
    return opened(tmp_path_factory.mktemp("office")).folder / "kits"


@pytest.fixture
def kits(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "kits")


def site_toml(kits: Path, text: str) -> SiteConfig:
    (kits / "north" / "site.toml").write_text(text)
    return load_site(load_kit(kits / "north"))


def test_a_kit_says_what_it_is_and_its_certificate_agrees(kits: Path) -> None:
    for folder, kind, name in (("server", "server", "server"), ("alice", "admin", "alice"), ("admin", "admin", "alice")):
        kit = load_kit(kits / folder)
        assert (kit.kind, kit.name, kit.project, kit.url) == (kind, name, "hearts", "https://localhost:8443")
        assert kit.enrolled
        assert kit.chain()[0].public_key() == kit.private_key().public_key()
    alice = load_kit(kits / "alice")
    assert (alice.org, alice.role) == ("Uni", "project_admin")
    assert check_chain(der(*alice.chain()), alice.ca_certificate(), now=NOW, name="alice").kind == "admin"
    assert read_policy(alice.policy, alice.project_key).version == 1


def test_a_server_kit_says_where_to_listen_and_holds_the_tickets_of_all_sites(kits: Path) -> None:
    kit = load_kit(kits / "server")
    assert kit.server is not None
    assert (kit.server.host, kit.server.port) == ("0.0.0.0", 8443)  # noqa: S104  the default
    assert kit.data == kits / "server" / "data"
    assert sorted(ticket.site for ticket in kit.tickets().tickets) == ["north", "south"]


def test_a_site_enrols_from_kit_to_certificate(kits: Path) -> None:
    site, server = load_kit(kits / "north"), load_kit(kits / "server")
    assert not site.enrolled
    _, chain, token = site.bootstrap()
    bootstrap = check_chain(der(*chain), server.ca_certificate(), now=NOW)
    key = site_key(site)
    assert site_key(site).private_numbers() == key.private_numbers()  # cut off before the answer: the same key again
    policy = read_policy(server.policy, server.project_key)
    made = enrol(
        signing_request(key, site.name),
        token,
        bootstrap=bootstrap,
        tickets=server.tickets().tickets,
        policy=policy,
        authority=server.site_ca(),
        now=NOW,
    )
    save_certificate(site, made.certificate_pem, now=NOW)
    again = load_kit(kits / "north")
    assert again.enrolled
    assert check_chain(der(*again.chain()), again.ca_certificate(), now=NOW, name="north").kind == "site"
    assert not (kits / "north" / "token").exists()
    with pytest.raises(InputError, match="no one-time token"):
        again.bootstrap()


def test_a_certificate_for_another_key_is_not_stored(kits: Path) -> None:
    site = load_kit(kits / "north")
    site_key(site)
    with pytest.raises(IdentityError) as caught:
        save_certificate(site, (kits / "alice" / "certificate.pem").read_text(), now=NOW)
    assert caught.value.code == "wrong_key"
    assert not site.certificate.exists()


@pytest.mark.parametrize("name", ["kit.toml", "ca.pem"])
def test_a_file_that_was_altered_is_named(kits: Path, name: str) -> None:
    path = kits / "server" / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(IdentityError) as caught:
        load_kit(kits / "server")
    assert (caught.value.code, caught.value.path) == ("tampered", str(path))


def test_a_site_ca_that_another_made_is_named(kits: Path) -> None:
    path = kits / "server" / "site-ca.pem"
    path.write_bytes((kits / "server" / "certificate.pem").read_bytes())
    with pytest.raises(IdentityError) as caught:
        load_kit(kits / "server")
    assert caught.value.code == "wrong_key"
    path.write_bytes(pem(make_root("hearts", now=0.0).certificate))
    with pytest.raises(IdentityError) as caught:
        load_kit(kits / "server")
    assert (caught.value.code, caught.value.path) == ("tampered", str(path))


def test_a_manifest_made_to_fit_is_not_the_projects(kits: Path) -> None:
    folder = kits / "north"
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"kit.toml": "', '"kit.toml": "0'))
    with pytest.raises(IdentityError, match="not signed by the project") as caught:
        load_kit(folder)
    assert caught.value.code == "bad_signature"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("project.pub", b"xyz", IdentityError),
        ("project.pub", None, InputError),
        ("kit.toml", None, InputError),
        ("manifest.json", None, InputError),
        ("ca.pem", None, InputError),
        ("policy.json", None, InputError),
        ("certificate.pem", b"nonsense", InputError),
        ("key.pem", b"nonsense", InputError),
    ],
)
def test_what_is_missing_or_no_longer_itself_is_named(
    kits: Path, name: str, content: bytes | None, fault: type[HansaError]
) -> None:
    path = kits / "alice" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(fault) as caught:
        load_kit(kits / "alice")
    assert name in str(caught.value)
    assert caught.value.hint


def test_a_key_of_another_kit_does_not_fit(kits: Path) -> None:
    shutil.copy(kits / "bob" / "key.pem", kits / "alice" / "key.pem")
    with pytest.raises(IdentityError, match="do not belong together"):
        load_kit(kits / "alice")


@pytest.mark.parametrize(
    ("kit", "name"), [("alice", "key.pem"), ("server", "site-ca.key"), ("north", "token"), ("north", "bootstrap.key")]
)
def test_a_secret_that_others_can_read_is_refused_with_what_to_type(kits: Path, kit: str, name: str) -> None:
    path = kits / kit / name
    path.chmod(0o640)
    with pytest.raises(InputError) as caught:
        load_kit(path.parent)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_kit_does_not_show_secrets(kits: Path) -> None:
    assert "PRIVATE" not in repr(load_kit(kits / "alice"))
    assert isinstance(load_kit(str(kits / "alice")), Kit)


def test_a_secret_is_written_for_its_owner_only(tmp_path: Path) -> None:
    write_secret(tmp_path / "a", b"1")
    write_secret(tmp_path / "a", b"2")
    assert ((tmp_path / "a").stat().st_mode & 0o777, (tmp_path / "a").read_bytes()) == (0o600, b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_new_kits_site_runs_nobodys_code(kits: Path) -> None:
    config = load_site(load_kit(kits / "north"))
    assert config.sandbox == "basic"
    assert (config.policy.authors, config.policy.orgs, config.policy.code) == ((), (), ())


def test_without_a_policy_a_site_is_closed(kits: Path) -> None:
    assert site_toml(kits, "") == SiteConfig()
    assert site_toml(kits, "").policy == SitePolicy()
    assert SitePolicy().authors == SitePolicy().orgs == SitePolicy().code == ()
    (kits / "north" / "site.toml").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        load_site(load_kit(kits / "north"))


def test_a_whole_site_toml_is_read(kits: Path) -> None:
    config = site_toml(
        kits,
        """
        sandbox = "strict"
        data = {patients = "data.py:load"}
        environments = {torch = "/opt/torch"}
        resources = {cores = 4, gpus = 1, memory_mb = 8000}
        [policy]
        authors = ["alice"]
        orgs = "any"
        code = ["%s"]
        min_cohort = 3
        kinds = ["metrics"]
        hours = "22:00-06:00"
        approval = "by_hand"
        traceback = true
        models = false
        """
        % ("ab" * 32),
    )
    assert config.data == {"patients": "data.py:load"}
    assert config.resources.cores == 4
    assert config.policy.authors == ("alice",)
    assert config.policy.orgs == "any"
    assert (config.policy.min_cohort, config.policy.kinds, config.policy.models) == (3, ("metrics",), False)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("sandbax = 'off'", "$.sandbax", "did you mean 'sandbox'?"),
        ("[policy]\nauthor = ['alice']", "$.policy.author", "did you mean 'authors'?"),
        ("[resources]\ncore = 1", "$.resources.core", "did you mean 'cores'?"),
        ("sandbox = 'loose'", "$.sandbox", "loose"),
        ("[policy]\ncode = ['abc']", "$.policy.code", "wrong value"),
        ("[policy]\ncode = 'all'", "$.policy.code", "wrong value"),
        ("[policy]\nmin_cohort = 0", "$.policy.min_cohort", "wrong value"),
        ("[policy]\nmin_cohort = '3'", "$.policy.min_cohort", "wrong value"),
        ("[policy]\nhours = '25:00-06:00'", "$.policy.hours", "wrong value"),
        ("[policy]\nkinds = ['rows']", "$.policy.kinds", "wrong value"),
        ("[data]\npatients = 'data.py'", "$.data.patients", "file.py:function"),
        ("[data", "site.toml", "not TOML"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_path(kits: Path, text: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site_toml(kits, text)
    assert path in str(caught.value.path)
    assert said in str(caught.value)


def test_a_label_may_lead_to_a_function_or_to_a_place(kits: Path) -> None:
    config = site_toml(kits, "[data]\nrows = 'data.py:load'\nscans = '/srv/scans'\nhere = './scans'\nodd = './data.py:load'\n")
    assert [is_place(config.data[label]) for label in ("rows", "scans", "here", "odd")] == [False, True, True, False]


@pytest.mark.parametrize(
    ("hours", "minute", "is_open"),
    [
        (None, 0, True),
        ("08:00-17:30", 8 * 60, True),
        ("08:00-17:30", 17 * 60 + 30, False),
        ("08:00-17:30", 479, False),
        ("22:00-06:00", 23 * 60, True),
        ("22:00-06:00", 5 * 60 + 59, True),
        ("22:00-06:00", 6 * 60, False),
        ("22:00-06:00", 12 * 60, False),
    ],
)
def test_hours_may_go_past_midnight(hours: str | None, minute: int, is_open: bool) -> None:
    assert SitePolicy(hours=hours).open_at(minute) is is_open


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        SitePolicy().min_cohort = 1  # type: ignore[misc]
    assert msgspec.structs.replace(SitePolicy(), min_cohort=5).min_cohort == 5
