"""Documents that the project key signs: JSON that people can read, whose exact bytes are signed (Ed25519)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.errors import IdentityError, VersionError

FORMAT: Final = 1
LIMIT: Final = 4 * 1024 * 1024  # bytes: 10,000 members take 1.5 MB

T = TypeVar("T", bound="Document")


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What every signed document begins with. A newer `format` is refused, so that nothing it says is passed over."""

    format: int = FORMAT


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    document: msgspec.Raw
    signature: str


class _Format(msgspec.Struct, frozen=True):
    format: int


def seal(document: Document, key: Ed25519PrivateKey) -> bytes:
    """The document and its signature as JSON. The signature holds for this kind of document only."""
    body = msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=1)
    signature = base64.b64encode(key.sign(_context(type(document)) + body)).decode()
    return msgspec.json.encode(_Envelope(msgspec.Raw(body), signature)) + b"\n"


def unseal(data: bytes, kind: type[T], key: bytes, *, path: str | Path | None = None) -> T:
    """The document in the bytes, signed by the project key (raw, 32 bytes). Nothing of it is read before the signature holds.

    Raises:
        IdentityError: `bad_signature`: it was altered, or signed by another project. VersionError: a newer Hansa wrote it.
    """
    where = None if path is None else str(path)
    try:
        if len(data) > LIMIT:
            raise ValueError("too long")  # caught below: no signed document, like any other bytes
        envelope = msgspec.json.decode(data, type=_Envelope)
        signature = base64.b64decode(envelope.signature, validate=True)
        body = bytes(envelope.document)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _context(kind) + body)
    except (msgspec.DecodeError, ValueError, binascii.Error, InvalidSignature) as error:
        hint = "it was altered after it was signed, or belongs to another project: ask the administrator for the file anew"
        raise IdentityError("bad_signature", f"the {_noun(kind)} is not signed by the project", path=where, hint=hint) from error
    return _decode(body, kind, where)


def new_project_key() -> Ed25519PrivateKey:
    """A key for signing documents."""
    return Ed25519PrivateKey.generate()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The public half, raw: 32 bytes."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def fingerprint(key: bytes) -> str:
    """A public key for people to compare: 16 groups of the SHA-256, four digits each."""
    digest = hashlib.sha256(key).hexdigest()
    return " ".join(digest[i : i + 4] for i in range(0, 64, 4))


def _decode(body: bytes, kind: type[T], where: str | None) -> T:
    if (version := msgspec.json.decode(body, type=_Format).format) > FORMAT:
        hint = "install a newer Hansa here; until then everything it would permit is refused"
        raise VersionError(f"the {_noun(kind)} was written by a newer Hansa", path=where, got=version, expected=FORMAT, hint=hint)
    try:
        return msgspec.json.decode(body, type=kind, strict=True)
    except msgspec.ValidationError as error:  # signed, and yet not what this version knows
        raise VersionError(f"the {_noun(kind)} cannot be read: {error}", path=where, hint="install the project's Hansa") from error


def _context(kind: type[Any]) -> bytes:
    return f"hansa {_noun(kind)} 1\n".encode()


def _noun(kind: type[Any]) -> str:
    return kind.__name__.lower()
