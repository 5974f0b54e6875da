"""Shareable <-> bytes, and trees as files have them: a capped JSON header and raw leaves, in the safetensors format.

A message is one valid safetensors buffer, so any reader of the format opens a stored update. The header can name a dtype of the
list below and nothing else: no class, no code. What comes in is hostile until it is parsed; every size is checked against the
buffer before an array is made, and arrays are views of the buffer. The header lists keys sorted; the leaves behind it lie by
falling item size and then by key, so that each is aligned, and the same tree gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import ml_dtypes
import msgspec
import numpy as np

from hansa.core.task import Shareable
from hansa.core.trees import Array, Spec, Tree, unflatten
from hansa.errors import SpecError
from hansa.files import Buffer


@dataclass(frozen=True, slots=True)
class Limits:
    """What a buffer may ask of its reader, in bytes and tensors."""

    header_bytes: int
    tensors: int
    name_bytes: int = 256
    dimensions: int = 32


WIRE: Final = Limits(header_bytes=1 << 20, tensors=20_000)
# A checkpoint of one's own may hold the memory of 10,000 sites; still bounded, so that a crafted file cannot hold a reader up.
FILE: Final = Limits(header_bytes=1 << 24, tensors=250_000)

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA: Final = "__metadata__"
_ENVELOPE: Final = "hansa"  # metadata key of a message's headers and metrics

_Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


class _NotFinite(msgspec.Struct, forbid_unknown_fields=True):
    """JSON has no inf and no nan."""

    float: Literal["nan", "inf", "-inf"]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    headers: dict[str, str | bool | int | float | _NotFinite] = {}
    metrics: dict[str, float | _NotFinite] = {}
    empty: list[str] = []  # branches without leaves: they have no place among the tensors


def encode(shareable: Shareable) -> bytes:
    """The message as one buffer; the same content gives the same bytes, in whatever order its keys were put.

    >>> message = decode(encode(Shareable({"w": np.ones(2, np.float32)}, {"loss": 0.5}, {"round": 3})))
    >>> message.body["w"], message.metrics, message.headers
    (array([1., 1.], dtype=float32), {'loss': 0.5}, {'round': 3})

    Raises:
        SpecError: a leaf's dtype is not on the list, a key is empty or holds "/", or the header is over its cap.
    """
    return b"".join(encode_parts(shareable))


def encode_parts(shareable: Shareable) -> list[bytes | memoryview]:
    """The message as a list of buffers whose concatenation is `encode(shareable)`; contiguous leaves are not copied."""
    leaves, empty = flat(shareable.body)
    envelope = _Envelope(
        {name: _plain(value, name) for name, value in sorted(shareable.headers.items())},
        {name: _plain(float(value), name) for name, value in sorted(shareable.metrics.items())},
        empty,
    )
    try:
        text = msgspec.json.encode(envelope).decode()
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError("a header cannot be sent", got=str(error), expected="str, int of 64 bits, float or bool") from error
    return lay_out(leaves, {_ENVELOPE: text}, WIRE)


def decode(buffer: Buffer, expect: Spec | None = None) -> Shareable:
    """The message in a buffer. Its arrays are views: they hold the buffer, and can be written to if the buffer can.

    Raises:
        SpecError: the buffer is not a message, is over a limit, or its body does not have the leaves of `expect`; names the leaf.
    """
    leaves, metadata = parse(memoryview(buffer).cast("B"), WIRE)
    if set(metadata) - {_ENVELOPE}:
        raise SpecError("a message carries metadata that is not ours", path=min(set(metadata) - {_ENVELOPE}))
    try:
        envelope = msgspec.json.decode(metadata.get(_ENVELOPE, "{}"), type=_Envelope)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SpecError("a message's headers cannot be read", got=str(error)) from error
    body = with_empty(leaves, envelope.empty)
    if expect is not None:
        expect.check(body)
    return Shareable(
        body,
        {name: _scalar(value) for name, value in envelope.metrics.items()},
        {name: _scalar(value) for name, value in envelope.headers.items()},
    )


def digest(tree: Tree) -> str:
    """The SHA-256, in hex, of the file of a tree: of its leaves alone.

    >>> digest({"a": np.zeros(2), "b": np.ones(1)}) == digest({"b": np.ones(1), "a": np.zeros(2)})
    True
    """
    return sha256(lay_out(flat(tree)[0], {}, FILE))


def flat(tree: Tree, prefix: str = "") -> tuple[dict[str, Array], list[str]]:
    """The leaves by path in the codec's byte order, and the branches without any; both sorted."""
    leaves: dict[str, Array] = {}
    empty: list[str] = []
    for key, value in sorted(tree.items()):
        if not isinstance(key, str) or not key or "/" in key:
            raise SpecError("a key must be a non-empty string without '/'", path=f"{prefix}{key}")
        path = prefix + key
        if path == _METADATA or len(path.encode("utf-8", "replace")) > WIRE.name_bytes or not path.isprintable():
            raise SpecError(
                "a leaf's path cannot be stored", path=repr(path[:64]), expected=f"at most {WIRE.name_bytes} printable bytes"
            )
        if not isinstance(value, Mapping):
            leaves[path] = _leaf(value, path)
        elif value:
            below, hollow = flat(value, path + "/")
            leaves.update(below)
            empty += hollow
        else:
            empty.append(path)
    return leaves, sorted(empty)


def _leaf(value: object, path: str) -> Array:
    if not isinstance(value, np.ndarray | np.generic):
        raise SpecError("a leaf is not an array", path=path, got=type(value).__name__)
    little = value.dtype.newbyteorder("<")
    if little not in _NAMES:
        raise SpecError("a leaf's dtype cannot be stored", path=path, got=value.dtype, expected=", ".join(sorted(map(str, _NAMES))))
    return np.asarray(value, dtype=little, order="C")


def lay_out(leaves: Mapping[str, Array], metadata: Mapping[str, str], limits: Limits) -> list[bytes | memoryview]:
    """Header and leaves as buffers."""
    if len(leaves) > limits.tensors:
        raise SpecError("too many leaves", got=len(leaves), expected=f"at most {limits.tensors}")
    spans: dict[str, tuple[int, int]] = {}
    parts: list[bytes | memoryview] = [b""]
    start = 0
    for path in sorted(leaves, key=lambda p: (-leaves[p].dtype.itemsize, p)):
        leaf = leaves[path]
        spans[path] = (start, start + leaf.nbytes)
        start += leaf.nbytes
        parts.append(leaf.reshape(-1).view(np.uint8).data)
    header: dict[str, object] = {_METADATA: dict(metadata)} if metadata else {}
    for path in sorted(leaves):
        leaf = leaves[path]
        header[path] = {"dtype": _NAMES[leaf.dtype], "shape": leaf.shape, "data_offsets": spans[path]}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)  # so that the first leaf is aligned
    if len(text) > limits.header_bytes:
        raise SpecError("the header is too large", got=f"{len(text):,} bytes", expected=f"at most {limits.header_bytes:,}")
    parts[0] = struct.pack("<Q", len(text)) + text
    return parts


def parse(data: memoryview, limits: Limits) -> tuple[dict[str, Array], dict[str, str]]:
    """Leaves as views of a hostile buffer, sorted by path, and its metadata."""
    start = 8 + header_length(data[:8], len(data), limits)
    metadata, entries = _header(bytes(data[8:start]), limits)
    leaves: dict[str, Array] = {}
    cursor, body = 0, data[start:]
    for path, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        dtype = _DTYPES[entry.dtype]
        # Python's integers: a product of int64 would wrap around
        if begin != cursor or end > len(body) or end - begin != math.prod(entry.shape) * dtype.itemsize:
            raise SpecError(
                "a leaf's place in the buffer is wrong", path=path, got=f"{entry.dtype}{list(entry.shape)} at {begin}-{end}"
            )
        view = np.frombuffer(body[begin:end], dtype=dtype).reshape(entry.shape)
        if dtype.kind == "b" and view.size and int(view.view(np.uint8).max()) > 1:
            raise SpecError("a boolean is neither 0 nor 1", path=path)
        leaves[path] = view if view.flags.aligned else view.copy()
        cursor = end
    if cursor != len(body):
        raise SpecError("the buffer does not end with its last leaf", got=f"{len(body)} bytes", expected=f"{cursor} bytes")
    return dict(sorted(leaves.items())), metadata


def header_length(first: Buffer, total: int, limits: Limits) -> int:
    """The header's bytes, from a buffer's first eight and its size; raises SpecError if that cannot be."""
    if len(first) < 8:
        raise SpecError("the buffer is cut off", got=f"{len(first)} bytes")
    length = int(struct.unpack("<Q", first)[0])
    if length > min(limits.header_bytes, total - 8):
        raise SpecError("the header's length is wrong", got=length, expected=f"at most {min(limits.header_bytes, total - 8):,}")
    return length


def _header(text: bytes, limits: Limits) -> tuple[dict[str, str], dict[str, _Entry]]:
    try:
        # json, not msgspec: it alone shows duplicate keys
        raw = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(raw, dict):
            raise SpecError("the header is not an object")
        if len(raw) > limits.tensors + 1:
            raise SpecError("too many leaves", got=len(raw), expected=f"at most {limits.tensors}")
        metadata = msgspec.convert(raw.pop(_METADATA, {}), dict[str, str])
        entries = msgspec.convert(raw, dict[str, _Entry])
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError and ValidationError are ValueErrors
        raise SpecError("the header cannot be read", got=str(error)) from error
    for path, entry in entries.items():
        if len(path.encode("utf-8", "replace")) > limits.name_bytes or not path.isprintable():
            raise SpecError(
                "a leaf's path is not allowed", path=repr(path[:64]), expected=f"at most {limits.name_bytes} printable bytes"
            )
        if entry.dtype not in _DTYPES:
            raise SpecError("a leaf's dtype is not allowed", path=path, got=entry.dtype[:32], expected=", ".join(_DTYPES))
        sizes = [size for size in entry.shape if size]
        if len(entry.shape) > limits.dimensions or math.prod(sizes) >= 1 << 60:
            raise SpecError("a leaf's shape is too large", path=path, got=f"{len(entry.shape)} dimensions")
    return metadata, entries


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SpecError("the header names a key twice")
    return found


def with_empty(leaves: Mapping[str, Array], empty: Sequence[str]) -> dict[str, Any]:
    # an empty branch must be a place of its own: unflatten refuses one that is also a leaf or holds leaves
    hollow: dict[str, Any] = {path: {} for path in empty}
    if len(hollow) != len(empty) or hollow.keys() & leaves.keys() or len(empty) > FILE.tensors:
        raise SpecError("a branch is named twice")
    return unflatten({**leaves, **hollow})


def _plain(value: object, name: str) -> Any:
    """A scalar as JSON can hold it."""
    if type(value) is float and not math.isfinite(value):
        return _NotFinite("nan" if math.isnan(value) else "inf" if value > 0 else "-inf")
    if type(value) in {str, int, bool, float}:
        return value
    raise SpecError("a header is not a plain scalar", path=name, got=type(value).__name__, expected="str, int, float or bool")


def _scalar(value: Any) -> Any:
    return float(value.float) if isinstance(value, _NotFinite) else value


def sha256(parts: Iterable[Buffer]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
