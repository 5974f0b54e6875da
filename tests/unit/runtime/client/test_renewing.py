"""What a server gives as a site's next certificate is looked at before it takes the place of the one that is good."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.runtime.transport.peers import Behaviour, credentials, make_kits, peer

from hansa.errors import IdentityError
from hansa.runtime.authz.certificates import Identity, certify, make_root, pem
from hansa.runtime.client.renewing import renew
from hansa.runtime.config import load_kit
from hansa.runtime.protocol.messages import Enrolled, encode
from hansa.runtime.transport.http import Connection

NORTH = Identity(name="north", kind="site", org="Uni", project="hearts")


def test_a_certificate_that_is_none_of_this_site_and_project_is_not_stored(tmp_path: Path) -> None:
    kits, how, now = make_kits(tmp_path), Behaviour(), time.time()
    kit, server = load_kit(kits / "north"), load_kit(kits / "server")
    authority, stranger, stood = server.site_ca(), make_root("hearts", now=now), kit.certificate.read_bytes()
    between = pem(authority.certificate).decode()

    def given(who: Identity = NORTH, *, days: float = 90.0, since: float = now, below: str = between) -> str:
        return pem(certify(kit.private_key().public_key(), who, authority, now=since, days=days)).decode() + below

    strange = pem(certify(kit.private_key().public_key(), NORTH, stranger, now=now, days=90.0)).decode()
    wrong = {
        "wrong_ca": strange,
        "wrong_name": given(replace(NORTH, name="south")),
        "expired": given(days=1.0, since=now - 3 * 86_400),
        "wrong_kind": given(replace(NORTH, project="lungs")),
        "bad_certificate": "-----BEGIN CERTIFICATE-----\nnothing",
    }

    async def main() -> None:
        with peer(server, how) as url:
            async with Connection(credentials(kit, url), retry=False) as connection:
                for code, chain in wrong.items():
                    how.says = [(encode(Enrolled(certificate=chain, chain="")), "identity")]
                    with pytest.raises(IdentityError) as caught:
                        await renew(kit, connection, keep_key=True)
                    assert (caught.value.code, kit.certificate.read_bytes()) == (code, stood)
                how.says = [(encode(Enrolled(certificate=given(), chain="")), "identity")]
                await renew(kit, connection, keep_key=True)
                assert kit.certificate.read_bytes() != stood

    asyncio.run(main())
