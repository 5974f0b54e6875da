"""The signed policy: who is let in, and that nothing but the newest one counts."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.unit.runtime.parties import ALICE, BOOTSTRAP, NORTH, NOW, POLICY, SERVER

from hansa.errors import IdentityError, VersionError
from hansa.runtime.authz.certificates import Identity
from hansa.runtime.authz.enrolment import Tickets
from hansa.runtime.authz.policy import Policy, Revoked, read_policy
from hansa.runtime.authz.signed import Document, fingerprint, new_project_key, public_bytes, seal, unseal

KEY = new_project_key()
PUBLIC = public_bytes(KEY)


def changed(**fields: object) -> Policy:
    return msgspec.structs.replace(POLICY, **fields)


def test_members_are_admitted_and_a_bootstrap_certificate_counts_as_its_site() -> None:
    assert [POLICY.admit(each).name for each in (NORTH, BOOTSTRAP, ALICE, SERVER)] == ["north", "north", "alice", "server"]


@pytest.mark.parametrize(
    ("identity", "policy", "code"),
    [
        (NORTH, changed(revoked=(Revoked(name="north", at=NOW, reason="left"),)), "revoked"),
        (replace(NORTH, serial="ab1"), changed(revoked=(Revoked(serial="ab1", at=NOW),)), "revoked"),
        (NORTH, changed(members=(msgspec.structs.replace(POLICY.members[1], generation=2),)), "revoked"),
        (NORTH, changed(members=()), "unknown_name"),
        (replace(NORTH, org="Uni"), POLICY, "wrong_name"),
        (replace(NORTH, kind="admin"), POLICY, "wrong_name"),
        (replace(NORTH, project="lungs"), POLICY, "wrong_project"),
    ],
)
def test_who_is_not_in_the_roster_is_told_why(identity: Identity, policy: Policy, code: str) -> None:
    with pytest.raises(IdentityError) as caught:
        policy.admit(identity)
    assert caught.value.code == code


def test_who_was_shut_out_for_good_and_who_only_needs_the_new_kit_are_told_what_to_do() -> None:
    hints = []
    gone = changed(revoked=(Revoked(name="north", at=NOW, reason="left"),))
    rotated = changed(members=(msgspec.structs.replace(POLICY.members[1], generation=2),))
    for policy in (gone, rotated):
        with pytest.raises(IdentityError) as caught:
            policy.admit(NORTH)
        hints.append(caught.value.hint or "")
    assert ["another name" in hint for hint in hints] == [True, False]
    assert ["hansa provision unpack NEW.zip" in hint for hint in hints] == [False, True]


def test_revoking_one_serial_number_leaves_the_name_its_others() -> None:
    policy = changed(revoked=(Revoked(serial="ab1", at=NOW),))
    assert policy.admit(replace(NORTH, serial="ab2")).name == "north"


def test_a_policy_survives_its_signature() -> None:
    assert read_policy(seal(POLICY, KEY), PUBLIC) == POLICY


def test_one_changed_byte_anywhere_closes_the_policy() -> None:
    data = seal(POLICY, KEY)
    assert b'"north"' in data
    for wrong in (
        data.replace(b'"north"', b'"south"'),
        data.replace(b'"version": 3', b'"version": 4'),
        data[:-40],
        b"",
        b"[]",
        b"{}",
    ):
        with pytest.raises(IdentityError) as caught:
            read_policy(wrong, PUBLIC)
        assert caught.value.code == "bad_signature"


def test_another_projects_key_and_another_kind_of_document_are_refused() -> None:
    for data in (seal(POLICY, new_project_key()), seal(Tickets(), KEY)):
        with pytest.raises(IdentityError) as caught:
            read_policy(data, PUBLIC)
        assert caught.value.code == "bad_signature"


def test_an_older_policy_does_not_let_the_revoked_back_in() -> None:
    newer = changed(version=4, revoked=(Revoked(name="north", at=NOW),))
    assert read_policy(seal(newer, KEY), PUBLIC, newer_than=POLICY) == newer
    assert read_policy(seal(newer, KEY), PUBLIC, newer_than=newer) == newer
    for stale in (POLICY, changed(version=4)):
        with pytest.raises(IdentityError) as caught:
            read_policy(seal(stale, KEY), PUBLIC, newer_than=newer)
        assert caught.value.code == "stale_policy"


class Future(Document, frozen=True, kw_only=True):
    more: int = 1


Future.__name__ = "Policy"  # what a later version signs under the same name


@pytest.mark.parametrize("document", [Future(format=2), Future()])
def test_what_a_newer_version_signed_is_closed_and_not_read_in_part(document: Future) -> None:
    with pytest.raises(VersionError):
        unseal(seal(document, KEY), Policy, PUBLIC)


def test_a_fingerprint_is_sixteen_groups() -> None:
    assert [len(group) for group in fingerprint(PUBLIC).split()] == [4] * 16
