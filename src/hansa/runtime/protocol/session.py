"""Who is asking: proofs of possession (DPoP, RFC 9449) and the short-lived tokens that are worth nothing without the key.

    POST /v1/token    proof with the certificate chain  ->  check_proof, check_chain, Policy.admit, Seen, issue
    any other request  Authorization: DPoP TOKEN, DPoP: PROOF  ->  check_proof, check_token, Policy.admit, Seen

Only ES256 signs a proof, only HS256 with the server's own secret signs a token; what a header says of keys or algorithms chooses
nothing. Pure: time, secrets and the memory of proofs are arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import Identity, Kind, check_chain
from hansa.runtime.protocol.messages import TOKEN_S

__all__ = ["Identity", "Proof", "Seen", "check_chain", "check_proof", "check_token", "issue", "new_secret", "proof"]

LEEWAY_S: Final = 60.0
PROOF_LIMIT: Final = 16 * 1024  # bytes; with two certificates a proof has about 3,000
TOKEN_LIMIT: Final = 2 * 1024
NUMBER_LIMIT: Final = 64  # characters of a proof's number, which is remembered: ours have 16, a UUID 36
SECRET_BYTES: Final = 32
REMEMBERED: Final = 4_096  # keys, and tokens, whose reading is remembered: the same parties ask again and again
_PROOF_TYPE, _TOKEN_TYPE = "dpop+jwt", "hansa+jwt"
_CLOCK: Final = "set the clocks of site and server by NTP"
_SYSTEM: Final = "use a Hansa of the project's version"

C = TypeVar("C", bound=msgspec.Struct)


class _Registry(jws.JWSRegistry):
    """Headers of a proof: larger than the library's default, for the certificates."""

    max_header_length = PROOF_LIMIT


_PROOFS: Final = _Registry(algorithms=["ES256"])
_TOKENS: Final = jws.JWSRegistry(algorithms=["HS256"])


class _Request(msgspec.Struct, frozen=True):
    """What a proof is for."""

    jti: str
    htm: str
    htu: str
    iat: float
    ath: str | None = None


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says."""

    sub: str
    kind: Kind
    org: str
    project: str
    serial: str
    generation: int
    jkt: str  # the thumbprint of the key that must come with it (RFC 7638)
    iat: float
    exp: float


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds: the key's thumbprint, the certificates with it (DER, leaf first), the token's hash, and its number."""

    thumbprint: str
    chain: tuple[bytes, ...]
    ath: str | None
    jti: str


class Seen:
    """The proofs of members in the last two leeways, so that none is taken twice: at most `limit`, of which one key has `each`.

    Beyond that new ones are refused, so that nobody fills the memory that the others need. A proof takes about 200 bytes.
    """

    def __init__(self, *, limit: int = 500_000, each: int = 100_000) -> None:
        self._limit, self._each = limit, each
        self._known: set[bytes] = set()
        self._order: deque[tuple[float, str, bytes]] = deque()
        self._counts: Counter[str] = Counter()

    def remember(self, proof: Proof, *, now: float, leeway_s: float = LEEWAY_S) -> None:
        """Take the number of a member's proof down. Those of strangers are not remembered: anybody can make a key.

        Raises:
            IdentityError: `replayed`: it was there. `busy`: the memory is full.
        """
        while self._order and self._order[0][0] < now:
            _, key, old = self._order.popleft()
            self._known.discard(old)
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
        entry = hashlib.blake2b(f"{proof.thumbprint} {proof.jti}".encode(), digest_size=16).digest()
        if entry in self._known:
            raise IdentityError(
                "replayed", "a proof was sent twice", hint="somebody may be replaying requests; a client makes a new one"
            )
        if len(self._known) >= self._limit or self._counts[proof.thumbprint] >= self._each:
            most = f"at most {self._each:,} of one key in two minutes, and {self._limit:,} in all"
            raise IdentityError("busy", "too many requests at once", expected=most, hint="ask again")
        self._known.add(entry)
        self._counts[proof.thumbprint] += 1
        self._order.append((now + 2 * leeway_s, proof.thumbprint, entry))


def new_secret() -> bytes:
    """What a server signs its tokens with: made at its start, kept in memory, so that old tokens end with it."""
    return secrets.token_bytes(SECRET_BYTES)


def proof(
    key: ec.EllipticCurvePrivateKey,
    *,
    method: str,
    url: str,
    now: float,
    token: str | None = None,
    chain: Sequence[bytes] | None = None,
) -> str:
    """A proof that the sender of this one request has the key: with its token, or, to get one, with its certificates (DER)."""
    own, public = _own(key)
    header: dict[str, Any] = {"typ": _PROOF_TYPE, "alg": "ES256", "jwk": dict(public)}
    if chain is not None:
        header["x5c"] = [base64.b64encode(each).decode() for each in chain]
    claims = _Request(secrets.token_urlsafe(12), method.upper(), _plain(url), now, None if token is None else _hash(token))
    return jws.serialize_compact(header, msgspec.json.encode(claims), own, registry=_PROOFS)


@lru_cache(2)  # a party proves the same key again and again, until it is renewed
def _own(key: ec.EllipticCurvePrivateKey) -> tuple[ECKey, dict[str, Any]]:
    """The key as proofs are signed with it, and its public part as they show it."""
    own = ECKey.import_key(key)
    return own, {name: value for name, value in own.as_dict(private=False).items() if name != "kid"}


def check_proof(text: str | None, *, method: str, url: str, now: float, leeway_s: float = LEEWAY_S) -> Proof:
    """The proof in a request's `DPoP` header, if it is for this request and of this minute. `url` is the server's own.

    Whether it is new, `Seen` says, once it is known that it is a member's.

    Raises:
        IdentityError: `no_proof`, `bad_signature`, `wrong_request`, `clock_skew`.
    """
    if not text:
        raise IdentityError("no_proof", "the request proves no key", hint=f"send the header DPoP; {_SYSTEM}")
    if len(text) > PROOF_LIMIT:
        raise IdentityError("no_proof", "the proof is too long", got=f"{len(text):,} characters", hint=_SYSTEM)
    signed = _extract(text, _PROOFS, code="no_proof")
    key, thumbprint, chain = _proof_key(signed.headers())
    _verify(signed, key, _PROOFS, "the proof is not signed by its key")
    request = _claims(signed.payload, _Request, code="no_proof")
    if len(request.jti) > NUMBER_LIMIT:  # anybody can make a key, and so a proof
        got = f"{len(request.jti):,} characters"
        raise IdentityError("no_proof", "the proof's number is too long", got=got, expected=f"at most {NUMBER_LIMIT}", hint=_SYSTEM)
    if (request.htm, request.htu) != (method.upper(), _plain(url)):
        hint = "the address in the kit and the server's own must be the same, also behind a proxy"
        wanted, got = f"{method.upper()} {_plain(url)}", f"{request.htm[:16]} {request.htu[:200]}"
        raise IdentityError("wrong_request", "the proof is for another request", expected=wanted, got=got, hint=hint)
    if not abs(now - request.iat) <= leeway_s:  # so written, nan is refused
        behind = "behind" if request.iat < now else "ahead of"
        got = f"the sender's clock is {abs(now - request.iat):.0f} s {behind} the server's"
        raise IdentityError(
            "clock_skew", "the proof is not of this minute", expected=f"at most {leeway_s:.0f} s", got=got, hint=_CLOCK
        )
    return Proof(thumbprint, chain, request.ath, request.jti)


def issue(secret: bytes, *, identity: Identity, thumbprint: str, now: float, life_s: float = TOKEN_S) -> str:
    """A token for the identity, good with the key of that thumbprint only."""
    claims = _Claims(
        sub=identity.name,
        kind=identity.kind,
        org=identity.org,
        project=identity.project,
        serial=identity.serial,
        generation=identity.generation,
        jkt=thumbprint,
        iat=now,
        exp=now + life_s,
    )
    header = {"typ": _TOKEN_TYPE, "alg": "HS256"}
    return jws.serialize_compact(header, msgspec.json.encode(claims), OctKey.import_key(secret), registry=_TOKENS)


def check_token(secret: bytes, token: str | None, proof: Proof, *, now: float) -> Identity:
    """Whom the token names, if this server issued it, it has not ended, and the proof is of its key and for it.

    Raises:
        IdentityError: `no_token`, `bad_signature`, `token_expired`, `clock_skew`, `stolen_token`.
    """
    if not token or len(token) > TOKEN_LIMIT:
        raise IdentityError("no_token", "the request has no token", hint="ask for one: POST /v1/token")
    claims = _issued(secret, token)
    if not hmac.compare_digest(claims.jkt, proof.thumbprint):
        hint = "the token was issued to another key: if that was not you, revoke the name: hansa provision revoke NAME"
        raise IdentityError("stolen_token", "the token came without its key", got=claims.sub, hint=hint)
    if proof.ath is None or not hmac.compare_digest(proof.ath, _hash(token)):
        hint = "a client signs the hash of the token that it sends"
        raise IdentityError("stolen_token", "the proof was made for another token", got=claims.sub, hint=hint)
    if now > claims.exp:
        raise IdentityError("token_expired", "the token has ended", hint="ask for a new one: POST /v1/token")
    if now < claims.iat - LEEWAY_S:
        raise IdentityError("clock_skew", "the server's clock was set back since it issued the token", hint="ask for a new token")
    return Identity(
        name=claims.sub,
        kind=claims.kind,
        org=claims.org,
        project=claims.project,
        serial=claims.serial,
        generation=claims.generation,
    )


@lru_cache(REMEMBERED)
def _issued(secret: bytes, token: str) -> _Claims:
    """What a token says, if it was signed with the secret. When it ends, and whose it is, is not looked at."""
    signed = _extract(token, _TOKENS, code="bad_signature")
    if signed.headers().get("typ") != _TOKEN_TYPE:
        raise IdentityError("bad_signature", "not a token of this system", hint="ask for one: POST /v1/token")
    _verify(signed, OctKey.import_key(secret), _TOKENS, "the token was not issued by this server since it started")
    return _claims(signed.payload, _Claims, code="bad_signature")


@lru_cache(REMEMBERED)
def _public_key(x: str, y: str) -> tuple[ECKey, str]:
    """The P-256 key of these coordinates, and its thumbprint."""
    key = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    return key, key.thumbprint()


def _proof_key(header: dict[str, Any]) -> tuple[ECKey, str, tuple[bytes, ...]]:
    """The public key in a proof's header with its thumbprint, and the certificates, whose first must be for that key."""
    jwk = header.get("jwk")
    if header.get("typ") != _PROOF_TYPE or header.get("alg") != "ES256" or not header.keys() <= {"typ", "alg", "jwk", "x5c"}:
        raise IdentityError(
            "bad_signature", "not a proof of this system", expected="typ dpop+jwt, alg ES256, jwk, x5c", hint=_SYSTEM
        )
    if not isinstance(jwk, dict) or jwk.keys() != {"kty", "crv", "x", "y"} or (jwk["kty"], jwk["crv"]) != ("EC", "P-256"):
        raise IdentityError("bad_signature", "the proof's key is not a public P-256 key", hint=_SYSTEM)
    texts = header.get("x5c", [])
    try:
        key, thumbprint = _public_key(jwk["x"], jwk["y"])
        chain = tuple(base64.b64decode(text, validate=True) for text in texts)
        leaf = x509.load_der_x509_certificate(chain[0]).public_key() if chain else key.public_key
    except (JoseError, ValueError, TypeError, binascii.Error) as error:
        raise IdentityError("bad_signature", "the proof's key or certificates cannot be read", hint=_SYSTEM) from error
    if leaf != key.public_key:
        hint = "certificate and key of the kit do not belong together: unpack the kit anew"
        raise IdentityError("bad_signature", "the proof is signed by another key than its certificate's", hint=hint)
    return key, thumbprint, chain


def _extract(text: str, registry: jws.JWSRegistry, *, code: str) -> jws.CompactSignature:
    try:
        return jws.extract_compact(text.encode(), None, registry)
    except (JoseError, ValueError, TypeError, AttributeError) as error:  # the last two: a header that is JSON, but no table
        raise IdentityError(code, "not a signed token", hint=_SYSTEM) from error


def _verify(signed: jws.CompactSignature, key: ECKey | OctKey, registry: jws.JWSRegistry, fault: str) -> None:
    try:
        good = jws.validate_compact(signed, key, registry=registry)
    except (JoseError, ValueError) as error:  # another algorithm, or a signature of another length
        raise IdentityError("bad_signature", fault, got=str(error), hint=_SYSTEM) from error
    if not good:
        raise IdentityError("bad_signature", fault, hint="ask for a new token, with the kit's own key")


def _claims(payload: bytes, kind: type[C], *, code: str) -> C:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IdentityError(code, f"what was signed cannot be read: {error}", hint=_SYSTEM) from error


def _plain(url: str) -> str:
    """An address without query and fragment, host in lower case, without the scheme's own port (RFC 9449, 4.3)."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}"


def _hash(token: str) -> str:
    """RFC 9449: base64url of the SHA-256 of the token."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
