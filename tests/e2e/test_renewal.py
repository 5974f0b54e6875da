"""Certificates that end soon, in real processes: sites renew theirs, the server takes its new one in, and nothing stops."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cryptography import x509
from tests.e2e.agents import Agent, agents, furnish
from tests.e2e.world import Caller, make_project, serving

from hansa.files import write_atomic
from hansa.provision import ca
from hansa.provision.changes import rotate
from hansa.provision.renewals import renew
from hansa.runtime.authz.certificates import certify, identity_of, pem
from hansa.runtime.authz.renewal import ends
from hansa.runtime.config import Kit, load_kit

LIFE_S = 12.0
JOB = """
from hansa.adapters.numpy import logistic
from hansa.core.job import Job
from hansa.data import datasets
from hansa.learning.fedavg import fedavg

learner = logistic(lr=0.1, epochs=1, batch=32).bound_to(datasets.heart(), classes=2)
job = Job("hearts", fedavg(learner, rounds=40, standardise=True), data="heart")
"""


def shorten(folder: Path, kit: Kit, *, life_s: float) -> float:
    """Give the kit a certificate of its key that ends soon; when it does."""
    keys, old = ca.load_secrets(folder / "state"), kit.chain()[0]
    made = certify(kit.private_key().public_key(), identity_of(old), keys.root, now=time.time(), days=life_s / 86_400)
    write_atomic(kit.certificate, [pem(made)])
    return ends([made])


def served(kit: Kit) -> int:
    """The serial number of the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(kit.ca))
    context.load_cert_chain(kit.certificate, kit.key)
    host, _, port = kit.url.removeprefix("https://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


def typed(*args: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hansa.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=stdin)


def wait_for(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"


def test_a_run_goes_on_over_the_end_of_its_sites_certificates_and_a_new_one_of_the_server(tmp_path: Path) -> None:
    folder, names = make_project(tmp_path / "fed", ["north", "south"]), ["north", "south"]
    (tmp_path / "long.py").write_text(JOB)
    kits = {name: load_kit(folder / "kits" / name) for name in names}
    keys = {name: kit.key.read_bytes() for name, kit in kits.items()}
    lea, ada = Caller.of(folder / "kits" / "lea"), Caller.of(folder / "kits" / "ada")
    with serving(folder), ExitStack() as stack:
        old = {name: shorten(folder, kit, life_s=LIFE_S) for name, kit in kits.items()}  # due at once: dated back by 5 minutes
        started = stack.enter_context(agents(folder / "kits", names))
        run = lea.submit(f"{tmp_path / 'long.py'}:job")["run"]
        lea.wait(run, lambda event: event["kind"] == "round")
        wait_for(lambda: all(ends(kit.chain()) > old[name] + 86_400 for name, kit in kits.items()))
        assert all(kit.key.read_bytes() != keys[name] for name, kit in kits.items())
        before = served(lea.kit)
        renew(folder, now=time.time(), names=["server"])
        wait_for(lambda: served(lea.kit) != before)
        assert lea.ended(run)["state"] == "completed"
        wait_for(lambda: time.time() > max(old.values()) and bool(lea.get("/api/sites")))
        sites = lea.get("/api/sites")["sites"]
        assert all(site["online"] and 80 < (site["certificate_ends"] - time.time()) / 86_400 < 91 for site in sites)
        started["north"].kill()
        started["north"].start()
        shown = typed("site", "list", "--kit", folder / "kits" / "lea").stdout.splitlines()
        assert shown[0].endswith("certificate")
        assert shown[1].endswith(" days")
        kinds = [event["kind"] for event in ada.get("/api/audit?stream=project")["events"]]
        assert (kinds.count("site.renewed"), kinds.count("certificate.taken")) == (2, 1)
        assert 'hansa_certificate_ends_seconds{what="site_ca"}' in lea.client.get("/metrics").text
    lea.client.close()
    ada.client.close()


def test_a_site_that_was_away_for_too_long_is_told_so_and_mended_with_a_new_kit(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "fed", ["north"])
    at_site = tmp_path / "site"
    furnish(folder / "kits" / "north").rename(at_site)
    until = shorten(folder, load_kit(at_site), life_s=1.0)
    with serving(folder):
        wait_for(lambda: time.time() > until + 1)  # TLS counts whole seconds: within that one the server itself says so
        agent = Agent(at_site).start(ready=False)
        assert agent.ended() == 3
        said = agent.log.read_text()
        assert "this kit's certificate has expired" in said
        assert "hansa provision rotate" in said
        checked = typed("preflight", at_site)
        assert (checked.returncode, "--into" in checked.stdout) == (11, True)
        (made,) = rotate(folder, "north", now=time.time()).kits
        unpacked = typed("provision", "unpack", made.zip, "--into", at_site, stdin=f"{made.password}\n")
        assert unpacked.returncode == 0, unpacked.stderr
        wait_for(lambda: typed("site", "enroll", at_site).returncode == 0)  # the server takes the new roster in within seconds
        agent.start()
        key = (at_site / "key.pem").read_bytes()
        renewed = typed("site", "renew", at_site, "--keep-key")  # by hand, beside the agent
        assert renewed.returncode == 0, renewed.stderr
        assert (at_site / "key.pem").read_bytes() == key
        assert agent.stop() == 0
