"""Sources: embedded, from scikit-learn, and from a folder that the user names."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hansa.core.trees import Array
from hansa.data import datasets, partition
from hansa.data.federated import Rows
from hansa.errors import DataError, MissingExtraError


def test_heart_has_four_hospitals_with_their_published_counts() -> None:
    rows = datasets.heart()
    hospitals = partition.column(rows, split=(1, 0, 0))
    counts = {name: (len(hospitals.load(k)), int(hospitals.load(k).y.sum())) for k, name in enumerate(hospitals.sites)}
    assert counts == {"Cleveland": (303, 139), "Hungary": (294, 106), "Switzerland": (123, 115), "VA Long Beach": (200, 149)}


def test_heart_keeps_what_is_missing_as_nan() -> None:
    rows = datasets.heart()
    place = {name: k for k, name in enumerate(rows.features)}
    assert rows.x.shape == (920, 22)
    assert rows.x.dtype == np.float32
    swiss = rows.columns["site"] == "Switzerland"
    assert np.isnan(rows.x[swiss, place["chol"]]).all()  # 0 in the file: not measured
    assert np.isnan(rows.x[:, place["chol"]]).sum() == 30 + 172
    assert np.isnan(rows.x[:, place["trestbps"]]).sum() == 59 + 1
    assert not np.isinf(rows.x).any()


def test_heart_categories_are_one_hot_or_missing_together() -> None:
    rows = datasets.heart()
    for name, width, missing in (("cp", 4, 0), ("restecg", 3, 2), ("slope", 3, 309), ("thal", 3, 486)):
        block = rows.x[:, [k for k, feature in enumerate(rows.features) if feature.startswith(f"{name}=")]]
        absent = np.isnan(block).any(axis=1)
        assert block.shape[1] == width
        assert absent.sum() == missing
        assert np.isnan(block[absent]).all()
        assert (block[~absent].sum(axis=1) == 1).all()


def test_digits_are_scaled_images() -> None:
    pytest.importorskip("sklearn")
    rows = datasets.digits()
    assert rows.x.shape == (1797, 8, 8)
    assert rows.x.dtype == np.float32
    assert (float(rows.x.min()), float(rows.x.max())) == (0.0, 1.0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"hansa\[sklearn\]"):
        datasets.digits()


def idx_bytes(array: Array) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def grey(count: int, value: int) -> Array:
    return np.full((count, 28, 28), value, np.uint8)


def write_idx(place: Path, *, value: int = 255, end: str = "", dot: str = "-") -> None:
    place.mkdir(parents=True, exist_ok=True)
    for kind, count in (("train", 3), ("t10k", 2)):
        for name, array in ((f"images{dot}idx3", grey(count, value)), (f"labels{dot}idx1", np.arange(count, dtype=np.uint8))):
            data = idx_bytes(array)
            (place / f"{kind}-{name}-ubyte{end}").write_bytes(gzip.compress(data) if end else data)


def check_grey(rows: Rows, value: float = 1.0) -> None:
    assert rows.x.shape == (5, 28, 28)
    assert rows.x.dtype == np.float32
    assert float(rows.x.max()) == pytest.approx(value)
    assert rows.part("train").y.tolist() == [0, 1, 2]
    assert rows.part("test").y.tolist() == [0, 1]


@pytest.mark.parametrize(("place", "end", "dot"), [("", "", "-"), ("MNIST/raw", ".gz", "-"), ("mnist", "", ".")])
def test_mnist_is_read_from_idx_files_with_its_own_test_set(tmp_path: Path, place: str, end: str, dot: str) -> None:
    write_idx(tmp_path / place, end=end, dot=dot)
    check_grey(datasets.mnist(folder=tmp_path))


@pytest.mark.parametrize("name", ["mnist.npz", "mnist_full.npz"])
def test_mnist_is_read_from_npz(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / name, x_train=grey(3, 51), y_train=np.arange(3), x_test=grey(2, 51), y_test=np.arange(2))
    check_grey(datasets.mnist(folder=tmp_path), 0.2)


def test_mnist_and_fashion_mnist_are_never_taken_for_each_other(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_idx(data, value=255)
    with pytest.raises(DataError, match="Fashion-MNIST is not there"):
        datasets.fashion_mnist(folder=data)
    write_idx(data / "fashion-mnist", value=51)
    check_grey(datasets.fashion_mnist(folder=data), 0.2)
    check_grey(datasets.fashion_mnist(folder=data / "fashion-mnist"), 0.2)
    with pytest.raises(DataError, match="MNIST is not there"):
        datasets.mnist(folder=data / "fashion-mnist")


@pytest.mark.parametrize("source", [datasets.mnist, datasets.fashion_mnist, datasets.cifar10])
def test_data_that_is_not_there_says_where_it_was_looked_for_and_where_people_get_it(
    tmp_path: Path, source: Callable[..., Rows]
) -> None:
    with pytest.raises(DataError, match=r"is not there; at path .*expected one of .*people get .*https://") as caught:
        source(folder=tmp_path)
    assert caught.value.path == str(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        source(folder=tmp_path / "nowhere")


def test_three_of_four_idx_files_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="MNIST has four IDX files"):
        datasets.mnist(folder=tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=grey(3, 1), y_train=np.arange(2), x_test=grey(2, 1), y_test=np.arange(2))
    with pytest.raises(DataError, match=r"uint8\[3, 28, 28\] with 2 labels"):
        datasets.mnist(folder=tmp_path)


def test_cifar10_is_read_from_its_binary_batches(tmp_path: Path) -> None:
    place = tmp_path / "cifar-10-batches-bin"
    place.mkdir()
    for k, name in enumerate(["test_batch", *(f"data_batch_{n}" for n in range(1, 6))]):
        (place / f"{name}.bin").write_bytes(bytes([k]) + bytes([255]) * 3072)
    rows = datasets.cifar10(folder=tmp_path)
    assert rows.x.shape == (6, 32, 32, 3)
    assert rows.part("train").y.tolist() == [1, 2, 3, 4, 5]
    assert rows.part("test").y.tolist() == [0]
    (place / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4.bin"):
        datasets.cifar10(folder=tmp_path)


def test_cifar10_is_read_from_npz_with_labels_in_a_column(tmp_path: Path) -> None:
    x = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10.npz", x_train=x, y_train=np.array([[1], [2]]), x_test=x[:1], y_test=np.array([[3]]))
    assert datasets.cifar10(folder=tmp_path).y.tolist() == [1, 2, 3]


def test_pickled_cifar10_batches_are_refused_and_the_binary_version_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"could run code when read.*cifar-10-binary.tar.gz"):
        datasets.cifar10(folder=tmp_path)


def test_a_pair_of_idx_files_is_scaled(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(idx_bytes(grey(2, 51)))
    (tmp_path / "y.idx").write_bytes(idx_bytes(np.array([3, 4], np.uint8)))
    rows = datasets.idx(images="x.idx", labels="y.idx", folder=tmp_path)
    assert float(rows.x[0, 0, 0]) == pytest.approx(0.2)
    assert rows.y.tolist() == [3, 4]


def test_npz_arrays_come_as_they_are_stored_with_their_site(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.arange(4).reshape(2, 2), target=np.array([0.5, 1]), ward=np.array(["n", "s"]))
    rows = datasets.npz(path=str(tmp_path / "a.npz"), x="features", y="target", site="ward")
    assert rows.x.tolist() == [[0, 1], [2, 3]]
    assert list(partition.column(rows, by="ward").sites) == ["n", "s"]
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 1)), y=np.zeros(3))
    with pytest.raises(DataError, match=r"b.npz: y; expected 2 rows"):
        datasets.npz(path="b.npz", folder=tmp_path)


def test_a_relative_path_starts_at_the_folder_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("a,y\n1,0\n")
    assert len(datasets.csv(path="t.csv", label="y", folder=tmp_path)) == 1
    monkeypatch.chdir(tmp_path)
    assert len(datasets.csv(path="t.csv", label="y")) == 1
    with pytest.raises(DataError, match=r"no such file; at path .*u.csv .*--data folder"):
        datasets.csv(path="u.csv", label="y")


def test_a_folder_of_sites_reads_a_file_when_its_site_is_loaded(tmp_path: Path) -> None:
    for name, text in (("south", "a,label\n1,0\n2,1\n"), ("north", "broken")):
        (tmp_path / "sites" / name).mkdir(parents=True)
        (tmp_path / "sites" / name / "rows.csv").write_text(text)
    (tmp_path / "sites" / "west").mkdir()
    np.savez(tmp_path / "sites" / "west" / "rows.npz", x=np.zeros((3, 1)), y=np.zeros(3))
    federated = datasets.folder(path="sites", folder=tmp_path, split=(1, 0, 0))
    assert list(federated.sites) == ["north", "south", "west"]
    assert len(federated.load(1)) == 2
    assert len(federated.load(2)) == 3
    with pytest.raises(DataError, match="north"):
        federated.load(0)


def test_a_folder_without_sites_or_with_two_files_in_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no site"):
        datasets.folder(path=".", folder=tmp_path)
    (tmp_path / "north").mkdir()
    with pytest.raises(DataError, match=r"site 'north'.*got none"):
        datasets.folder(path=".", folder=tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / "north" / name).write_text("a,label\n1,0\n")
    with pytest.raises(DataError, match=r"got a.csv, b.csv"):
        datasets.folder(path=".", folder=tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        datasets.folder(path="north/a.csv", folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "shape", "held"),
    [(datasets.mnist, (28, 28), 10000), (datasets.fashion_mnist, (28, 28), 2000), (datasets.cifar10, (32, 32, 3), 2000)],
)
def test_the_real_files_are_read(source: Callable[..., Rows], shape: tuple[int, ...], held: int) -> None:
    place = os.environ.get("HANSA_DATA")
    if not place:
        pytest.skip("HANSA_DATA names no folder with the larger data")
    rows = source(folder=place)
    assert rows.x.shape[1:] == shape
    assert len(rows.part("test")) == held
    assert (float(rows.x.min()), float(rows.x.max())) == (0.0, 1.0)
    assert len(np.unique(rows.y)) == 10
