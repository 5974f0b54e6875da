"""Readers of data files: small files made here, whole and damaged."""

from __future__ import annotations

import builtins
import gzip
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hansa.data.formats import decode_jpegs, read_cifar, read_csv, read_idx, read_npz
from hansa.errors import DataError, MissingExtraError

IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]) + bytes([1, 2, 3, 4, 5, 6])


def test_an_idx_file_is_read_gzipped_or_not(tmp_path: Path) -> None:
    for data in (IMAGES, gzip.compress(IMAGES, mtime=0)):
        (tmp_path / "images").write_bytes(data)
        assert read_idx(tmp_path / "images").tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_wide_idx_numbers_are_big_endian(tmp_path: Path) -> None:
    (tmp_path / "wide").write_bytes(bytes([0, 0, 11, 1, 0, 0, 0, 1, 1, 2]))
    read = read_idx(tmp_path / "wide")
    assert read.tolist() == [258]
    assert read.dtype == np.int16


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (b"<html>", "not an IDX file"),
        (IMAGES[:3], "not an IDX file"),
        (IMAGES[:-1], "cut off or damaged; at .*expected 6 bytes for .2, 1, 3.; got 5 bytes"),
        (IMAGES + b"x", "cut off or damaged"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "cut off or damaged"),
        (gzip.compress(IMAGES, mtime=0)[:-9], "gzip file is damaged"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "images").write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(tmp_path / "images")
    assert caught.value.path == str(tmp_path / "images")


def test_an_npz_file_gives_its_arrays_and_refuses_what_it_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones(3))
    assert read_npz(tmp_path / "a.npz", "x")[0].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"a.npz: z; expected one of x, y"):
        read_npz(tmp_path / "a.npz", "z")


def test_an_npz_file_with_python_objects_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_npz(tmp_path / "a.npz", "x")


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", x=np.arange(300))
    np.save(tmp_path / "one.npy", np.arange(3))
    whole = (tmp_path / "whole.npz").read_bytes()
    for data in (b"", b"text", whole[:200], (tmp_path / "one.npy").read_bytes()):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(DataError, match="npz"):
            read_npz(tmp_path / "a.npz", "x")


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return tmp_path / "t.csv"


def test_a_csv_file_gives_features_label_and_site(tmp_path: Path) -> None:
    rows = read_csv(
        table(tmp_path, "\ufeffage, site,bp,sick\n60,north,120.5,1\n\n50,south,,0\n40,north,NA,1\n"), label="sick", site="site"
    )
    assert rows.features == ("age", "bp")
    assert rows.x.dtype == np.float32
    np.testing.assert_array_equal(rows.x, np.array([[60, 120.5], [50, np.nan], [40, np.nan]], np.float32))
    assert rows.y.tolist() == [1, 0, 1]
    assert rows.y.dtype == np.int64
    assert rows.columns["site"].tolist() == ["north", "south", "north"]


def test_a_label_with_fractions_is_a_target(tmp_path: Path) -> None:
    assert read_csv(table(tmp_path, "a,y\n1,0.5\n2,1\n"), label="y").y.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,y\n1,0\n2,1\nthree,0\n", r"not a number; at path .*t.csv:4, column a; got 'three'"),
        ("a,y\n1_0,0\n", "not a number"),
        ("a,y\ninf,0\n", "not a number"),
        ("a,y\n1e300,0\n", "not a number"),
        ("a,y\n1,\n", r"may not be missing; at path .*t.csv:2, column y"),
        ("a,y\n1,0\n2\n", r"does not fit the header; at path .*t.csv:3; expected 2 cells; got 1"),
        ("a,b\n1,0\n", r"needs this column once; at path .*t.csv: y"),
        ("a,y,y\n1,0,0\n", "needs this column once"),
        ("a,a,y\n1,0,0\n", "names of their own"),
        ("y\n1\n", "at least one"),
        ("a,y\n", "at least one row"),
        ("", "at least one row"),
        ('a,y\n"1,0\n', "cannot be read as CSV"),
    ],
)
def test_a_csv_file_that_is_wrong_says_where(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_csv(table(tmp_path, text), label="y")


def test_a_csv_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_csv(tmp_path / "t.csv", label="y")


def test_a_file_that_is_a_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_csv(tmp_path, label="y")


def test_a_cifar_batch_holds_a_label_and_three_planes(tmp_path: Path) -> None:
    record = np.zeros(3073, np.uint8)
    record[0], record[1], record[1 + 1024], record[2 + 2048] = 7, 10, 20, 30
    (tmp_path / "b.bin").write_bytes(record.tobytes() * 2)
    x, y = read_cifar(tmp_path / "b.bin")
    assert x.shape == (2, 32, 32, 3)
    assert x[1, 0, 0].tolist() == [10, 20, 0]
    assert x[1, 0, 1].tolist() == [0, 0, 30]
    assert y.tolist() == [7, 7]


@pytest.mark.parametrize(("data", "says"), [(b"", "records of 3073"), (b"x" * 3072, "records of 3073"), (b"\x0a" * 3073, "over 9")])
def test_a_damaged_cifar_batch_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "b.bin").write_bytes(data)
    with pytest.raises(DataError, match=says):
        read_cifar(tmp_path / "b.bin")


def jpeg(size: tuple[int, int]) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    image.new("RGB", size, (200, 0, 0)).save(out, format="JPEG")
    return out.getvalue()


def packed(*images: bytes) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint8]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    ends = np.cumsum([0, *(len(image) for image in images)], dtype=np.int64)
    return np.frombuffer(b"".join(images), np.uint8), ends


def test_packed_jpegs_are_decoded() -> None:
    images = decode_jpegs(Path("a.npz"), *packed(jpeg((4, 2)), jpeg((4, 2))))
    assert images.shape == (2, 2, 4, 3)
    assert abs(int(images[1, 0, 0, 0]) - 200) < 5


def test_a_jpeg_that_is_damaged_or_of_another_size_is_named() -> None:
    with pytest.raises(DataError, match=r"cannot be decoded; at path a.npz: image 1"):
        decode_jpegs(Path("a.npz"), *packed(jpeg((4, 2)), b"no image"))
    with pytest.raises(DataError, match=r"one size; at path a.npz: image 1"):
        decode_jpegs(Path("a.npz"), *packed(jpeg((4, 2)), jpeg((2, 4))))


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> ModuleType:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest, **named)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"hansa\[images\]"):
        decode_jpegs(Path("a.npz"), np.zeros(0, np.uint8), np.zeros(1, np.int64))


def test_text_where_a_number_belongs_is_told_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("hospital,a,label\nnorth,1,yes\n")
    with pytest.raises(DataError, match='site = "hospital"'):
        read_csv(path, label="label")
    with pytest.raises(DataError, match="no = 0 and yes = 1"):
        read_csv(path, label="label", site="hospital")
