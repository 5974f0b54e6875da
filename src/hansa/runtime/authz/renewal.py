"""Certificates that end: when one is renewed, how a new one takes its place in a folder, and how it is asked for. No network.

A key and its certificate are two files, and must change together. What is new is written whole into a third, RENEWED, and taken
apart from there; `settle` goes on with what was cut off. So a kit is whole whenever its process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import IdentityError
from hansa.files import storage_error, sync_folder, write_atomic
from hansa.runtime.authz.certificates import key_pem, new_key, signing_request

RENEWED: Final = "renewed.pem"  # beside the two: the new key, then the new certificate and its intermediates
RENEW_AT: Final = 2 / 3  # of a certificate's life
DAY_S: Final = 86_400.0
_LONGEST_S: Final = 3_600.0  # between looks at the clock: a machine may sleep
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


def ends(chain: Sequence[x509.Certificate]) -> float:
    """When a chain is no longer good: the first of its certificates to end, in seconds since 1970."""
    return min(each.not_valid_after_utc.timestamp() for each in chain)


def renew_at(chain: Sequence[x509.Certificate]) -> float:
    """When the leaf of a chain is to be renewed: after two thirds of its life, in seconds since 1970."""
    begins = chain[0].not_valid_before_utc.timestamp()
    return begins + RENEW_AT * (ends(chain) - begins)


def pause_s(chain: Sequence[x509.Certificate], now: float) -> float:
    """For how long nothing is to be done: until it is to be renewed; from then on, a twentieth of what is left; at most an hour."""
    wait = renew_at(chain) - now
    return min(_LONGEST_S, wait if wait > 0 else max(1.0, (ends(chain) - now) / 20))


@dataclass(frozen=True)
class Asked:
    """A signing request for a certificate of the key. `fresh`: the key is not the one that stands."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    csr: str
    fresh: bool


def ask(name: str, key: ec.EllipticCurvePrivateKey, *, keep_key: bool) -> Asked:
    """The request for a site's next certificate: for a new key, or for the one it has."""
    mine = key if keep_key else new_key()
    return Asked(mine, signing_request(mine, name), not keep_key)


def replace(key_file: Path, certificate_file: Path, asked: Asked, chain: str) -> None:
    """Put the new certificate, with its key, in the place of what stands.

    Raises:
        IdentityError: `wrong_key`: the certificate is for another key; `bad_certificate`: it is none. What stood still stands.
        StorageError: it cannot be written.
    """
    try:
        leaf = x509.load_pem_x509_certificate(chain.encode())
    except ValueError as error:
        raise IdentityError("bad_certificate", "what came is no certificate", path=str(certificate_file)) from error
    check_pair(asked.key, leaf, certificate_file)
    if not asked.fresh:
        write_atomic(certificate_file, [chain.encode()])
        return
    with _alone(key_file.parent):
        write_secret(key_file.with_name(RENEWED), key_pem(asked.key) + chain.encode())
    settle(key_file, certificate_file)


def settle(key_file: Path, certificate_file: Path) -> None:
    """Go on with a replacement that was cut off; nothing if there is none.

    Raises:
        StorageError: it cannot be read or written.
    """
    renewed = key_file.with_name(RENEWED)
    if not renewed.is_file():
        return
    with _alone(key_file.parent):
        try:
            key, begin, chain = renewed.read_bytes().partition(_BEGIN)
            write_secret(key_file, key)
            write_atomic(certificate_file, [begin + chain])
            renewed.unlink()
        except FileNotFoundError:  # another process has done it
            return
        except OSError as error:
            raise storage_error(error, renewed) from error


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process replaces a certificate here meanwhile."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, path: Path) -> None:
    """Return if the certificate is for the key.

    Raises:
        IdentityError: `wrong_key`.
    """
    if certificate.public_key() != key.public_key():
        hint = "unpack the kit anew, or ask the project's administrator for a new one"
        raise IdentityError("wrong_key", "the certificate and the key do not belong together", path=str(path), hint=hint)


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that at no moment anybody else can read, whole or not at all; durable on return.

    Raises:
        StorageError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path, size=len(data)) from error
    finally:
        part.unlink(missing_ok=True)
