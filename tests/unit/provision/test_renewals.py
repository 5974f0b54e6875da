"""The office renews what it made, one public file of each kit; keys stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.provision.offices import NOW, opened

from hansa.errors import ConfigError, IdentityError
from hansa.provision.changes import revoke, rotate
from hansa.provision.renewals import renew
from hansa.provision.state import load_roster
from hansa.runtime.authz.certificates import check_chain, der, identity_of, signing_request
from hansa.runtime.authz.enrolment import enrol
from hansa.runtime.authz.policy import read_policy
from hansa.runtime.authz.renewal import ends
from hansa.runtime.config import load_kit, site_key

DAY = 86_400.0


def states(folder: Path, now: float, **how: object) -> dict[str, str]:
    papers = renew(folder, now=now, **how)  # type: ignore[arg-type]  # names, every
    return {f"{each.name} {each.what}".strip(): "new" if each.renewed else "due" if each.due else "" for each in papers}


def test_nothing_is_renewed_before_two_thirds_are_over(tmp_path: Path) -> None:
    opened(tmp_path)
    assert set(states(tmp_path, NOW + 240 * DAY).values()) == {""}
    assert states(tmp_path, NOW + 250 * DAY) == {
        "server certificate": "new",
        "server site CA": "new",
        "alice certificate": "new",
        "bob certificate": "new",
        "project CA": "",
    }
    assert set(states(tmp_path, NOW + 251 * DAY).values()) == {""}


def test_keys_stay_and_everybody_is_known_as_before(tmp_path: Path) -> None:
    opened(tmp_path)
    before = {name: load_kit(tmp_path / "kits" / name) for name in ("server", "alice", "admin")}
    keys = {name: (kit.private_key().private_numbers(), kit.chain()[0].serial_number) for name, kit in before.items()}
    later = NOW + 360 * DAY
    renew(tmp_path, now=later)
    for name, (numbers, serial) in keys.items():
        kit = load_kit(tmp_path / "kits" / name)
        assert kit.private_key().private_numbers() == numbers
        assert kit.chain()[0].serial_number != serial
        (certificate,) = kit.chain()
        certificate.verify_directly_issued_by(kit.ca_certificate())
        assert identity_of(certificate).name == kit.name
        assert ends(kit.chain()) == later + 365 * DAY
    roster = load_roster(tmp_path / "state")
    assert roster is not None
    assert f"{load_kit(tmp_path / 'kits' / 'server').chain()[0].serial_number:x}" in {each.serial for each in roster.certificates}
    assert roster.version == 1  # the policy says nothing of certificates


def test_sites_enrol_with_the_renewed_ca_for_another_year(tmp_path: Path) -> None:
    opened(tmp_path)
    later = NOW + 400 * DAY
    rotate(tmp_path, "north", now=later, zips=False)
    site, server = load_kit(tmp_path / "kits" / "north"), load_kit(tmp_path / "kits" / "server")
    _, chain, token = site.bootstrap()

    def ask(now: float) -> object:
        return enrol(
            signing_request(site_key(site), "north"),
            token,
            bootstrap=check_chain(der(*chain), server.ca_certificate(), now=now),
            tickets=server.tickets().tickets,
            policy=read_policy(server.policy, server.project_key),
            authority=server.site_ca(),
            now=now,
        )

    with pytest.raises(IdentityError, match="CA for sites has ended") as caught:
        ask(later)
    assert "hansa provision renew" in str(caught.value)
    renew(tmp_path, now=later)
    ask(later)


def test_who_is_named_is_renewed_and_sites_and_strangers_are_not(tmp_path: Path) -> None:
    opened(tmp_path)
    assert states(tmp_path, NOW, names=["bob"])["bob certificate"] == "new"
    assert states(tmp_path, NOW, every=True)["alice certificate"] == "new"
    for name, what in (("north", "is a site"), ("bub", "did you mean 'bob'")):
        with pytest.raises(ConfigError, match=what):
            renew(tmp_path, now=NOW, names=[name])
    revoke(tmp_path, name="bob", now=NOW)
    assert "bob certificate" not in states(tmp_path, NOW, every=True)
    with pytest.raises(ConfigError, match="nobody is called"):
        renew(tmp_path, now=NOW, names=["bob"])


def test_a_kit_that_was_moved_away_is_told_of_when_its_time_comes(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "kits" / "bob").rename(tmp_path / "gone")
    assert states(tmp_path, NOW)["bob certificate"] == ""
    assert states(tmp_path, NOW + 250 * DAY)["bob certificate"] == "due"


def test_a_ca_that_is_not_the_projects_is_not_used(tmp_path: Path) -> None:
    opened(tmp_path / "a")
    opened(tmp_path / "b")
    place = tmp_path / "a" / "kits" / "server" / "site-ca.pem"
    place.write_bytes((tmp_path / "b" / "kits" / "server" / "site-ca.pem").read_bytes())
    with pytest.raises(IdentityError) as caught:
        load_kit(tmp_path / "a" / "kits" / "server").site_ca()
    assert caught.value.code == "tampered"
