"""Whom a certificate names, and each of its faults told apart."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.unit.runtime.parties import ALICE, BOOTSTRAP, DAY, NORTH, NOW, SERVER, make_pki, pki

from hansa.errors import IdentityError, InputError
from hansa.runtime.authz.certificates import (
    ROOT_DAYS,
    SKEW_S,
    Identity,
    certify,
    check_chain,
    der,
    key_pem,
    make_intermediate,
    make_root,
    new_key,
    read_key,
    requested_key,
    signing_request,
)

ROOT = pki().root.certificate


def altered(identity: Identity = NORTH, *, ca: bool = False) -> x509.Certificate:
    """A certificate of the right CA that says what none of ours says."""
    key, root = new_key(), pki().root
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "North Hospital")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(NOW - 60, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(NOW + DAY, datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return builder.sign(root.key, hashes.SHA256())


def self_signed() -> x509.Certificate:
    """A root of somebody else, sent as if it were a site's certificate."""
    return make_root("hearts", now=NOW).certificate


def site(**how: float) -> tuple[bytes, ...]:
    return der(pki().issue(NORTH, **how)[1])  # type: ignore[arg-type]  # now and days


FAULTS: list[tuple[str, str, Callable[[], tuple[bytes, ...]]]] = [
    ("nothing is sent", "no_certificate", tuple),
    ("bytes that are no certificate", "bad_certificate", lambda: (b"\x30\x03abc",)),
    ("a chain of many", "bad_certificate", lambda: site() * 3),
    ("a huge certificate", "bad_certificate", lambda: (b"\x30" * 9_000,)),
    ("expired", "expired", lambda: site(now=NOW - 10 * DAY, days=9)),
    ("expired a second ago", "expired", lambda: site(now=NOW - DAY - 1, days=1)),
    ("not valid yet", "not_yet_valid", lambda: site(now=NOW + SKEW_S + 10)),
    ("another project's CA", "wrong_ca", lambda: der(make_pki().issue(NORTH)[1])),
    ("another project's, expired too", "wrong_ca", lambda: der(make_pki().issue(NORTH, now=NOW - 10 * DAY, days=9)[1])),
    ("signed by itself", "wrong_ca", lambda: der(self_signed())),
    ("another's site CA", "wrong_ca", lambda: der(make_pki().issue(NORTH, by=make_pki().sites)[1], pki().sites.certificate)),
    ("the site CA is left out", "wrong_ca", lambda: der(pki().issue(NORTH, by=pki().sites)[1])),
    ("a person made by the site CA", "wrong_kind", lambda: der(pki().issue(ALICE, by=pki().sites)[1], *pki().sites.chain)),
    ("a server's certificate", "bad_certificate", lambda: der(pki().issue(SERVER)[1])),
    ("a certificate that is a CA", "bad_certificate", lambda: der(altered(ca=True))),
    ("a bootstrap name with a site's uses", "bad_certificate", lambda: der(altered(BOOTSTRAP))),
    ("a name with a slash", "bad_certificate", lambda: der(pki().issue(replace(NORTH, name="a/b"))[1])),
    ("the site CA itself", "bad_certificate", lambda: der(pki().sites.certificate)),
]


@pytest.mark.parametrize(("code", "chain"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_each_fault_of_a_certificate_has_its_code_and_a_mend(code: str, chain: Callable[[], tuple[bytes, ...]]) -> None:
    with pytest.raises(IdentityError) as caught:
        check_chain(chain(), ROOT, now=NOW)
    assert caught.value.code == code
    assert code == "wrong_kind" or caught.value.hint


@pytest.mark.parametrize("identity", [NORTH, ALICE, BOOTSTRAP, replace(NORTH, name="a@b.org", generation=7)])
def test_a_certificate_names_whom_it_was_made_for(identity: Identity) -> None:
    certificate = pki().issue(identity)[1]
    assert check_chain(der(certificate), ROOT, now=NOW) == replace(identity, serial=f"{certificate.serial_number:x}")


def test_a_site_certified_by_the_servers_site_ca_is_believed() -> None:
    certificate = pki().issue(NORTH, by=pki().sites)[1]
    assert check_chain(der(certificate, *pki().sites.chain), ROOT, now=NOW, name="north").name == "north"


def test_a_certificate_of_another_name_is_refused_where_one_is_expected() -> None:
    with pytest.raises(IdentityError, match="another's") as caught:
        check_chain(site(), ROOT, now=NOW, name="south")
    assert caught.value.code == "wrong_name"


def test_an_expired_ca_is_expired_and_not_a_stranger() -> None:
    old = make_pki(now=NOW - 6 * 365 * DAY)
    with pytest.raises(IdentityError) as caught:
        check_chain(der(old.issue(NORTH, now=NOW - 6 * 365 * DAY)[1]), old.root.certificate, now=NOW)
    assert caught.value.code == "expired"


def test_no_certificate_outlives_its_ca_and_no_ca_five_years() -> None:
    certificate = pki().issue(NORTH, days=100 * 365)[1]
    assert certificate.not_valid_after_utc == ROOT.not_valid_after_utc
    with pytest.raises(InputError, match="five years"):
        make_root("hearts", now=NOW, days=ROOT_DAYS + 1)
    late = make_intermediate(pki().root, "hearts", now=NOW + ROOT_DAYS * DAY - DAY)
    assert late.certificate.not_valid_after_utc == ROOT.not_valid_after_utc


def test_a_signing_request_gives_its_key_alone() -> None:
    key = new_key()
    assert requested_key(signing_request(key, "anything")) == key.public_key()


def test_signing_requests_that_are_none_are_refused() -> None:
    request = signing_request(new_key(), "north")
    weak = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    rsa_request = weak.sign(rsa.generate_private_key(65_537, 2048), hashes.SHA256())
    other_curve = weak.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    swapped = request.replace(request[300:304], "AAAA")
    texts = [
        "",
        "no request",
        request * 30,
        swapped,
        *(r.public_bytes(serialization.Encoding.PEM).decode() for r in (rsa_request, other_curve)),
    ]
    for text in texts:
        with pytest.raises(IdentityError) as caught:
            requested_key(text)
        assert caught.value.code == "bad_request"


def test_a_key_survives_its_file_and_other_keys_are_refused() -> None:
    key = new_key()
    assert read_key(key_pem(key)).public_key() == key.public_key()
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    for text in (locked, b"", key_pem(ec.generate_private_key(ec.SECP384R1()))):
        with pytest.raises(InputError):
            read_key(text, path="key.pem")


def test_secrets_have_no_repr() -> None:
    assert "key" not in repr(pki().root)


def test_a_certificate_for_a_server_carries_its_hosts() -> None:
    names = pki().issue(SERVER)[1].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert certify(new_key().public_key(), NORTH, pki().root, now=NOW, days=1).signature_hash_algorithm is not None
