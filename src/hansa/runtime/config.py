"""What a server, site or person is started from: its kit, and a site's own site.toml."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import ConfigError, IdentityError, InputError
from hansa.files import storage_error, write_atomic
from hansa.runtime.authz.certificates import Authority, check_chain, der, key_pem, new_key, read_key
from hansa.runtime.authz.enrolment import Tickets
from hansa.runtime.authz.policy import Role
from hansa.runtime.authz.renewal import RENEWED, check_pair, settle, write_secret
from hansa.runtime.authz.signed import Document, unseal
from hansa.runtime.toml import read_toml

KIT_FILE: Final = "kit.toml"
SITE_FILE: Final = "site.toml"
POLICY_FILE: Final = "policy.json"
MANIFEST_FILE: Final = "manifest.json"
TICKETS_FILE: Final = "tickets.json"
EVENTS_FILE: Final = "events.sqlite"  # in a server's data folder
PROJECT_KEY_FILE: Final = "project.pub"
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "certificate.pem", "key.pem"
FRONT_CA_FILE: Final = "front-ca.pem"
SITE_CA_FILE, SITE_CA_KEY_FILE = "site-ca.pem", "site-ca.key"
BOOTSTRAP_FILE, BOOTSTRAP_KEY_FILE, TOKEN_FILE = "bootstrap.pem", "bootstrap.key", "token"
PROXY_LOGIN_FILE: Final = "proxy.login"  # its owner's, as site.toml is
SECRET_FILES: Final = (KEY_FILE, SITE_CA_KEY_FILE, BOOTSTRAP_KEY_FILE, TOKEN_FILE, RENEWED, PROXY_LOGIN_FILE)
_ANEW: Final = "unpack the kit anew, or ask the project's administrator for a new one"

Trust = Literal["project", "front", "system"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Hours = Annotated[str, msgspec.Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$")]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a server listens, and where its data are: a folder, relative to the kit. `tls` is off behind a proxy on the machine.

    `sandbox` encloses the processes of runs, which execute authors' code; what cannot be had keeps the server from starting.
    `low_water` is the part of the disk that stays free. The process of a run has `run_memory_mb` at most (0: three quarters of the
    machine's), and writes no file of more than `run_file_mb`.
    """

    host: str = "0.0.0.0"  # noqa: S104  a server of a federation is for others
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8443
    data: str = "data"
    tls: bool = True
    sandbox: Literal["strict", "basic", "off"] = "strict"
    low_water: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    run_memory_mb: Count = 0
    run_file_mb: Positive = 65_536
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0


class KitFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """kit.toml as it stands."""

    kind: Literal["server", "site", "admin"]
    name: str
    org: str
    project: str
    url: str
    direct: bool = True
    trust: Trust = "project"
    role: Role | None = None
    server: ServerSettings | None = None


class Manifest(Document, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The SHA-256 of each file that a kit comes with and that nobody is to change."""

    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A start-up kit that is whole: its files are those that provisioning wrote.

    `direct` says that no proxy ends TLS between the two sides: the server then asks for the certificate in the handshake as well.
    `trust` says whose certificate is believed at the server's address: the project CA's, the front's own CA's, which comes with
    the kit, or any that this machine knows. Whom the other parties' certificates name, the project CA alone says.
    `project_key` (Ed25519, raw) signs the policy and the manifest. Keys stay in their files until they are asked for.
    """

    kind: Literal["server", "site", "admin"]
    name: str
    org: str
    role: Role | None
    project: str
    url: str
    direct: bool
    trust: Trust
    folder: Path
    policy: bytes
    project_key: bytes
    server: ServerSettings | None = None

    @property
    def ca(self) -> Path:
        """The project CA: who is to be believed."""
        return self.folder / CA_FILE

    @property
    def trusted(self) -> Path | None:
        """The CA of what answers at the server's address; None: any that this machine knows."""
        return {"project": self.ca, "front": self.folder / FRONT_CA_FILE, "system": None}[self.trust]

    @property
    def certificate(self) -> Path:
        """The certificate, then its intermediates."""
        return self.folder / CERTIFICATE_FILE

    @property
    def key(self) -> Path:
        """The private key of the certificate."""
        return self.folder / KEY_FILE

    @property
    def enrolled(self) -> bool:
        """Whether the kit has its own certificate; a site's kit gets it by `hansa site enroll`."""
        return self.certificate.is_file() and self.key.is_file()

    @property
    def data(self) -> Path:
        """The server's data folder."""
        return self.folder / (self.server or ServerSettings()).data

    def ca_certificate(self) -> x509.Certificate:
        """The project CA."""
        return _certificates(self.ca)[0]

    def chain(self) -> list[x509.Certificate]:
        """The kit's certificate, then its intermediates."""
        return _certificates(self.certificate)

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the certificate."""
        return _private_key(self.key)

    def proxy_login(self) -> str:
        """NAME:PASSWORD for the proxy on the way to the server; "" without one."""
        path = self.folder / PROXY_LOGIN_FILE
        return _read(path).decode(errors="replace").strip() if path.is_file() else ""

    def bootstrap(self) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate], str]:
        """What a site enrols with: the bootstrap key, its certificate, and the one-time token.

        Raises:
            InputError: the kit has none: its key came with it, or it was enrolled.
        """
        if not (self.folder / TOKEN_FILE).is_file():
            hint = (
                "nothing to do: start it" if self.enrolled else "ask the administrator for a new kit: hansa provision rotate NAME"
            )
            raise InputError("the kit holds no one-time token", path=str(self.folder), hint=hint)
        token = _read(self.folder / TOKEN_FILE).decode(errors="replace").strip()
        return _private_key(self.folder / BOOTSTRAP_KEY_FILE), _certificates(self.folder / BOOTSTRAP_FILE), token

    def site_ca(self) -> Authority:
        """The server's CA for sites' certificates.

        Raises:
            IdentityError: `tampered`: the project's CA did not make it. `wrong_key`: it has another key.
        """
        path = self.folder / SITE_CA_FILE
        certificate, key = _certificates(path)[0], _private_key(self.folder / SITE_CA_KEY_FILE)
        try:
            certificate.verify_directly_issued_by(self.ca_certificate())
        except (ValueError, TypeError, InvalidSignature) as error:
            raise IdentityError("tampered", "not a CA of this project", path=str(path), hint=_ANEW) from error
        check_pair(key, certificate, path)
        return Authority(certificate, key)

    def tickets(self) -> Tickets:
        """The server's tickets, as provisioning signed them; read anew when the file changes.

        Raises:
            IdentityError: `bad_signature`.
        """
        path = self.folder / TICKETS_FILE
        return unseal(_read(path), Tickets, self.project_key, path=path)


def load_kit(folder: str | Path) -> Kit:
    """The kit in a folder, every file of it compared with the signed manifest.

    Raises:
        InputError: no kit; a file is missing; a secret can be read by others. ConfigError: kit.toml is wrong.
        IdentityError: `tampered`: names the file. `bad_signature`: the manifest itself was altered. `wrong_key`: certificate and
            key do not belong together.
    """
    place = Path(folder)
    if not (place / KIT_FILE).is_file():
        hint = "name the folder that holds kit.toml; unpack a .zip first: hansa provision unpack KIT.zip"
        raise InputError("no start-up kit", path=str(place), hint=hint)
    project_key = _read(place / PROJECT_KEY_FILE).strip()
    key = _hex_key(project_key, place / PROJECT_KEY_FILE)
    manifest = unseal(_read(place / MANIFEST_FILE), Manifest, key, path=place / MANIFEST_FILE)
    for name, digest in manifest.files.items():
        if Path(name).name != name or hashlib.sha256(_read(place / name)).hexdigest() != digest:
            raise IdentityError("tampered", "a file of the kit was altered", path=str(place / name), hint=_ANEW)
    for name in SECRET_FILES:
        _check_private(place / name)
    settle(place / KEY_FILE, place / CERTIFICATE_FILE)
    content = read_toml(place / KIT_FILE, KitFile)
    kit = Kit(
        kind=content.kind,
        name=content.name,
        org=content.org,
        role=content.role,
        project=content.project,
        url=content.url.rstrip("/"),
        direct=content.direct,
        trust=content.trust,
        folder=place,
        policy=_read(place / POLICY_FILE),
        project_key=key,
        server=content.server,
    )
    if kit.enrolled:
        check_pair(kit.private_key(), kit.chain()[0], kit.certificate)
    if kit.kind == "server":
        kit.site_ca()  # not in the manifest: it is renewed, and signed by the project's CA itself
    return kit


def site_key(kit: Kit) -> ec.EllipticCurvePrivateKey:
    """The key made at this site; made and stored now if there is none.

    It is on disk before anything is asked with it, so that an enrolment that was cut off goes on with the key it began with.
    """
    if not kit.key.is_file():
        write_secret(kit.key, key_pem(new_key()))
    return kit.private_key()


def check_given(kit: Kit, chain: str, *, now: float) -> None:
    """Return if the PEM is a site's certificate for the kit's name, good at the time `now`, with the project's CA behind it.

    Raises:
        IdentityError: it is not: what stands is not to be replaced by it.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError as error:
        raise IdentityError("bad_certificate", "what the server gave is no certificate", path=str(kit.certificate)) from error
    found = check_chain(der(*certificates), kit.ca_certificate(), now=now, name=kit.name)
    if (found.kind, found.project) != (kit.kind, kit.project):
        got, expected = f"{found.kind} of {found.project}", f"{kit.kind} of {kit.project}"
        raise IdentityError("wrong_kind", "the certificate is for something else", got=got, expected=expected)


def save_certificate(kit: Kit, pem: str, *, now: float) -> None:
    """Store the certificate for the kit's key; what it was enrolled with is then of no use, and removed.

    Raises:
        IdentityError: `wrong_key`: the certificate is for another key; what stood still stands.
    """
    check_pair(kit.private_key(), x509.load_pem_x509_certificate(pem.encode()), kit.certificate)
    check_given(kit, pem, now=now)
    write_atomic(kit.certificate, [pem.encode()])
    for name in (TOKEN_FILE, BOOTSTRAP_KEY_FILE):
        (kit.folder / name).unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("a file of the kit is missing", path=str(path), hint=_ANEW) from None
    except OSError as error:
        raise storage_error(error, path) from error


def _hex_key(text: bytes, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise IdentityError("tampered", "not a project key", path=str(path), expected="64 hexadecimal digits", hint=_ANEW)
    return key


def _check_private(path: Path) -> None:
    if path.is_file() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        raise InputError("others can read a secret", path=str(path), got=f"mode {mode:03o}", hint=f"chmod 600 {path}")


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    _check_private(path)
    return read_key(_read(path), path=str(path))


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise InputError("not a certificate in PEM", path=str(path), hint=_ANEW) from error


class Resources(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs may take of the machine. 0 cores: all of them; 0 memory: no limit of ours."""

    cores: Count = 0
    gpus: Count = 0
    memory_mb: Count = 0


class Publish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site says of its data before any job: their types, made by its own loaders; with `rows`, also how many there are."""

    types: bool = True
    rows: bool = False


class SitePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a site permits. Without a [policy] table, and without authors or code in it, no job runs: each must be named.

    A job's author must be in `authors` or belong to one of `orgs`; the SHA-256 of its code must be in `code`, unless that is "any".
    `kinds` says what may leave; `hours` (local time, "22:00-06:00") when work is done; `approval` by hand asks a person first;
    `traceback`: whether the author sees where their code failed here; `models`: whether the site wants the models of ended runs, or
    in which folder (else in the kit's state/models); `filters` are put on every reply by the site itself, after the job's own:
    `{kind = "clip", norm = 1.0}`; `local_models`: whether this site's own model may be asked for, and so reach the other sites;
    `collect`: whether a job may take this site's values as they are, where its plan says that nobody aggregates them.
    """

    authors: Literal["any"] | tuple[str, ...] = ()
    orgs: Literal["any"] | tuple[str, ...] = ()
    projects: Literal["any"] | tuple[str, ...] = "any"  # a kit belongs to one project anyway
    code: Literal["any"] | tuple[Hash, ...] = ()
    min_cohort: Positive = 2
    max_upload_mb: Positive = 4096
    kinds: tuple[Literal["arrays", "metrics", "logs"], ...] = ("arrays", "metrics")
    hours: Hours | None = None
    approval: Literal["auto", "by_hand"] = "auto"
    traceback: bool = False
    models: bool | str = True
    local_models: bool = False
    collect: bool = False
    filters: tuple[dict[str, str | float | bool | list[str]], ...] = ()

    @property
    def demands(self) -> list[str]:
        """What the policy asks of every job, in words for its author: filters, the smallest cohort, what may leave, approval."""
        said = [f"filter {' '.join(f'{name}={value}' for name, value in each.items())}" for each in self.filters]
        said += [f"min_cohort {self.min_cohort}", f"leaves {', '.join(self.kinds) or 'nothing'}, at most {self.max_upload_mb} MB"]
        said += ["approval by hand"] * (self.approval == "by_hand") + [f"hours {self.hours}"] * (self.hours is not None)
        return [each[:200] for each in said[:64]]

    def open_at(self, minute: int) -> bool:
        """Whether work is done at that minute of the day, 0 to 1439; the end of `hours` is outside."""
        if self.hours is None:
            return True
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in self.hours.split("-"))
        return begin <= minute < end if begin <= end else minute >= begin or minute < end


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """site.toml. `environments` leads from a label to a virtual environment.

    `data` leads from a label to "file.py:function", or to a file or folder that a job's code is to read by itself: "/srv/images".

    `proxy` is that on the way to the server, as "http://proxy.example.org:3128"; "": what HTTPS_PROXY says; "none": no proxy.
    """

    proxy: str = ""
    data: dict[str, str] = {}
    environments: dict[str, str] = {}
    resources: Resources = Resources()
    sandbox: Literal["strict", "basic", "off"] = "basic"
    publish: Publish = Publish()
    policy: SitePolicy = SitePolicy()


def load_site(kit: Kit) -> SiteConfig:
    """The site's own settings, beside kit.toml. Relative names in it are relative to the kit's folder.

    Raises:
        ConfigError: it is missing (closed: a site without a policy runs nothing); a key is unknown or wrong, with its path.
    """
    path = kit.folder / SITE_FILE
    config = read_toml(path, SiteConfig)
    for label, reference in config.data.items():
        file, _, function = reference.rpartition(":")
        if not is_place(reference) and not (file and function):
            expected = 'file.py:function, or a path that begins with "/" or "./"'
            raise ConfigError("not a reference", path=f"$.data.{label}", got=repr(reference), expected=expected)
    return config


def is_place(reference: str) -> bool:
    """Whether what a label leads to is a file or folder, not a function that loads."""
    return reference.startswith(("/", "./", "../")) and ".py:" not in reference
