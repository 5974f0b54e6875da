"""Whose job a bundle is: the author's signature over its manifest, checked by the server and by each site for itself."""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import check_chain
from hansa.runtime.authz.policy import Member, Policy
from hansa.runtime.manifest import Manifest

_HINT = "submit it again with the kit of its author"


def check_author(manifest: Manifest, *, ca: x509.Certificate, policy: Policy, now: float) -> Member:
    """The person who signed the bundle: certified by the project CA, a person, in the roster and not revoked.

    Raises:
        IdentityError: `unsigned`, `bad_signature`, `wrong_name`, `wrong_kind`, and what check_chain and Policy.admit say.
    """
    if not manifest.signature or not manifest.chain:
        raise IdentityError("unsigned", "the bundle is not signed by its author", got=manifest.job, hint=_HINT)
    try:
        chain = [base64.b64decode(text, validate=True) for text in manifest.chain]
        signature = base64.b64decode(manifest.signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IdentityError("bad_signature", "the author's signature cannot be read", hint=_HINT) from error
    identity = check_chain(chain, ca, now=now, name=manifest.author)
    if identity.kind != "admin":
        raise IdentityError("wrong_kind", "an author is a person", got=identity.kind, hint=_HINT)
    key = x509.load_der_x509_certificate(chain[0]).public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, manifest.signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise IdentityError("bad_signature", "the bundle was altered after its author signed it", hint=_HINT) from error
    return policy.admit(identity)
