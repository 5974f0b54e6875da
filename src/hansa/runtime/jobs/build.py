"""A bundle is made: the user's code with the manifest that its author signs, as `runtime.jobs.bundle` opens it."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import sys
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from hansa.core.executor import Executor
from hansa.core.job import Job
from hansa.errors import InputError
from hansa.references import load_reference
from hansa.runtime.manifest import ENTRIES, MANIFEST, NAME, PACKED, PLAN, Manifest, load_job

_LEFT_OUT: Final = {"__pycache__", "runs"}


@dataclass(frozen=True)
class Signer:
    """Who signs: the name, the certificates (DER, leaf first), and the key's signature over bytes (ECDSA P-256, SHA-256, DER)."""

    author: str
    chain: Sequence[bytes]
    sign: Callable[[bytes], bytes] = field(repr=False)


def build(reference: str, include: Iterable[str | Path] = (), *, sign: Signer | None = None) -> bytes:
    """The bundle of the job that `reference` names: its file or package folder, with `include` and what the job includes.

    Raises:
        JobReferenceError: the reference leads to no job. InputError: a file cannot be bundled, or all is too large.
    """
    root, own, within = _sources(reference)
    job = load_job(root, within)
    paths = {*own, *(path for each in (*include, *job.include) for path in _below((root / each).resolve()))}
    made = [*job.workers, *_made_in(paths)]
    paths |= {path for each in made for file in getattr(each, "files", ()) for path in _below((root / file).resolve())}
    files = {_relative(path, root): path.read_bytes() for path in sorted(paths)}
    if own_names := sorted(files.keys() & {MANIFEST, PLAN}):
        raise InputError("the name of a file is the bundle's own", path=own_names[0], hint="call it something else")
    plan = job.document
    manifest = Manifest(
        reference=within,
        job=job.name,
        data=job.data,
        seed=job.seed or 0,
        plan_hash=plan.hash,
        requires=sorted(job.requires),
        progress_s=job.progress_s,
        environment=job.environment,
        cores=job.resources.cores,
        gpus=job.resources.gpus,
        memory_mb=job.resources.memory_mb,
        files={path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    )
    if sign is not None:
        chain = [base64.b64encode(each).decode() for each in sign.chain]
        manifest = msgspec.structs.replace(manifest, author=sign.author, chain=chain)
        manifest = msgspec.structs.replace(manifest, signature=base64.b64encode(sign.sign(manifest.signed)).decode())
    return _pack({MANIFEST: msgspec.json.encode(manifest, order="deterministic"), PLAN: plan.content, **files})


def read_job(reference: str) -> Job:
    """The job that `reference` names, as `build` would bundle it.

    Raises:
        JobReferenceError: the reference leads to no job.
    """
    root, _, within = _sources(reference)
    return load_job(root, within)


def _sources(reference: str) -> tuple[Path, list[Path], str]:
    """The folder that a bundle's paths are relative to, the job's own files, and the reference as the bundle has it."""
    place, _, name = reference.rpartition(":")
    if reference.endswith(".json"):  # an app is its folder, under its name
        path = Path(reference).resolve()
        app = path.parent.parent if path.parent.name == "config" else path.parent
        return app.parent, _below(app), path.relative_to(app.parent).as_posix()
    if reference.endswith(".toml") or place.endswith(".py"):
        path = Path(place or reference).resolve()
        root = next(folder for folder in path.parents if not (folder / "__init__.py").exists())
        own = [path] if root == path.parent else _below(root / path.relative_to(root).parts[0])
        return root, own, path.relative_to(root).as_posix() + (f":{name}" if place else "")
    load_reference(reference)
    top = sys.modules[place.partition(".")[0]]
    if top.__name__ == "hansa":
        return Path.cwd(), [], reference
    file = Path(str(top.__file__))
    return (file.parent.parent, _below(file.parent), reference) if hasattr(top, "__path__") else (file.parent, [file], reference)


def _made_in(paths: Collection[Path]) -> Iterator[object]:
    """The learners and executors that the modules of these files have made when they were imported: a site imports them as well."""
    for module in list(sys.modules.values()):
        if (file := getattr(module, "__file__", None)) and Path(file) in paths:
            for each in list(vars(module).values()):
                if isinstance(each, Job):
                    yield from each.workers
                elif isinstance(each, Executor) or (not isinstance(each, type) and callable(getattr(each, "fit", None))):
                    yield each


def _below(path: Path) -> list[Path]:
    """The file itself, or all files below the folder but hidden ones and what Python makes."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError("no such file to bundle", path=str(path))
    kept = [each for each in sorted(path.iterdir()) if each.name not in _LEFT_OUT and not each.name.startswith(".")]
    return [file for each in kept for file in _below(each)]


def _relative(path: Path, root: Path) -> str:
    if not path.is_relative_to(root):
        raise InputError("a file beside the job's folder cannot be bundled", path=str(path), expected=f"below {root}")
    return path.relative_to(root).as_posix()


def _pack(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip: entries sorted, stored, of one fixed time, so that the same files give the same bytes."""
    if bad := [name for name in files if not NAME.fullmatch(name)]:
        raise InputError("a file's name cannot be bundled", path=bad[0], expected="letters, digits, . _ - and /, at most 200")
    if len(files) > ENTRIES or (total := sum(map(len, files.values()))) > PACKED:
        got = f"{len(files):,} files" if len(files) > ENTRIES else f"{total:,} bytes"
        raise InputError("too much for one bundle", got=got, expected=f"at most {ENTRIES:,} files and {PACKED:,} bytes")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, files[name])
    return out.getvalue()
