"""A site's first certificate: for the kit's own token, once, within a day."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.unit.runtime.parties import ALICE, BOOTSTRAP, DAY, NORTH, NOW, POLICY, pki

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import Identity, check_chain, der, signing_request
from hansa.runtime.authz.enrolment import TOKEN_HOURS, Enrolment, Ticket, enrol, new_ticket, renew, request
from hansa.runtime.authz.policy import Revoked

TOKEN, TICKET = new_ticket("north", generation=1, now=NOW)
KEY, CSR = request("north")


def ask(csr: str = CSR, token: str = TOKEN, **changes: Any) -> Enrolment:
    asked: dict[str, Any] = {"bootstrap": BOOTSTRAP, "tickets": [TICKET], "policy": POLICY, "authority": pki().sites, "now": NOW}
    return enrol(csr, token, **{**asked, **changes})


def test_a_site_gets_a_certificate_for_its_own_key() -> None:
    made = ask()
    who = check_chain(der(made.certificate, *made.chain), pki().root.certificate, now=NOW)
    assert who == made.identity == replace(NORTH, serial=who.serial)
    assert made.certificate.public_key() == KEY.public_key()
    assert made.certificate_pem.count("BEGIN CERTIFICATE") == 2


def test_an_answer_that_was_lost_is_given_again_to_the_same_key_and_to_no_other() -> None:
    used = ask().ticket
    assert used is not None
    assert ask(tickets=[used]).certificate.public_key() == KEY.public_key()
    with pytest.raises(IdentityError, match="another key") as caught:
        ask(csr=request("north")[1], tickets=[used])
    assert caught.value.code == "token_used"


def test_what_a_request_says_of_its_name_counts_for_nothing() -> None:
    assert ask(csr=signing_request(KEY, "alice")).identity.name == "north"


def other(**fields: object) -> list[Ticket]:
    return [msgspec.structs.replace(TICKET, **fields)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bootstrap": NORTH}, "wrong_kind"),
        ({"bootstrap": ALICE}, "wrong_kind"),
        ({"token": ""}, "bad_token"),
        ({"token": TOKEN[:-1]}, "bad_token"),
        ({"token": "x" * 1_000_000}, "bad_token"),
        ({"token": "\ud800"}, "bad_token"),
        ({"tickets": []}, "bad_token"),
        ({"now": NOW + TOKEN_HOURS * 3_600 + 1}, "token_expired"),
        ({"tickets": other(site="south")}, "wrong_site"),
        ({"tickets": other(generation=2)}, "wrong_site"),
        ({"csr": "nonsense"}, "bad_request"),
        ({"policy": msgspec.structs.replace(POLICY, revoked=(Revoked(name="north", at=NOW),))}, "revoked"),
        ({"policy": msgspec.structs.replace(POLICY, members=())}, "unknown_name"),
        ({"bootstrap": replace(BOOTSTRAP, project="lungs")}, "wrong_project"),
        ({"bootstrap": replace(BOOTSTRAP, generation=2), "tickets": other(generation=2)}, "stale_policy"),
    ],
)
def test_each_fault_of_an_enrolment_has_its_code(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        ask(**changes)
    assert caught.value.code == code


def test_the_token_stands_in_no_ticket() -> None:
    assert TOKEN not in msgspec.json.encode(TICKET).decode()
    assert len(TOKEN) >= 43  # 256 bits
    assert new_ticket("north", generation=1, now=NOW)[0] != TOKEN


def test_a_site_renews_with_the_key_it_has_and_a_person_does_not() -> None:
    made = renew(CSR, identity=NORTH, policy=POLICY, authority=pki().sites, now=NOW + 60 * DAY)
    assert made.ticket is None
    assert isinstance(made.certificate.public_key(), ec.EllipticCurvePublicKey)
    assert made.certificate.not_valid_after_utc.timestamp() == NOW + 150 * DAY
    with pytest.raises(IdentityError) as caught:
        renew(CSR, identity=ALICE, policy=POLICY, authority=pki().sites, now=NOW)
    assert caught.value.code == "wrong_kind"


def test_a_revoked_site_does_not_renew() -> None:
    policy = msgspec.structs.replace(POLICY, members=tuple(msgspec.structs.replace(m, generation=2) for m in POLICY.members))
    with pytest.raises(IdentityError) as caught:
        renew(CSR, identity=NORTH, policy=policy, authority=pki().sites, now=NOW)
    assert caught.value.code == "revoked"


def test_an_enrolled_certificate_names_whom_the_roster_says() -> None:
    assert isinstance(ask().identity, Identity)
    assert ask().identity.org == "North Hospital"
