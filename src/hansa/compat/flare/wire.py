"""FLARE's messages as ours: nested containers of arrays, numbers and text. Anything else is refused by name; there is no pickle.

The content is one msgpack document, in which an array is its place in a list; the arrays lie beside it as leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec
import numpy as np

from hansa import codec
from hansa.compat.flare.apis.dxo import DXO
from hansa.compat.flare.apis.shareable import Shareable
from hansa.core import task as core
from hansa.core.trees import Array
from hansa.errors import SpecError

_ARRAY, _SCALAR, _TUPLE, _SHAREABLE, _DXO = range(1, 6)
_CONTENT, _ARRAYS = "content", "arrays"
_WHOLE: Final = 1 << 63
_DEPTH: Final = 64


class Copies:
    """Copies of arrays, of which those that go to several sites unchanged are made once."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Array, Array]] = {}

    def of(self, array: Array) -> Array:
        """A copy of the array as it is now."""
        _, made = self._made.get(id(array), (array, None))
        if made is None or made.shape != array.shape or made.dtype != array.dtype or not _same(made, array):
            made = np.array(array)
            self._made[id(array)] = array, made  # the array, too: its id is its own for as long as it is held
        return made


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits."""
    if not other.flags.c_contiguous:
        return False
    return bool(np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)))


def pack(value: object, headers: Mapping[str, core.Header] | None = None, *, copy: Copies | None = None) -> core.Shareable:
    """The value as a message of ours, with plain headers beside it. With `copy`, later changes of its arrays do not reach it.

    Raises:
        SpecError: something in it is no array, number, text or container of them; names its path and type.
    """
    arrays: list[Array] = []
    content = msgspec.msgpack.encode(_plain(value, "", arrays, 0))
    kept = {str(place): each if copy is None else copy.of(each) for place, each in enumerate(arrays)}
    body: dict[str, Any] = {_CONTENT: np.frombuffer(content, np.uint8), _ARRAYS: kept}
    return core.Shareable(body, headers=headers or {})


def unpack(message: core.Shareable) -> Any:
    """The value in a message. Its arrays are the caller's to change; each stands in one place, so that nothing is multiplied.

    Raises:
        SpecError: it is no such message.
    """
    content, arrays = message.body.get(_CONTENT), message.body.get(_ARRAYS)
    if not isinstance(content, np.ndarray) or not isinstance(arrays, Mapping):
        raise SpecError("not a message of a FLARE app", got=sorted(message.body), expected=f"{_CONTENT} and {_ARRAYS}")
    return _read(content.tobytes(), dict(arrays))


def to_bytes(value: object) -> bytes:
    """The value as bytes, by our own codec.

    Raises:
        SpecError: something in it cannot be sent; names its path and type.
    """
    return codec.encode(pack(value))


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` wrote.

    Raises:
        SpecError: it wrote no such thing.
    """
    return unpack(codec.decode(data))


def _plain(value: Any, path: str, arrays: list[Array], depth: int) -> Any:
    if depth > _DEPTH:
        raise SpecError("containers lie too deep in each other", path=path, expected=f"at most {_DEPTH}")
    if value is None or type(value) in (bool, float, str, bytes):
        return value
    if isinstance(value, Enum) and isinstance(value, str):
        return str(value.value)
    if isinstance(value, int) and -_WHOLE <= value < _WHOLE:
        return int(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        arrays.append(np.asarray(value))
        place = str(len(arrays) - 1).encode()
        return msgspec.msgpack.Ext(_ARRAY if isinstance(value, np.ndarray) else _SCALAR, place)
    inner: Callable[[object, object], Any] = lambda each, key: _plain(each, f"{path}/{key}", arrays, depth + 1)  # noqa: E731
    if isinstance(value, DXO):
        return _nested(_DXO, [inner(getattr(value, name), name) for name in ("data_kind", "data", "meta")])
    if isinstance(value, Mapping):
        made = {_key(key, path): inner(each, key) for key, each in value.items()}
        return _nested(_SHAREABLE, made) if isinstance(value, Shareable) else made
    if isinstance(value, list | tuple):
        items = [inner(each, place) for place, each in enumerate(value)]
        return items if isinstance(value, list) else _nested(_TUPLE, items)
    hint = "tensor.detach().cpu().numpy()" if type(value).__module__.partition(".")[0] == "torch" else None
    kinds = "arrays of numbers, numbers, text, and lists, tuples and dicts of them"
    got = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise SpecError("this cannot be sent", path=path.lstrip("/") or None, got=got, expected=kinds, hint=hint)


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key.value) if isinstance(key, Enum) else key
    raise SpecError("this key cannot be sent", path=path.lstrip("/") or None, got=type(key).__name__, expected="text, or a number")


def _nested(code: int, value: object) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(value))


def _read(content: bytes, arrays: dict[str, Any], depth: int = 0) -> Any:
    """The value in the bytes; the arrays that it has are taken out of `arrays`."""
    if depth > _DEPTH:
        raise SpecError("containers lie too deep in each other", expected=f"at most {_DEPTH}")

    def special(code: int, data: memoryview) -> Any:
        if code in (_ARRAY, _SCALAR):
            array = np.asarray(arrays.pop(bytes(data).decode()))
            if code == _SCALAR:
                return array[()]
            return array if array.flags.writeable else array.copy()
        value = _read(bytes(data), arrays, depth + 1)
        return _special(code, value)

    try:
        return msgspec.msgpack.Decoder(ext_hook=special, strict=False).decode(content)
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise SpecError("not a message of a FLARE app", got=str(error)) from error


def _special(code: int, value: Any) -> Any:
    if code == _TUPLE:
        return tuple(value)
    if code == _SHAREABLE:
        made = Shareable()
        made.update(value)
        return made
    if code == _DXO:
        kind, data, meta = value
        return DXO(kind, data, meta)
    raise SpecError("not a message of a FLARE app", got=f"extension {code}")
