"""Trees in files: safetensors, whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hansa.codec import FILE, flat, header_length, lay_out, parse, sha256, with_empty
from hansa.core.trees import Tree
from hansa.errors import CheckpointError, SpecError
from hansa.files import storage_error, write_atomic

_EMPTY: Final = "hansa.empty"  # in a sealed file: branches without leaves
_SEAL: Final = "hansa.sha256"  # in a sealed file: the SHA-256 that the file would have without this entry


def save_tree(path: str | Path, tree: Tree, metadata: Mapping[str, str] | None = None) -> None:
    """Write a tree as a safetensors file, atomically: under the name stands the old file or the whole new one.

    Without `metadata` the file's SHA-256 is `codec.digest(tree)`; with it the file is sealed, see `encode_tree`.

    Raises:
        SpecError: as `codec.encode`. StorageError: the file cannot be written; what stood under the name still stands.
    """
    write_atomic(path, encode_tree(tree, metadata))


def load_tree(path: str | Path, *, sealed: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree in a safetensors file, its arrays writable, and the metadata it was saved with ({} when there was none).

    A seal is checked wherever there is one; `sealed` refuses a file that has none.

    Raises:
        CheckpointError: the file is not whole: truncated, a bit flipped, or not safetensors. StorageError: it cannot be read.
    """
    try:
        return decode_tree(_read(Path(path)), sealed=sealed)
    except SpecError as error:
        raise CheckpointError(f"a corrupt file: {error.message}", path=str(path), got=error.got) from error


def encode_tree(tree: Tree, metadata: Mapping[str, str] | None = None) -> list[bytes | memoryview]:
    """A file's bytes, in parts. Without `metadata` they are a function of the leaves alone; a branch without leaves is not kept.

    With it the file is sealed: it carries a digest of its whole content, which `decode_tree` checks.

    Raises:
        SpecError: as `encode`.
    """
    leaves, empty = flat(tree)
    fields: dict[str, str] = {}
    if metadata is not None:
        fields = {**metadata, _EMPTY: json.dumps(empty)}
        fields[_SEAL] = sha256(lay_out(leaves, fields, FILE))
    return lay_out(leaves, fields, FILE)


def decode_tree(data: bytes | bytearray, *, sealed: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """The tree of a file's bytes, and the metadata it was written with. A seal is checked; `sealed` refuses bytes without one.

    Raises:
        SpecError: the bytes are not whole: truncated, a bit flipped, or not safetensors.
    """
    leaves, metadata = parse(memoryview(data), FILE)
    seal = metadata.pop(_SEAL, None)
    if (sealed and seal is None) or (seal is not None and seal != sha256(lay_out(leaves, metadata, FILE))):
        raise SpecError("the content is not what was written", expected=f"sha256 {seal}" if seal else "a sealed file")
    try:
        return with_empty(leaves, msgspec.json.decode(metadata.pop(_EMPTY, "[]"), type=list[str])), metadata
    except (ValueError, RecursionError) as error:
        raise SpecError(str(error)) from error


def _read(path: Path) -> bytearray:
    """The whole file, after its header's length was checked against its size."""
    try:
        with path.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            first = file.read(8)
            header_length(first, total, FILE)
            data = bytearray(total)
            data[:8] = first
            filled = 8 + file.readinto(memoryview(data)[8:])
            return data[:filled] if filled < total else data
    except OSError as error:
        raise storage_error(error, path) from error
