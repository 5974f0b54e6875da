"""Proofs and tokens: each way in which one is not good enough is told apart, and none lets anybody in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.unit.runtime.parties import NORTH, NOW, pki

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import der, new_key
from hansa.runtime.protocol.messages import TOKEN_S
from hansa.runtime.protocol.session import (
    LEEWAY_S,
    PROOF_LIMIT,
    Identity,
    Proof,
    Seen,
    check_chain,
    check_proof,
    check_token,
    issue,
    new_secret,
    proof,
)

URL = "https://fl.example.org:8443/v1/work"
SECRET = new_secret()
KEY, CERTIFICATE = pki().issue(NORTH)
WHO = replace(NORTH, serial=f"{CERTIFICATE.serial_number:x}")
CHAIN = der(CERTIFICATE)


def check(text: str | None, *, method: str = "GET", url: str = URL, now: float = NOW, seen: Seen | None = None) -> Proof:
    """The proof, remembered as the server does when it knows that it is a member's."""
    found = check_proof(text, method=method, url=url, now=now)
    (seen or Seen()).remember(found, now=now)
    return found


def ours(key: ec.EllipticCurvePrivateKey = KEY, **changes: Any) -> str:
    return proof(key, **{"method": "GET", "url": URL, "now": NOW, **changes})


def part(content: Any) -> str:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(*, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A proof as an attacker signs it: with `header` over ours, and these claims."""
    own = ECKey.import_key(KEY)
    jwk = {name: value for name, value in own.as_dict(private=False).items() if name != "kid"}
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk} | (header or {})
    body = {"jti": "1", "htm": "GET", "htu": URL, "iat": NOW} | claims
    algorithms = ["ES256", "ES384", "RS256", "HS256", "none"]
    registry = jws.JWSRegistry(algorithms=algorithms, strict_check_header=False)
    registry.max_header_length = 10_000
    return jws.serialize_compact(head, json.dumps(body), key or own, registry=registry)


def by_hand(header: dict[str, Any], signature: bytes = b"") -> str:
    return f"{part(header)}.{part({'jti': '1', 'htm': 'GET', 'htu': URL, 'iat': NOW})}.{part(signature)}"


def own_jwk() -> dict[str, Any]:
    return {name: value for name, value in ECKey.import_key(KEY).as_dict(private=False).items() if name != "kid"}


def with_hmac() -> str:
    """The classic confusion: the public key's bytes as an HMAC secret."""
    head = {"typ": "dpop+jwt", "alg": "HS256", "jwk": own_jwk()}
    text = f"{part(head)}.{part({'jti': '1', 'htm': 'GET', 'htu': URL, 'iat': NOW})}"
    return f"{text}.{part(hmac.digest(json.dumps(own_jwk()).encode(), text.encode(), 'sha256'))}"


def rsa_key() -> RSAKey:
    return RSAKey.import_key(rsa.generate_private_key(65_537, 2048))


PROOFS: list[tuple[str, str, Callable[[], str | None]]] = [
    ("none", "no_proof", lambda: None),
    ("empty", "no_proof", lambda: ""),
    ("no token at all", "no_proof", lambda: "hello"),
    ("three parts of nothing", "no_proof", lambda: ".."),
    ("a header that is a list", "no_proof", lambda: f"{part([])}.{part({})}.{part(b'')}"),
    ("a header that is no JSON", "no_proof", lambda: f"{part(b'{')}.{part({})}.{part(b'')}"),
    ("letters of another alphabet", "no_proof", lambda: "é.é.é"),
    ("too long", "no_proof", lambda: "a" * (PROOF_LIMIT + 1)),
    ("claims that are a list", "no_proof", lambda: forged_payload(b"[]")),
    ("claims that are no JSON", "no_proof", lambda: forged_payload(b"\xff")),
    ("a claim of another type", "no_proof", lambda: forged(iat="now")),
    ("a number that fills the memory", "no_proof", lambda: forged(jti="1" * 65)),
    ("no claims", "no_proof", lambda: forged_payload(b"{}")),
    ("alg none", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "none", "jwk": own_jwk()})),
    ("no alg", "no_proof", lambda: by_hand({"typ": "dpop+jwt", "jwk": own_jwk()})),
    ("HMAC with the public key", "bad_signature", with_hmac),
    (
        "RS256 with an RSA key",
        "bad_signature",
        lambda: forged(key=rsa_key(), header={"alg": "RS256", "jwk": rsa_key().as_dict(private=False)}),
    ),
    ("no signature", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk()})),
    ("a short signature", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk()}, b"\x01" * 63)),
    ("another's signature", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk()}, b"\x01" * 64)),
    ("the signature of another key", "bad_signature", lambda: forged(key=ECKey.import_key(new_key()))),
    ("a changed claim", "bad_signature", lambda: swap_claims(ours())),
    ("another type of token", "bad_signature", lambda: forged(header={"typ": "JWT"})),
    ("a key by id", "bad_signature", lambda: forged(header={"kid": "../../etc/passwd"})),
    ("a key by address", "bad_signature", lambda: forged(header={"jku": "https://evil.example/keys"})),
    ("certificates by address", "bad_signature", lambda: forged(header={"x5u": "https://evil.example/pem"})),
    (
        "a critical extension",
        "bad_signature",
        lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk(), "crit": ["b64"]}),
    ),
    ("a private key", "bad_signature", lambda: forged(header={"jwk": ECKey.import_key(KEY).as_dict(private=True)})),
    (
        "a point off the curve",
        "bad_signature",
        lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk() | {"x": part(b"\1" * 32)}}),
    ),
    ("a symmetric key", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "oct", "k": "AA"}})),
    ("a key that is a text", "bad_signature", lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": "key"})),
    ("certificates of another key", "bad_signature", lambda: ours(new_key(), chain=CHAIN)),
    ("certificates that are none", "bad_signature", lambda: ours(chain=[b"abc"])),
    (
        "certificates that are a text",
        "bad_signature",
        lambda: by_hand({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk(), "x5c": "abc"}),
    ),
    ("another method", "wrong_request", lambda: ours(method="POST")),
    ("another path", "wrong_request", lambda: ours(url=URL + "/2")),
    ("another host", "wrong_request", lambda: ours(url="https://evil.example:8443/v1/work")),
    ("another scheme", "wrong_request", lambda: ours(url=URL.replace("https", "http"))),
    ("a clock ahead", "clock_skew", lambda: ours(now=NOW + LEEWAY_S + 1)),
    ("a clock behind", "clock_skew", lambda: ours(now=NOW - LEEWAY_S - 1)),
    ("a clock ten years off", "clock_skew", lambda: ours(now=NOW + 3e8)),
]


def forged_payload(payload: bytes) -> str:
    own = ECKey.import_key(KEY)
    return jws.serialize_compact({"typ": "dpop+jwt", "alg": "ES256", "jwk": own_jwk()}, payload, own)


def swap_claims(text: str) -> str:
    head, _, signature = text.split(".")
    return f"{head}.{part({'jti': '2', 'htm': 'GET', 'htu': URL, 'iat': NOW})}.{signature}"


@pytest.mark.parametrize(("code", "text"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS])
def test_each_fault_of_a_proof_has_its_code_and_a_mend(code: str, text: Callable[[], str | None]) -> None:
    with pytest.raises(IdentityError) as caught:
        check(text())
    assert caught.value.code == code
    assert caught.value.hint
    assert caught.value.exit_code == 3


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_no_text_makes_the_check_fail_otherwise(text: str) -> None:
    with pytest.raises(IdentityError):
        check(text)


@given(st.data())
def test_a_proof_with_one_letter_changed_is_refused(data: st.DataObject) -> None:
    text = ours()
    at = data.draw(st.integers(0, len(text) - 2))  # of a signature's last letter, four bits say nothing
    letter = data.draw(st.sampled_from("AZaz09-_.").filter(lambda letter: letter != text[at]))
    with pytest.raises(IdentityError):
        check(text[:at] + letter + text[at + 1 :])


def test_a_good_proof_gives_key_and_certificates() -> None:
    good = check(ours(chain=CHAIN))
    assert good.thumbprint == ECKey.import_key(KEY).thumbprint()
    assert check_chain(good.chain, pki().root.certificate, now=NOW) == WHO
    assert good.ath is None


def test_query_case_and_the_schemes_own_port_do_not_matter() -> None:
    text = ours(url="https://FL.example.org/v1/work?after=3&hold_s=25", method="get")
    assert check(text, url="https://fl.example.org:443/v1/work").jti
    assert check(ours(url="https://[::1]:8443/a"), url="https://[::1]:8443/a#b").jti


def test_a_proof_is_good_once() -> None:
    seen, text = Seen(), ours()
    check(text, seen=seen)
    for now in (NOW, NOW + LEEWAY_S):
        with pytest.raises(IdentityError) as caught:
            check(text, seen=seen, now=now)
        assert caught.value.code == "replayed"


def test_the_memory_of_proofs_forgets_what_is_too_old_anyway_and_is_bounded() -> None:
    seen = Seen(limit=2)
    for now in (NOW, NOW + 1):
        check(ours(now=now), now=now, seen=seen)
    with pytest.raises(IdentityError) as caught:
        check(ours(), seen=seen)
    assert caught.value.code == "busy"
    later = NOW + 2 * LEEWAY_S + 2
    assert check(ours(now=later), now=later, seen=seen).jti


def test_one_key_does_not_fill_the_memory_that_the_others_need() -> None:
    seen, other = Seen(limit=3, each=2), new_key()
    for number in range(2):
        check(ours(now=NOW + number), now=NOW + number, seen=seen)
    with pytest.raises(IdentityError) as caught:
        check(ours(now=NOW + 2), now=NOW + 2, seen=seen)
    assert caught.value.code == "busy"
    assert check(ours(other, now=NOW + 2), now=NOW + 2, seen=seen).jti


def granted(**changes: Any) -> str:
    thumbprint = ECKey.import_key(KEY).thumbprint()
    return issue(SECRET, **{"identity": WHO, "thumbprint": thumbprint, "now": NOW, **changes})


def use(token: str | None, *, key: ec.EllipticCurvePrivateKey = KEY, now: float = NOW, named: str | None = "") -> Identity:
    """Send a token as a client does; `named` is the token whose hash the proof carries, if another."""
    return check_token(SECRET, token, check(ours(key, now=now, token=token if named == "" else named), now=now), now=now)


def test_a_token_with_its_key_names_its_owner() -> None:
    assert use(granted()) == WHO
    assert use(granted(), now=NOW + TOKEN_S) == WHO


def claims() -> dict[str, Any]:
    return {
        "sub": "north",
        "kind": "site",
        "org": "o",
        "project": "hearts",
        "serial": "1",
        "generation": 1,
        "jkt": ECKey.import_key(KEY).thumbprint(),
        "iat": NOW,
        "exp": NOW + 300,
    }


def signed_by(secret: bytes, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    head = {"typ": "hansa+jwt", "alg": "HS256"} | (header or {})
    registry = jws.JWSRegistry(algorithms=["HS256", "HS384"])
    return jws.serialize_compact(head, json.dumps(claims() | changes), OctKey.import_key(secret), registry=registry)


TOKENS: list[tuple[str, str, Callable[[], str | None]]] = [
    ("none", "no_token", lambda: None),
    ("empty", "no_token", lambda: ""),
    ("huge", "no_token", lambda: "a" * 10_000),
    ("nonsense", "bad_signature", lambda: "nonsense"),
    ("alg none", "bad_signature", lambda: f"{part({'typ': 'hansa+jwt', 'alg': 'none'})}.{part(claims())}."),
    ("another HMAC", "bad_signature", lambda: signed_by(SECRET, header={"alg": "HS384"})),
    ("another server's secret", "bad_signature", lambda: signed_by(new_secret())),
    ("a token of another type", "bad_signature", lambda: signed_by(SECRET, header={"typ": "JWT"})),
    ("a proof in the token's place", "bad_signature", ours),
    ("signed with the client's key", "bad_signature", lambda: es256_token()),
    ("claims of another version", "bad_signature", lambda: signed_by(SECRET, role="project_admin")),
    ("an unknown kind", "bad_signature", lambda: signed_by(SECRET, kind="root")),
    ("changed claims", "bad_signature", lambda: changed_claims(granted())),
    ("ended", "token_expired", lambda: granted(now=NOW - TOKEN_S - 1)),
    ("from the future", "clock_skew", lambda: granted(now=NOW + LEEWAY_S + 1)),
    ("another key's", "stolen_token", lambda: granted(thumbprint="x" * 43)),
]


def es256_token() -> str:
    return jws.serialize_compact({"typ": "hansa+jwt", "alg": "ES256"}, json.dumps(claims()), ECKey.import_key(KEY))


def changed_claims(token: str) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{part(claims() | {'kind': 'admin', 'sub': 'alice'})}.{signature}"


@pytest.mark.parametrize(("code", "token"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS])
def test_each_fault_of_a_token_has_its_code_and_a_mend(code: str, token: Callable[[], str | None]) -> None:
    with pytest.raises(IdentityError) as caught:
        use(token())
    assert caught.value.code == code
    assert caught.value.hint


def test_a_stolen_token_is_worth_nothing_without_its_key() -> None:
    with pytest.raises(IdentityError, match="without its key") as caught:
        use(granted(), key=new_key())
    assert caught.value.code == "stolen_token"


@pytest.mark.parametrize("named", [None, "another token"])
def test_a_proof_made_for_no_token_or_another_does_not_open_this_one(named: str | None) -> None:
    with pytest.raises(IdentityError, match="another token") as caught:
        use(granted(), named=named)
    assert caught.value.code == "stolen_token"


def test_a_proof_carries_the_tokens_hash_as_rfc_9449_says() -> None:
    expected = (
        base64.urlsafe_b64encode(hashlib.sha256(b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU").digest()).rstrip(b"=").decode()
    )
    assert expected == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"  # the RFC's own example, section 7.1
    assert check(ours(token="Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")).ath == expected  # noqa: S106  the RFC's
