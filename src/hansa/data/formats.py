"""File formats of data sets: IDX, npz, CSV, CIFAR-10 batches and packed JPEG. Each reader returns arrays or one DataError.

No reader unpickles: a file can hold numbers, never code.
"""

from __future__ import annotations

import csv as stdlib_csv
import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hansa.core.trees import Array
from hansa.data.rows import Rows
from hansa.errors import DataError, MissingExtraError

_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
_CIFAR_ROW = 1 + 3 * 32 * 32


def read_idx(path: Path) -> Array:
    """The array of an IDX file, as MNIST comes in; gzip is recognised by its first bytes.

    Raises:
        DataError: the header is not IDX, or the file is shorter or longer than its header says.
    """
    data = _bytes(path)
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError("the gzip file is damaged", path=str(path), hint="download it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise DataError(
            "not an IDX file", path=str(path), expected="two zero bytes, a type and a number of dimensions", got=data[:4].hex()
        )
    shape = tuple(int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(data[3]))
    dtype, start = np.dtype(_IDX_TYPES[data[2]]), 4 + 4 * data[3]
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        expected = f"{math.prod(shape) * dtype.itemsize} bytes for {shape}"
        raise DataError("the file is cut off or damaged", path=str(path), expected=expected, got=f"{len(data) - start} bytes")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_npz(path: Path, *names: str) -> tuple[Array, ...]:
    """The named arrays of an npz file.

    Raises:
        DataError: it is not an npz file, lacks a name, or holds Python objects.
    """
    try:
        with path.open("rb") as file:  # np.load leaves a file open that turns out not to be npz
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError("this is one array, not an npz file", path=str(path))
            for name in names:
                if name not in archive.files:
                    raise DataError(
                        "the file has no such array", path=f"{path}: {name}", expected=f"one of {', '.join(archive.files)}"
                    )
            return tuple(archive[name] for name in names)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"the file cannot be read as npz: {error}", path=str(path)) from error


def read_csv(path: Path, *, label: str, site: str | None = None) -> Rows:
    """The rows of a CSV file with a header: float32 features, the label, and the site column as text if one is named.

    Cells are numbers; an empty cell, `NA`, `NaN`, `null`, `none` or `?` is NaN, but a label is never missing. Labels that are all
    integers become int64, else float32.

    Raises:
        DataError: a cell is not a number (names line and column), a line is short or long, a column is missing or comes twice.
    """
    try:
        reader = stdlib_csv.reader(io.StringIO(_bytes(path).decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, stdlib_csv.Error) as error:
        raise DataError(f"the file cannot be read as CSV in UTF-8: {error}", path=str(path)) from error
    if len(lines) < 2:
        raise DataError("a CSV file has a header and at least one row", path=str(path), got=f"{len(lines)} lines")
    header = [name.strip() for name in lines[0][1]]
    for name in [label] if site is None else [label, site]:
        if header.count(name) != 1:
            raise DataError("the file needs this column once", path=f"{path}: {name}", got=f"columns {', '.join(header)}")
    features = [name for name in header if name not in (label, site)]
    if len(set(features)) != len(features) or not features:
        raise DataError("feature columns need names of their own, and there is at least one", path=str(path), got=", ".join(header))
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(
                "a line does not fit the header", path=f"{path}:{number}", expected=f"{len(header)} cells", got=len(cells)
            )
    columns = {name: [(number, cells[k].strip()) for number, cells in lines[1:]] for k, name in enumerate(header)}
    x = np.stack([_numbers(path, name, columns[name], hint=_text_hint(name, site)) for name in features], axis=1)
    sites = {} if site is None else {site: np.array([_present(path, site, *cell) for cell in columns[site]])}
    return Rows(x.astype(np.float32), _label(path, label, columns[label]), sites, features=tuple(features))


def read_cifar(path: Path) -> tuple[Array, Array]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int64 of a binary CIFAR-10 batch.

    Raises:
        DataError: the size is not a whole number of records, or a label is over 9.
    """
    data = _bytes(path)
    if not data or len(data) % _CIFAR_ROW:
        raise DataError(
            "not a binary CIFAR-10 batch", path=str(path), expected=f"records of {_CIFAR_ROW} bytes", got=f"{len(data)} bytes"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_ROW)
    if records[:, 0].max() > 9:
        raise DataError("a label is over 9", path=str(path), got=int(records[:, 0].max()))
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)


def decode_jpegs(path: Path, data: Array, offsets: Array) -> Array:
    """Images (n, height, width, 3) uint8 of JPEG files laid end to end; image k is data[offsets[k] : offsets[k + 1]].

    Raises:
        MissingExtraError: Pillow is not installed. DataError: an image cannot be decoded, or is of another size.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("Pillow", extra="images") from None
    images: list[Array] = []
    for k in range(len(offsets) - 1):
        try:
            with Image.open(io.BytesIO(data[offsets[k] : offsets[k + 1]].tobytes()), formats=["JPEG"]) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError) as error:
            raise DataError("an image cannot be decoded", path=f"{path}: image {k}") from error
        if images[k].shape != images[0].shape:
            raise DataError("all images have one size", path=f"{path}: image {k}", expected=images[0].shape, got=images[k].shape)
    return np.stack(images)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", path=str(path)) from error


def _numbers(path: Path, name: str, cells: list[tuple[int, str]], *, hint: str) -> Array:
    values = np.empty(len(cells))
    for k, (number, cell) in enumerate(cells):
        if cell.lower() in _MISSING:
            values[k] = np.nan
            continue
        try:
            values[k] = float(cell.replace("_", "x"))  # Python reads 1_0 as 10
        except ValueError:
            values[k] = np.inf
        if not abs(values[k]) <= np.finfo(np.float32).max:
            raise DataError("a cell is not a number", path=f"{path}:{number}, column {name}", got=repr(cell[:40]), hint=hint)
    return values


def _text_hint(name: str, site: str | None) -> str:
    """What to do about a column of text."""
    numbered = "give each category a column of 0 and 1"
    return numbered if site is not None else f'if it says where a row belongs: site = "{name}"; otherwise {numbered}'


def _label(path: Path, name: str, cells: list[tuple[int, str]]) -> Array:
    known = [(number, _present(path, name, number, cell)) for number, cell in cells]
    values = _numbers(path, name, known, hint="number the classes from 0, as no = 0 and yes = 1; other targets are numbers")
    return values.astype(np.int64) if (values == np.rint(values)).all() else values.astype(np.float32)


def _present(path: Path, name: str, number: int, cell: str) -> str:
    if cell.lower() in _MISSING:
        raise DataError("this cell may not be missing", path=f"{path}:{number}, column {name}")
    return cell
