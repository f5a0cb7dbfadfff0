"""Data sets, and the readers of the files they come in.

====================================  ==========================================================
`load_digits`, `load_iris`            carried by scikit-learn: no network needed
`load_mnist`, `load_fashion_mnist`    from ``FASTMLP_DATA``, else the cache, else downloaded
`read_idx`, `read_table`              one IDX file; a CSV or npz file of the user's own
====================================  ==========================================================

A file may come from a stranger: the sizes it states are checked against the bytes that are there
before memory is taken for them, and reading it runs no code (no pickle).
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import itertools
import math
import os
import struct
import sys
import zipfile
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fastmlp import config
from fastmlp.serialization import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Dataset",
    "load_digits",
    "load_fashion_mnist",
    "load_iris",
    "load_mnist",
    "read_idx",
    "read_table",
]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A training set and a held-out test set.

    Attributes
    ----------
    name : str
    X_train, X_test : ndarray, shape (n, n_features)
    y_train, y_test : ndarray of int64, shape (n,)
        Class labels: indices into `target_names`.
    feature_names : tuple of str, length n_features
    target_names : tuple of str, length n_classes
    """

    name: str
    X_train: NDArray[Any]
    y_train: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]

    def __repr__(self) -> str:
        arrays = {name: getattr(self, name) for name in ("X_train", "y_train", "X_test", "y_test")}
        shown = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in arrays.items())
        return f"Dataset({self.name}: {shown}, {len(self.target_names)} classes)"


# --- Carried by scikit-learn ----------------------------------------------------------------------


def load_digits(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1797 handwritten digits of 8x8 pixels, 10 classes.

    Parameters
    ----------
    test_fraction : float, default 0.2
        Share of the samples that is held out, the same in every class.
    seed : int, default 0
        Of the split.

    Returns
    -------
    Dataset
        X float32 (n, 64) in [0, 1]: the published 0..16, divided by 16.

    Raises
    ------
    ValueError
        `test_fraction` leaves one side without a sample of every class.

    References
    ----------
    https://archive.ics.uci.edu/dataset/80, its test part.
    """
    from sklearn import datasets

    return _split("digits", datasets.load_digits(), 16.0, test_fraction, seed)


def load_iris(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """150 iris flowers, 3 classes: length and width of sepal and petal.

    Parameters and errors as `load_digits`.

    Returns
    -------
    Dataset
        X float32 (n, 4) in cm.

    References
    ----------
    R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936.
    """
    from sklearn import datasets

    return _split("iris", datasets.load_iris(), 1.0, test_fraction, seed)


def _split(name: str, bunch: Any, unit: float, test_fraction: float, seed: int) -> Dataset:
    from sklearn.model_selection import train_test_split

    X = (bunch.data / unit).astype(np.float32)
    y = bunch.target.astype(np.int64)
    least = len(bunch.target_names) / len(y)  # a sample of every class
    if not least <= test_fraction <= 1 - least:
        raise ValueError(
            f"test_fraction: expected from {least:.3g} to {1 - least:.3g}, got {test_fraction}"
        )
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=test_fraction, random_state=seed, stratify=y
    )
    feature_names = tuple(map(str, bunch.feature_names))
    target_names = tuple(map(str, bunch.target_names))
    return Dataset(name, X_train, y_train, X_test, y_test, feature_names, target_names)


# --- MNIST and Fashion-MNIST ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """Four IDX files: where they are published, and the SHA-256 of each ``.gz`` there."""

    target_names: tuple[str, ...]
    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]


_FILES = {
    "X_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "X_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
# The sums are those which TensorFlow Datasets pins:
# https://github.com/tensorflow/datasets/tree/master/tensorflow_datasets/url_checksums
_PUBLISHED = {
    "mnist": _Published(
        target_names=tuple("0123456789"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256={
            "X_train": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "y_train": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "X_test": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "y_test": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion_mnist": _Published(
        target_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        sha256={
            "X_train": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "y_train": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "X_test": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "y_test": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
}
_IMAGE_SHAPE = (28, 28)
_TIMEOUT = 30.0  # seconds that a mirror may stay silent


def load_mnist() -> Dataset:
    """70,000 handwritten digits of 28x28 pixels, 10 classes.

    Each of the four files is taken from the first place that has it: the folder
    ``FASTMLP_DATA/mnist`` (official names, raw or ``.gz``), the user's cache folder, one of two
    mirrors. A download enters the cache once its SHA-256 is right. What gzip unpacked stays in the
    cache too, for later starts.

    Returns
    -------
    Dataset
        X uint8 (60000, 784) and (10000, 784), C-contiguous, an image row after row: 0 is
        background, 255 is ink.

    Raises
    ------
    OSError
        A file is nowhere on this computer and no mirror gave it; the message says what to do.
    ValueError
        A file does not hold 28x28 images, or labels 0..9.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", 1998.
    """
    return _load_published("mnist")


def load_fashion_mnist() -> Dataset:
    """70,000 grey pictures of clothing of 28x28 pixels, 10 classes.

    The folder is ``FASTMLP_DATA/fashion_mnist``; everything else as `load_mnist`.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", 2017, https://github.com/zalandoresearch/fashion-mnist.
    """
    return _load_published("fashion_mnist")


def _load_published(name: str) -> Dataset:
    target_names = _PUBLISHED[name].target_names
    height, width = _IMAGE_SHAPE
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        images = _load_file(name, f"X_{part}", _IMAGE_SHAPE)
        labels = _load_file(name, f"y_{part}", ())
        if len(images) != len(labels):
            raise ValueError(f"{name}: {len(images)} {part} images, but {len(labels)} labels")
        if np.any(labels >= len(target_names)):
            raise ValueError(
                f"{name}: {part} label {labels.max()}, expected 0..{len(target_names) - 1}"
            )
        arrays[f"X_{part}"] = images.reshape(-1, height * width)
        arrays[f"y_{part}"] = labels.astype(np.int64)
    feature_names = tuple(f"pixel_{row}_{col}" for row in range(height) for col in range(width))
    return Dataset(name, **arrays, feature_names=feature_names, target_names=target_names)


def _load_file(name: str, key: str, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """One file as an array (n, *item_shape), from the first place that has it."""
    filename = _FILES[key]
    cache = _cache_folder() / name
    source = cache / f"{filename}.gz"
    is_published = True
    folder = config.data_folder()
    if folder is not None:
        raw, packed = folder / name / filename, folder / name / f"{filename}.gz"
        if raw.is_file():
            return _read_items(raw, item_shape)
        if packed.is_file():
            source, is_published = packed, False

    items = _read_unpacked(source, cache, item_shape)
    if items is None:
        if is_published:
            _download(_PUBLISHED[name].mirrors, _PUBLISHED[name].sha256[key], source)
        stamp = _stamp(source)  # before the file is read, so that a later change is noticed
        items = _read_items(source, item_shape)
        # A cache that is full or read-only costs time on the next start, nothing else.
        with contextlib.suppress(OSError):
            _write_unpacked(items, source, stamp, cache)
    return items


def _read_items(path: Path, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    items = read_idx(path)
    if items.dtype != np.uint8 or items.shape[1:] != item_shape:
        expected = ", ".join(map(str, ("n", *item_shape)))
        raise ValueError(
            f"{path}: found {items.dtype} of shape {items.shape}, expected uint8 ({expected})"
        )
    return items


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("fastmlp"))


def _download(mirrors: Sequence[str], sha256: str, path: Path) -> None:
    """Fetch `path.name` into `path` from the first mirror that gives the right bytes.

    pooch writes to a temporary name and renames once the sum is right. It leaves a file alone that
    is there already and right, and replaces a damaged one.
    """
    import pooch

    failures = []
    for mirror in mirrors:
        try:
            pooch.retrieve(
                mirror + path.name,
                known_hash=f"sha256:{sha256}",
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=1 << 16),
            )
            return
        except (OSError, ValueError) as error:  # of the network or the disk; a wrong sum
            failures.append(f"{mirror}{path.name} ({error})")
    raise OSError(
        f"{path} is missing and could not be downloaded: {'; '.join(failures)}. Connect to the "
        f"internet and try again, or set FASTMLP_DATA to a folder that has "
        f"{path.parent.name}/{path.name}"
    )


# The cache of unpacked files: the bare values of each, in a file named
#     <hash of the source's path>-<its size>-<its time of change>-<CRC-32 of the values>.bin
# so that a changed source is looked for under a new name, and a damaged entry belies its own.


def _prefix(source: Path) -> str:
    return hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]


def _stamp(source: Path) -> str:
    status = source.stat()
    return f"{_prefix(source)}-{status.st_size}-{status.st_mtime_ns}"


def _read_unpacked(
    source: Path, cache: Path, item_shape: tuple[int, ...]
) -> NDArray[np.uint8] | None:
    """The items of `source`, None where the cache has no sound copy of them."""
    with contextlib.suppress(OSError, ValueError):  # whatever is wrong here, the source has it all
        for entry in cache.glob(f"{_stamp(source)}-*.bin"):
            # Mapped, not read: new memory for 47 MB can cost 100 ms, the check of the CRC costs 7.
            # Copy-on-write: the array is the caller's, the entry is never changed in its place.
            values = np.asarray(np.memmap(entry, np.uint8, mode="c"))
            if entry.stem.endswith(f"-{zlib.crc32(values.data):08x}"):
                return values.reshape(-1, *item_shape)
    return None


def _write_unpacked(items: NDArray[np.uint8], source: Path, stamp: str, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / f"{stamp}-{zlib.crc32(items.data):08x}.bin"
    write_atomically(entry, items.tobytes())
    # What is left of the source as it was before, and of killed processes. A live process that
    # loses its temporary file here goes on with the items it holds.
    for stale in cache.glob(f"*{_prefix(source)}-*"):
        if stale != entry:
            stale.unlink(missing_ok=True)


# --- IDX files ------------------------------------------------------------------------------------

_IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20  # bytes


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST.

    Two zero bytes, a type code, the number of dimensions, each dimension as uint32, the values with
    the last dimension fastest; everything big-endian.

    Parameters
    ----------
    path : str or path-like
        Raw or gzip: the first two bytes decide, not the name.

    Returns
    -------
    ndarray
        uint8, int8, int16, int32, float32 or float64 in native byte order, of 1 to 4 dimensions,
        C-contiguous, writable.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not an IDX file, fewer or more values than its header states, or a broken gzip stream. A
        header that lies costs no memory, and gzip unpacks no more than the header states.

    References
    ----------
    http://yann.lecun.com/exdb/mnist/, "The IDX file format".
    """
    path = Path(path)
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
        try:
            dtype, shape = _read_idx_header(stream, path)
            stated = math.prod(shape) * dtype.itemsize
            if is_gzip:
                # The byte beyond the stated ones finds a file that is too long, and a bomb, without
                # unpacking all of it. Where there is none, gzip has by then checked its own CRC.
                data = bytearray()
                while chunk := stream.read(min(_CHUNK, stated + 1 - len(data))):
                    data += chunk
                found = len(data)
            else:
                found = os.fstat(file.fileno()).st_size - file.tell()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip stream: {error}") from error
        if found != stated:
            problem = f"truncated after {found}" if found < stated else f"more than {stated}"
            raise ValueError(
                f"{path}: {problem} bytes of values, expected {stated} for {dtype} of shape {shape}"
            )
        stored = dtype.newbyteorder(">")
        values = np.frombuffer(data, stored) if is_gzip else np.fromfile(file, stored)
    return values.reshape(shape).astype(dtype, copy=False)


def _read_idx_header(
    stream: IO[bytes] | gzip.GzipFile, path: Path
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    is_idx = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_DTYPES
    if not is_idx or not 1 <= magic[3] <= 4:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise ValueError(
            f"{path}: not an IDX file: begins with {magic.hex(' ') or 'nothing'}, "
            f"expected 00 00, a type code ({codes}) and 01 to 04 dimensions"
        )
    dtype, ndim = _IDX_DTYPES[magic[2]], magic[3]
    dimensions = stream.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise ValueError(
            f"{path}: truncated after {len(dimensions)} bytes of dimensions, expected {4 * ndim}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", dimensions)
    # Where one dimension is 0 the file's size says nothing of the others, yet NumPy has a limit.
    if math.prod(n or 1 for n in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{path}: no memory can hold {dtype} of the stated shape {shape}")
    return dtype, shape


# --- CSV and npz files ----------------------------------------------------------------------------


def read_table(
    path: str | os.PathLike[str], label: str | int | None = None
) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    """Read samples and their labels from a CSV or an npz file.

    Parameters
    ----------
    path : str or path-like
        ``.npz``: a NumPy archive with the arrays ``X`` and ``y``. Any other name: UTF-8 text with
        columns separated by commas. Its first line is a header where it names `label`, where no
        cell of it is a number, or where of the first two labels only the second is a number.
    label : str or int, optional
        CSV: name or index (from 0; negative from the end) of the column of labels; default the
        last. npz: name of the array of labels; default ``y``.

    Returns
    -------
    X : ndarray, shape (n, n_features)
        float64 from CSV, the archive's own type from npz.
    y : ndarray, shape (n,)
        From CSV int64 where all labels are whole numbers, else float64 where all are numbers, else
        str. From npz as it is, and (n, n_out) is taken too.
    feature_names : tuple of str, length n_features
        From the header, else ``x0``, ``x1``, ...

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        No rows, rows of different lengths, a feature that is no finite number, a missing label, an
        unknown `label`: with the file, the line and the column. A broken archive.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, "y" if label is None else str(label))
    return _read_csv(path, -1 if label is None else label)


def _read_csv(
    path: Path, label: str | int
) -> tuple[NDArray[np.float64], NDArray[Any], tuple[str, ...]]:
    values = array("d")
    labels: list[str] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        rows = ((reader.line_num, row) for row in reader if row)  # a blank line is an empty row
        try:
            head = list(itertools.islice(rows, 2))
            first = [cell.strip() for cell in head[0][1]] if head else []
            n_columns = len(first)
            if n_columns < 2:
                raise ValueError(
                    f"{path}: {n_columns} columns separated by commas, "
                    "expected at least one feature and the label"
                )
            column = _label_column(path, label, first)
            is_number = [not math.isnan(_to_float(cell)) for cell in first]
            has_header = not any(is_number) or (first[column] == label and not is_number[column])
            if not is_number[column] and len(head) > 1 and len(head[1][1]) == n_columns:
                has_header |= not math.isnan(_to_float(head[1][1][column]))
            for line, row in itertools.chain(head[1:] if has_header else head, rows):
                place = f"{path}, line {line}"
                if len(row) != n_columns:
                    raise ValueError(f"{place}: {len(row)} columns, expected {n_columns}")
                text = row.pop(column).strip()
                if text.lower() in ("", "nan") or math.isinf(_to_float(text)):
                    raise ValueError(
                        f"{place}, column {column + 1}: the label is missing: {text!r}"
                    )
                numbers = [*map(_to_float, row)]
                if not all(map(math.isfinite, numbers)):
                    bad = next(i for i, number in enumerate(numbers) if not math.isfinite(number))
                    raise ValueError(
                        f"{place}, column {bad + 1 + (bad >= column)}: "
                        f"{row[bad]!r} is not a finite number"
                    )
                labels.append(text)
                values.extend(numbers)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not labels:
        raise ValueError(f"{path}: a header, but no rows")
    X = np.array(values).reshape(len(labels), n_columns - 1)
    feature_names = (*first[:column], *first[column + 1 :]) if has_header else _default_names(X)
    return X, _parse_labels(labels), feature_names


def _to_float(text: str) -> float:
    """NaN where `text` is no number."""
    try:
        # float() would also take the 1_000 of Python's source code.
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _label_column(path: Path, label: str | int, first: Sequence[str]) -> int:
    with contextlib.suppress(ValueError, IndexError):
        return range(len(first))[int(label)]
    if label in first:
        return first.index(str(label))
    shown = ", ".join(first[:10]) + (", ..." if len(first) > 10 else "")
    raise ValueError(f"label: {path} has no column {label!r}; it begins with the line {shown}")


def _parse_labels(labels: list[str]) -> NDArray[Any]:
    text = np.array(labels)
    if not any("_" in label for label in labels):  # as in _to_float
        for dtype in (np.int64, np.float64):
            with contextlib.suppress(ValueError, OverflowError):
                return text.astype(dtype)
    return text


def _read_npz(path: Path, label: str) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an npz archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("X", label) if name in archive}
                found = ", ".join(archive.files) or "nothing"
        except Exception as error:  # of zipfile, zlib, struct or NumPy: a dozen types
            raise ValueError(f"{path}: broken npz archive: {error}") from error
    for name in ("X", label):
        if name not in arrays:
            raise ValueError(f"{path}: expected the array {name}, found {found}")
    X, y = arrays["X"], arrays[label]
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: X is {X.dtype} of shape {X.shape}, expected numbers (n, n_features)"
        )
    if y.ndim not in (1, 2) or len(y) != len(X) or y.dtype.kind not in "biufU":
        raise ValueError(
            f"{path}: {label} is {y.dtype} of shape {y.shape}, "
            f"expected numbers or text ({len(X)},) or ({len(X)}, n_out)"
        )
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            index = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(f"{path}: {name}{index} is not a finite number")
    return X, y, _default_names(X)


def _default_names(X: NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(X.shape[1]))
