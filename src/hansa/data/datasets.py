"""Sources: each function returns one data set by the name that a job file gives, pooled or with its natural sites.

`folder` is where data lies that is too large to come along: the folder that a user names with `--data`. A relative `path` is
looked for there, or in the working directory when no folder is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from hansa.core.trees import Array
from hansa.data.federated import FederatedRows
from hansa.data.formats import decode_jpegs, read_cifar, read_csv, read_idx, read_npz
from hansa.data.rows import SPLIT, Rows, Split, check_split, divide
from hansa.errors import DataError, MissingExtraError

_CATEGORICAL = ("cp", "restecg", "slope", "thal")
_ZERO_IS_MISSING = ("chol", "trestbps")  # nobody alive has a blood pressure or a cholesterol of 0: UCI's 0 is "not measured"
_DIGITS = tuple(str(digit) for digit in range(10))
_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def heart() -> Rows:
    """920 patients of four hospitals: x (920, 22) float32 with NaN for what was not measured, y 1 for heart disease else 0.

    The column `site` names the hospital: Cleveland 303, Hungary 294, Switzerland 123, VA Long Beach 200 rows. Chest pain (cp),
    resting ECG, slope and thal are one-hot, all NaN where missing; a cholesterol or blood pressure of 0 is NaN. No download.

    A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano (1989), Heart Disease, UCI Machine Learning Repository,
    https://doi.org/10.24432/C52P4X, CC BY 4.0; here recoded as said above.

    >>> rows = heart()
    >>> rows.x.shape, sorted(set(rows.columns["site"].tolist()))
    ((920, 22), ['Cleveland', 'Hungary', 'Switzerland', 'VA Long Beach'])
    """
    with resources.as_file(resources.files("hansa.data") / "heart.npz") as path:
        values, names, site, sites, *categories = read_npz(path, "values", "names", "site", "sites", *_CATEGORICAL)
    table = {str(name): values[:, k] for k, name in enumerate(names)}
    known = dict(zip(_CATEGORICAL, categories, strict=True))
    x: dict[str, Array] = {}
    for name, column in table.items():
        if name in known:
            for code, category in enumerate(known[name]):
                x[f"{name}={category}"] = np.where(np.isnan(column), np.nan, column == code)
        elif name != "num":
            x[name] = np.where(column == 0, np.nan, column) if name in _ZERO_IS_MISSING else column
    y = (table["num"] > 0).astype(np.int64)
    stacked = np.stack(list(x.values()), axis=1).astype(np.float32)
    return Rows(stacked, y, {"site": sites[site]}, features=tuple(x), classes=("healthy", "disease"))


def digits() -> Rows:
    """1,797 handwritten digits of scikit-learn: x (1797, 8, 8) float32 from 0 to 1, y the digit. No download.

    E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, https://doi.org/10.24432/C50P49 (its test set).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn has no stubs
    except ImportError:
        raise MissingExtraError("scikit-learn", extra="sklearn") from None
    data = load_digits()
    return Rows(data.images.astype(np.float32) / 16, data.target.astype(np.int64), classes=_DIGITS)


def mnist(*, folder: str | Path | None = None) -> Rows:
    """Handwritten digits: x (n, 28, 28) float32 from 0 to 1, y the digit; `part("test")` is MNIST's own test set.

    Looked for in `folder`: `mnist_full.npz` or `mnist.npz` (x_train, y_train, x_test, y_test), or the four IDX files,
    gzipped or not, there or in `mnist`, `MNIST` or `MNIST/raw`. LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist.

    Raises:
        DataError: no such file is there, or one is damaged.
    """
    where = ["mnist", "MNIST", "MNIST/raw"]
    if not _named_fashion(folder):
        where.append("")
    return _grey("MNIST", folder, npz=["mnist_full.npz", "mnist.npz"], where=where, url=_MNIST_URL, classes=_DIGITS)


def fashion_mnist(*, folder: str | Path | None = None) -> Rows:
    """Pictures of clothes: x (n, 28, 28) float32 from 0 to 1, y from 0 to 9; `part("test")` is the set's own test set.

    Looked for in `folder`: `fashion_mnist_12k.npz`, `fashion_mnist.npz` or `fashion-mnist.npz`, or the four IDX files in `fashion`,
    `fashion_mnist`, `fashion-mnist`, `FashionMNIST` or `FashionMNIST/raw`. Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.

    Raises:
        DataError: no such file is there, or one is damaged.
    """
    npz = ["fashion_mnist.npz", "fashion-mnist.npz", "fashion_mnist_12k.npz"]
    where = ["fashion", "fashion_mnist", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw"]
    if _named_fashion(folder):
        where.append("")
    return _grey("Fashion-MNIST", folder, npz=npz, where=where, url=_FASHION_URL, classes=_CLOTHES)


def cifar10(*, folder: str | Path | None = None) -> Rows:
    """Colour pictures of ten things: x (n, 32, 32, 3) float32 from 0 to 1, y from 0 to 9; `part("test")` is the set's own test set.

    Looked for in `folder`: the binary version (`data_batch_1.bin` to `_5.bin`, `test_batch.bin`, there or in
    `cifar-10-batches-bin`), `cifar10.npz` (x_train, y_train, x_test, y_test), or `cifar10_12k_jpeg.npz`, a subset as JPEG.
    Krizhevsky 2009, "Learning multiple layers of features from tiny images".

    Raises:
        DataError: no such file is there, or one is damaged; also when only the pickled Python version is there, which could run
            code when read. MissingExtraError: the JPEG subset is there and Pillow is not installed.
    """
    base = data_folder(folder)
    for place in (base / "cifar-10-batches-bin", base):
        if (place / "test_batch.bin").exists():
            batches = [read_cifar(data_file(place / f"data_batch_{k}.bin", _CIFAR_URL)) for k in range(1, 6)]
            test = read_cifar(place / "test_batch.bin")
            train = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
            return _images(place, train[0], train[1], *test, classes=_OBJECTS)
    if (path := base / "cifar10.npz").exists():
        return _images(path, *read_npz(path, "x_train", "y_train", "x_test", "y_test"), classes=_OBJECTS)
    if (path := base / "cifar10_12k_jpeg.npz").exists():
        names = ("train", "train_off", "y_train", "test", "test_off", "y_test")
        train_bytes, train_at, y_train, test_bytes, test_at, y_test = read_npz(path, *names)
        decoded = decode_jpegs(path, train_bytes, train_at), decode_jpegs(path, test_bytes, test_at)
        return _images(path, decoded[0], y_train, decoded[1], y_test, classes=_OBJECTS)
    if (base / "cifar-10-batches-py").exists() or (base / "data_batch_1").exists():
        raise DataError(
            "these are pickled Python batches, which could run code when read",
            path=str(base),
            expected="the binary version",
            hint=_CIFAR_URL,
        )
    raise _absent("CIFAR-10", base, ["cifar-10-batches-bin", "cifar10.npz", "cifar10_12k_jpeg.npz"], _CIFAR_URL)


def idx(*, images: str, labels: str, folder: str | Path | None = None) -> Rows:
    """The rows of a pair of IDX files: x float32, bytes scaled to 0..1 and other numbers as they are; y int64.

    Raises:
        DataError: a file is missing or damaged, or they differ in length.
    """
    x, y = read_idx(_locate(images, folder)), read_idx(_locate(labels, folder))
    return Rows(_scaled(x) if x.dtype == np.uint8 else x.astype(np.float32), y.astype(np.int64))


def npz(*, path: str, x: str = "x", y: str = "y", site: str | None = None, folder: str | Path | None = None) -> Rows:
    """The arrays called `x` and `y` of an npz file, as they are stored; `site` names an array with each row's site.

    Raises:
        DataError: the file is missing, lacks an array or holds Python objects, or the arrays differ in length.
    """
    return _read_npz(_locate(path, folder), x=x, y=y, site=site)


def csv(*, path: str, label: str, site: str | None = None, folder: str | Path | None = None) -> Rows:
    """The rows of a CSV file with a header and numeric columns: x (n, columns) float32, missing cells NaN; y the column `label`.

    `site` names a column of text that says where a row belongs; it becomes a column for `partition.column(by=site)`.

    Raises:
        DataError: the file is missing; a cell is not a number (names line and column); a line does not fit the header.
    """
    return read_csv(_locate(path, folder), label=label, site=site)


def folder(
    *,
    path: str,
    label: str = "label",
    x: str = "x",
    y: str = "y",
    folder: str | Path | None = None,
    split: Split = SPLIT,
    seed: int = 0,
) -> FederatedRows:
    """A site for each folder in `path`, sorted by name, with one CSV or npz file each, read when the site is loaded.

    `label` is the label column of the CSV files, `x` and `y` the arrays of the npz files; each site is divided by `split`.

    Raises:
        DataError: there is no folder in `path`, or a site has no file or several; when loading, what the file's reader says.
    """
    base = _locate(path, folder)
    if not base.is_dir():
        raise DataError("not a folder", path=str(base), expected="a folder with one folder a site")
    places = sorted(place for place in base.iterdir() if place.is_dir() and not place.name.startswith("."))
    if not places:
        raise DataError("there is no site", path=str(base), expected="a folder for each site, with one .csv or .npz file")
    files = tuple(_only_file(place) for place in places)
    return FederatedRows([place.name for place in places], _Files(files, label, x, y, check_split(split), seed))


_MNIST_URL = (
    "people get mnist.npz from https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz; name its folder with --data"
)
_FASHION_URL = "people get the four files from https://github.com/zalandoresearch/fashion-mnist; name their folder with --data"
_CIFAR_URL = (
    "people get the binary version from https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz; unpack it in the --data folder"
)


@dataclass(frozen=True, slots=True)
class _Files:
    paths: tuple[Path, ...]
    label: str
    x: str
    y: str
    split: Split
    seed: int

    def __call__(self, slot: int) -> Rows:
        path = self.paths[slot]
        rows = read_csv(path, label=self.label) if path.suffix == ".csv" else _read_npz(path, x=self.x, y=self.y, site=None)
        return divide(rows, split=self.split, seed=self.seed, slot=slot)


def _read_npz(path: Path, *, x: str, y: str, site: str | None) -> Rows:
    arrays = read_npz(path, x, y, *([] if site is None else [site]))
    try:
        return Rows(arrays[0], arrays[1], {} if site is None else {site: arrays[2]})
    except DataError as error:
        raise DataError(error.message, path=f"{path}: {error.path}", expected=error.expected, got=error.got) from error


def _grey(name: str, folder: str | Path | None, *, npz: list[str], where: list[str], url: str, classes: Sequence[str]) -> Rows:
    base = data_folder(folder)
    for path in (base / file for file in npz):
        if path.exists():
            return _images(path, *read_npz(path, "x_train", "y_train", "x_test", "y_test"), classes=classes)
    for place in (base / part for part in where):
        found = [_idx_file(place, f"{kind}-{what}") for kind in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
        paths = [path for path in found if path is not None]
        if len(paths) == len(found):
            return _images(place, *(read_idx(path) for path in paths), classes=classes)
        if paths:
            raise DataError(f"{name} has four IDX files", path=str(place), got=", ".join(path.name for path in paths), hint=url)
    raise _absent(name, base, [*npz, *(f"{part or '.'}/train-images-idx3-ubyte[.gz]" for part in where)], url)


def _named_fashion(folder: str | Path | None) -> bool:
    """Whether IDX files that lie in the folder itself are Fashion-MNIST's: MNIST's have the same names."""
    return "fashion" in data_folder(folder).resolve().name.lower()


def _idx_file(place: Path, stem: str) -> Path | None:
    names = [f"{form}-ubyte{end}" for form in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
    return next((place / name for name in names if (place / name).exists()), None)


def _images(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array, *, classes: Sequence[str]) -> Rows:
    for x, y in ((x_train, y_train), (x_test, y_test)):
        if x.dtype != np.uint8 or x.ndim < 3 or len(x) != y.size or x.shape[1:] != x_train.shape[1:]:
            got = f"{x.dtype}{list(x.shape)} with {y.size} labels"
            raise DataError("not the images of this data set", path=str(path), expected="one label for each uint8 image", got=got)
    parts = np.repeat(np.array([0, 2], np.int8), [len(x_train), len(x_test)])
    labels = np.concatenate([y_train.ravel(), y_test.ravel()]).astype(np.int64)
    return Rows(_scaled(x_train, x_test), labels, parts=parts, classes=tuple(classes))


def _scaled(*images: Array) -> Array:
    """All images after each other as float32 from 0 to 1, with one array of memory: MNIST's is 220 MB."""
    out = np.empty((sum(len(some) for some in images), *images[0].shape[1:]), np.float32)
    start = 0
    for some in images:
        np.divide(some, np.float32(255), out=out[start : start + len(some)], dtype=np.float32)
        start += len(some)
    return out


def data_folder(folder: str | Path | None) -> Path:
    """The folder of larger data that a user names, else where the program runs."""
    base = Path(folder) if folder is not None else Path.cwd()
    if not base.is_dir():
        raise DataError("there is no such folder", path=str(base), hint="name the folder of your data with --data")
    return base


def _locate(path: str, folder: str | Path | None) -> Path:
    return data_file(
        data_folder(folder if not Path(path).is_absolute() else None) / path,
        "a relative path starts at the --data folder, else here",
    )


def data_file(path: Path, hint: str) -> Path:
    """The path of a file that is there; `hint` says where people get it."""
    if not path.exists():
        raise DataError("there is no such file", path=str(path), hint=hint)
    return path


def _absent(name: str, base: Path, looked: Sequence[str], url: str) -> DataError:
    return DataError(f"{name} is not there", path=str(base), expected=f"one of {', '.join(looked)}", hint=url)


def _only_file(place: Path) -> Path:
    files = sorted(path for path in place.iterdir() if path.suffix in (".csv", ".npz"))
    if len(files) != 1:
        raise DataError(
            "a site has one .csv or .npz file", site=place.name, path=str(place), got=", ".join(f.name for f in files) or "none"
        )
    return files[0]
