"""Bundles: the same bytes for the same job, and nothing but what was built opens."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import IdentityError, InputError, JobReferenceError, VersionError
from hansa.runtime.authz.author import check_author
from hansa.runtime.authz.certificates import Identity, certify, der, make_root, new_key
from hansa.runtime.authz.policy import Member, Policy, Revoked
from hansa.runtime.jobs.build import Signer, build
from hansa.runtime.jobs.bundle import Limits, extract, open_bundle
from hansa.runtime.manifest import MANIFEST, PLAN, load_job

JOB = """
import hansa as hs
from helper import NAME

def workflow(federation):
    return None

job = hs.Job(NAME, workflow, data="rows", include=["helper.py", "extra"], requires=["numpy"], seed=5)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(JOB)
    (tmp_path / "helper.py").write_text('NAME = "mine"\n')
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "notes.txt").write_text("words")
    (tmp_path / "secret.txt").write_text("not asked for")
    return tmp_path


def test_a_bundle_holds_the_jobs_files_and_says_what_it_is(folder: Path) -> None:
    bundle = open_bundle(build(f"{folder}/mine.py:job"))
    assert sorted(bundle.files) == ["extra/notes.txt", "helper.py", "mine.py"]
    manifest = bundle.manifest
    assert (manifest.reference, manifest.job, manifest.data, manifest.seed) == ("mine.py:job", "mine", "rows", 5)
    assert manifest.requires == ["numpy"]
    assert str(bundle.plan).startswith("job mine on 'rows'")
    assert bundle.plan.requires == ["numpy"]


def test_the_scripts_of_all_learners_that_the_jobs_modules_make_travel(folder: Path) -> None:
    """A site imports the whole file: each learner looks for its script when it is made, whichever job uses it."""
    for name in ("first", "second", "third"):
        (folder / f"{name}.py").write_text("")
    (folder / "neighbour_of_two.py").write_text(
        'from hansa.adapters.script import ScriptExecutor\nTHIRD = ScriptExecutor("third.py")\n'
    )
    (folder / "two.py").write_text(TWO)
    bundle = open_bundle(build(f"{folder}/two.py:one"))
    assert sorted(bundle.files) == ["first.py", "neighbour_of_two.py", "second.py", "third.py", "two.py"]
    extract(bundle, folder / "there")
    assert load_job(folder / "there", "two.py:other").name == "other"


TWO = """
import hansa as hs
from hansa.adapters.script import ScriptLearner
from hansa.learning.fedavg import fedavg
from neighbour_of_two import THIRD

MODEL = {"w": [0.0]}
one = hs.Job("one", fedavg(ScriptLearner("first.py", init=MODEL), rounds=1), data="rows", include=["neighbour_of_two.py"])
other = hs.Job("other", fedavg(ScriptLearner("second.py", init=MODEL), rounds=1), data="rows")
"""


def test_the_same_job_gives_the_same_bytes(folder: Path) -> None:
    first = build(f"{folder}/mine.py:job")
    time.sleep(0)
    (folder / "mine.py").touch()
    assert build(f"{folder}/mine.py:job") == first


def test_an_extracted_bundle_loads_to_the_same_job(folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(build(f"{folder}/mine.py:job"))
    place = extract(bundle, tmp_path / "out" / "source")
    assert load_job(place, bundle.manifest.reference).hash == bundle.plan.hash == bundle.manifest.plan_hash
    (place / "mine.py").write_text("changed by hand")
    assert (extract(bundle, place) / "mine.py").read_text() == "changed by hand"
    assert [path.name for path in place.parent.iterdir()] == ["source"]


def test_a_package_is_bundled_whole_and_a_job_file_too(tmp_path: Path) -> None:
    package = tmp_path / "trial"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/words.py"):
        (package / name).write_text("")
    (package / "main.py").write_text("import hansa as hs\njob = hs.Job('p', print)\n")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_text("")
    bundle = open_bundle(build(f"{package}/main.py:job"))
    assert sorted(bundle.files) == ["trial/__init__.py", "trial/deep/__init__.py", "trial/deep/words.py", "trial/main.py"]
    toml = tmp_path / "job.toml"
    toml.write_text(
        '[data]\nsource="digits"\n[learner]\nkind="numpy.softmax"\nfeatures=64\nclasses=10\n[algorithm]\nname="fedavg"\nrounds=1\n'
    )
    bundle = open_bundle(build(str(toml)))
    assert (bundle.manifest.reference, sorted(bundle.files)) == ("job.toml", ["job.toml"])
    assert load_job(extract(bundle, tmp_path / "x"), "job.toml").hash == bundle.plan.hash == bundle.manifest.plan_hash


def test_what_cannot_be_bundled_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="beside the job's folder"):
        build(f"{folder}/mine.py:job", include=["/etc/hostname"])
    with pytest.raises(InputError, match="no such file to bundle"):
        build(f"{folder}/mine.py:job", include=["nowhere"])
    with pytest.raises(JobReferenceError):
        build(f"{folder}/mine.py:workflow")
    (folder / "a b.txt").write_text("")
    with pytest.raises(InputError, match="cannot be bundled"):
        build(f"{folder}/mine.py:job", include=["a b.txt"])


def archive(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            made.writestr(info, content)
    return out.getvalue()


def lying(data: bytes) -> bytes:
    """The archive with another unpacked size in its directory."""
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<I", 1) + data[at + 28 :]


HOSTILE: dict[str, Callable[[], bytes]] = {
    "not a zip": lambda: b"x" * 100,
    "nothing": lambda: b"",
    "a parent": lambda: archive(("../../evil.py", b"")),
    "absolute": lambda: archive(("/etc/evil", b"")),
    "a drive": lambda: archive(("C:\\evil", b"")),
    "a backslash": lambda: archive(("a\\b", b"")),
    "a dot folder": lambda: archive(("a/./b", b"")),
    "an empty folder name": lambda: archive(("a//b", b"")),
    "a folder": lambda: archive(("a/", b"")),
    "NUL": lambda: archive(("a.py", b"")).replace(b"a.py", b"a\x00py"),
    "a long name": lambda: archive(("a" * 300, b"")),
    "right-to-left": lambda: archive(("a\u202eyp.b", b"")),
    "deep": lambda: archive(("/".join("abcdefghijkl"), b"")),
    "named twice": lambda: archive(("a", b""), ("A", b"")),
    "a link": lambda: archive(("a", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777),
    "a device": lambda: archive(("a", b""), mode=stat.S_IFCHR | 0o666),
    "many entries": lambda: archive(*((f"f{i}", b"") for i in range(2_001))),
    "a bomb": lambda: archive(("a", bytes(10 << 20)), method=zipfile.ZIP_DEFLATED),
    "a lying size": lambda: lying(archive((MANIFEST, b"{}"))),
    "bytes behind": lambda: archive((MANIFEST, b"{}")) + b"x",
    "bytes before": lambda: b"x" + archive((MANIFEST, b"{}")),
    "cut off": lambda: archive((MANIFEST, b"{}"))[:-10],
    "another method": lambda: archive(("a", b"x" * 100), method=zipfile.ZIP_LZMA),
    "no manifest": lambda: archive(("a", b"")),
    "a deep manifest": lambda: archive((MANIFEST, b"[" * 100_000)),
    "no such file": lambda: archive((MANIFEST, b"{}")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        open_bundle(HOSTILE[name]())


def test_an_altered_file_or_an_extra_one_is_named(folder: Path) -> None:
    data = build(f"{folder}/mine.py:job")
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        files = {name: made.read(name) for name in made.namelist()}
    for changed in (
        {**files, "helper.py": b"evil"},
        {**files, "more.py": b""},
        {k: v for k, v in files.items() if k != "helper.py"},
    ):
        with pytest.raises(InputError, match="not the one of the manifest"):
            open_bundle(archive(*changed.items()))


def test_limits_are_the_callers(folder: Path) -> None:
    data = build(f"{folder}/mine.py:job")
    for limits in (Limits(packed=100), Limits(unpacked=100), Limits(entries=2)):
        with pytest.raises(InputError):
            open_bundle(data, limits=limits)


def signed(folder: Path, author: str = "lea") -> tuple[bytes, Policy, x509.Certificate]:
    root, key, now = make_root("p", now=time.time()), new_key(), time.time()
    identity = Identity(name="lea", kind="admin", org="north", project="p")
    chain = der(certify(key.public_key(), identity, root, now=now, days=1))
    data = build(f"{folder}/mine.py:job", sign=Signer(author, chain, lambda text: key.sign(text, ec.ECDSA(hashes.SHA256()))))
    policy = Policy(project="p", version=1, issued=now, members=(Member(name="lea", kind="admin", org="north", role="lead"),))
    return data, policy, root.certificate


def test_the_author_is_who_signed(folder: Path) -> None:
    data, policy, ca = signed(folder)
    manifest = open_bundle(data).manifest
    assert check_author(manifest, ca=ca, policy=policy, now=time.time()).name == "lea"
    gone = msgspec.structs.replace(policy, revoked=(Revoked(name="lea", at=0.0),))
    faults = {
        "unsigned": (msgspec.structs.replace(manifest, signature=""), policy),
        "bad_signature": (msgspec.structs.replace(manifest, plan_hash="0" * 64), policy),
        "wrong_name": (msgspec.structs.replace(manifest, author="leo"), policy),
        "revoked": (manifest, gone),
    }
    for code, (changed, roster) in faults.items():
        with pytest.raises(IdentityError) as caught:
            check_author(changed, ca=ca, policy=roster, now=time.time())
        assert caught.value.code == code


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    """The bundle with other files, packed as it was."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        files = {entry.filename: opened.read(entry) for entry in opened.infolist()}
    change(files)
    return archive(*sorted(files.items()))


def with_plan(content: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    """Another plan, with a manifest that has its hash."""

    def change(files: dict[str, bytes]) -> None:
        old = hashlib.sha256(files[PLAN]).hexdigest()
        files[PLAN] = content(files[PLAN])
        files[MANIFEST] = files[MANIFEST].replace(old.encode(), hashlib.sha256(files[PLAN]).hexdigest().encode())

    return change


def test_a_plan_that_is_not_the_signed_one_or_says_something_else_than_the_manifest_is_refused(folder: Path) -> None:
    data = build(f"{folder}/mine.py:job")
    assert open_bundle(rewritten(data, lambda files: None)).plan == open_bundle(data).plan
    with pytest.raises(InputError, match=r"not the one of the manifest; at path plan.json"):
        open_bundle(rewritten(data, lambda files: files.update({PLAN: files[PLAN].replace(b"rows", b"genomes")})))
    with pytest.raises(InputError, match="not the one of the manifest"):
        open_bundle(rewritten(data, lambda files: files.pop(PLAN)))
    with pytest.raises(InputError, match=r"something else than the manifest; at path plan.json data; expected rows; got genomes"):
        open_bundle(rewritten(data, with_plan(lambda content: content.replace(b'"rows"', b'"genomes"'))))
    with pytest.raises(VersionError, match="upgrade hansa here"):
        open_bundle(rewritten(data, with_plan(lambda content: content.replace(b'"version":1', b'"version":2,"new":0'))))
    with pytest.raises(InputError, match="written in one way"):
        open_bundle(rewritten(data, with_plan(lambda content: content + b" ")))


def test_a_file_may_not_have_the_name_of_the_bundles_own(folder: Path) -> None:
    (folder / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="the bundle's own"):
        build(f"{folder}/mine.py:job", include=["plan.json"])


def test_the_plan_is_the_same_wherever_the_file_lies_and_in_every_process(tmp_path: Path) -> None:
    program = "import sys; from hansa.runtime.manifest import load_job; from pathlib import Path\n"
    program += "sys.stdout.write(load_job(Path(sys.argv[1]), 'count.py:job').hash)"
    hashed = set()
    for seed, name in (("1", "here"), ("2", "there")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "count.py").write_text(COUNT)
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        hashed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout)
    bundle = open_bundle(build(f"{tmp_path}/here/count.py:job"))
    assert hashed == {bundle.plan.hash}
    assert "runs       count:rows(data) -> int64" in str(bundle.plan)
    assert "filter at each site: <count.Quiet object>" in str(bundle.plan)


COUNT = """
import numpy as np

import hansa as hs
from hansa.learning.once import once


class Quiet:
    def __call__(self, shareable, ctx):
        return shareable


def rows(data) -> np.int64:
    return np.int64(len(data))


job = hs.Job("count", once(rows), data="heart", filters=[Quiet()])
"""
