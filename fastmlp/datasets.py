"""Data sets, and the readers of the files they come in.

================================================  ==============================================
`load_digits`, `load_iris`                        carried by scikit-learn: no network needed
`load_mnist`, `load_fashion_mnist`                ``FASTMLP_DATA``, else the cache, else a mirror
`read_idx`, `read_table`                          one IDX file; a CSV or npz file of the user's own
================================================  ==============================================

A file is data from strangers: every size that it states is checked against the bytes that are there
before memory is taken for it, and nothing here can run code (no pickle).
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
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from . import config

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
        arrays = ("X_train", "y_train", "X_test", "y_test")
        shown = (f"{a} {getattr(self, a).shape} {getattr(self, a).dtype}" for a in arrays)
        return f"Dataset({self.name}: {', '.join(shown)}, {len(self.target_names)} classes)"


# --- Carried by scikit-learn ----------------------------------------------------------------------


def load_digits(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1797 handwritten digits of 8x8 pixels, 10 classes.

    Parameters
    ----------
    test_fraction : float, default 0.2
        Share of every class that is held out, between 0 and 1.
    seed : int, default 0
        Seed of the split.

    Returns
    -------
    Dataset
        X float32 (n, 64) in [0, 1]: the published 0..16 divided by 16.

    Raises
    ------
    ValueError
        `test_fraction` is not between 0 and 1, or leaves a class without a sample on one side.

    References
    ----------
    https://archive.ics.uci.edu/dataset/80 (its test part, as scikit-learn carries it).
    """
    from sklearn import datasets

    return _split("digits", datasets.load_digits(), 16.0, test_fraction, seed)


def load_iris(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """150 iris flowers, 3 classes: length and width of sepal and petal in cm.

    Parameters, errors: as `load_digits`.

    Returns
    -------
    Dataset
        X float32 (n, 4), in cm.

    References
    ----------
    R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936.
    """
    from sklearn import datasets

    return _split("iris", datasets.load_iris(), 1.0, test_fraction, seed)


def _split(name: str, bunch: Any, unit: float, test_fraction: float, seed: int) -> Dataset:
    from sklearn.model_selection import train_test_split

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: expected between 0 and 1, got {test_fraction!r}")
    X = (bunch.data / unit).astype(np.float32)
    y = bunch.target.astype(np.int64)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=test_fraction, random_state=seed, stratify=y
    )
    feature_names = tuple(str(feature) for feature in bunch.feature_names)
    target_names = tuple(str(target) for target in bunch.target_names)
    return Dataset(name, X_train, y_train, X_test, y_test, feature_names, target_names)


# --- MNIST and Fashion-MNIST ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """Where four IDX files are published, and the SHA-256 of each as gzip wrapped it there."""

    mirrors: tuple[str, ...]
    sha256: Mapping[str, str]
    target_names: tuple[str, ...]


# The sums are those that TensorFlow Datasets pins for the same addresses:
# https://github.com/tensorflow/datasets/tree/master/tensorflow_datasets/url_checksums
_PUBLISHED = {
    "mnist": _Published(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            "train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
        target_names=tuple("0123456789"),
    ),
    "fashion_mnist": _Published(
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        sha256={
            "train-images-idx3-ubyte.gz": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
        target_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}
_IMAGE_SHAPE = (28, 28)
_TIMEOUT = 30.0  # seconds without a byte from a mirror


def load_mnist() -> Dataset:
    """70,000 handwritten digits of 28x28 pixels, 10 classes, 10,000 of them for the test.

    Each of the four files is taken from the first of: the folder ``FASTMLP_DATA/mnist`` (official
    names, raw or ``.gz``); the user's cache folder; a download from one of two mirrors, whose
    SHA-256 is checked before the file enters the cache. What gzip unpacked is kept in the cache, so
    that later starts skip it.

    Returns
    -------
    Dataset
        X uint8 (60000, 784) and (10000, 784), C-contiguous, row by row of the image: 0 is
        background, 255 is ink.

    Raises
    ------
    OSError
        A file is nowhere on this computer and no mirror gave it; the message says what to do.
    ValueError
        A file is no IDX file of 28x28 images or of labels 0..9; the message has its path.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", 1998.
    """
    return _load_published("mnist")


def load_fashion_mnist() -> Dataset:
    """70,000 grey pictures of clothing of 28x28 pixels, 10 classes, 10,000 of them for the test.

    Folder ``FASTMLP_DATA/fashion_mnist``; everything else as `load_mnist`.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms", 2017, https://github.com/zalandoresearch/fashion-mnist.
    """
    return _load_published("fashion_mnist")


def _load_published(name: str) -> Dataset:
    height, width = _IMAGE_SHAPE
    feature_names = tuple(f"pixel_{row}_{col}" for row in range(height) for col in range(width))
    target_names = _PUBLISHED[name].target_names
    arrays: list[NDArray[Any]] = []
    for part in ("train", "t10k"):
        images = _load_file(name, f"{part}-images-idx3-ubyte", _IMAGE_SHAPE)
        labels = _load_file(name, f"{part}-labels-idx1-ubyte", ())
        if len(images) != len(labels):
            raise ValueError(f"{name}, {part}: {len(images)} images but {len(labels)} labels")
        if np.any(labels >= len(target_names)):
            raise ValueError(
                f"{name}, {part}: label {labels.max()}, expected 0..{len(target_names) - 1}"
            )
        arrays += [images.reshape(-1, height * width), labels.astype(np.int64)]
    return Dataset(name, *arrays, feature_names, target_names)


def _load_file(name: str, filename: str, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """One IDX file of uint8 as an array (n, *item_shape), from wherever it is found first."""
    cache = _cache_folder() / name
    source = cache / f"{filename}.gz"
    published = True
    folder = config.data_folder()
    if folder is not None:
        raw, packed = folder / name / filename, folder / name / f"{filename}.gz"
        if raw.is_file():
            return _read_items(raw, item_shape)
        if packed.is_file():
            source, published = packed, False

    items = _read_unpacked(source, cache, item_shape)
    if items is None:
        if published:
            _download(name, source)
        stamp = _stamp(source)  # before it is read: a change from here on is then noticed
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


def _download(name: str, path: Path) -> None:
    """Fetch `path.name` from the first mirror whose bytes have the published SHA-256.

    pooch writes to a temporary name, checks, and only then renames; a file that is already there
    and has the right sum is left alone, one that was damaged is replaced.
    """
    import pooch

    published = _PUBLISHED[name]
    failures = []
    for mirror in published.mirrors:
        try:
            pooch.retrieve(
                mirror + path.name,
                known_hash=f"sha256:{published.sha256[path.name]}",
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=1 << 16),
            )
            return
        except (OSError, ValueError) as error:  # network (an OSError), wrong sum (ValueError)
            failures.append(f"{mirror}{path.name} ({error})")
    raise OSError(
        f"{path.name} of {name} is not in {path.parent} and no mirror gave it: "
        f"{'; '.join(failures)}. Connect to the internet and try again, or put the file into "
        f"the folder {name} of a folder that FASTMLP_DATA names"
    )


# The cache of unpacked files: one uncompressed IDX file each, named
#     <hash of the source's path>-<its size>-<its time of change>-<CRC-32 of the values>.idx
# so that a changed source is looked for under another name, and a damaged entry is no match for
# its own name. That makes syncing to the disk unnecessary.


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
        for entry in cache.glob(f"{_stamp(source)}-*.idx"):
            items = _read_items(entry, item_shape)
            if entry.stem.endswith(f"-{zlib.crc32(items):08x}"):
                return items
    return None


def _write_unpacked(items: NDArray[np.uint8], source: Path, stamp: str, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / f"{stamp}-{zlib.crc32(items):08x}.idx"
    descriptor, temporary = tempfile.mkstemp(prefix=f"{_prefix(source)}-", dir=cache)
    try:
        with open(descriptor, "wb") as file:
            file.write(struct.pack(f">HBB{items.ndim}I", 0, 0x08, items.ndim, *items.shape))
            file.write(items)
        os.replace(temporary, entry)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # What is left of the source as it was before, and of killed processes. A live process that
    # loses its temporary file here goes on with the items it holds.
    for stale in cache.glob(f"{_prefix(source)}-*"):
        if stale != entry:
            stale.unlink(missing_ok=True)


# --- IDX files ------------------------------------------------------------------------------------

_IDX_DTYPES = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20  # bytes


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST.

    Two zero bytes, the type code, the number of dimensions (1 to 4), the dimensions as big-endian
    uint32, then the values, big-endian, last dimension fastest.

    Parameters
    ----------
    path : str or path-like
        Raw or gzip; the first two bytes decide, not the name.

    Returns
    -------
    ndarray
        uint8, int8, int16, int32, float32 or float64 in native byte order, C-contiguous, writable.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not an IDX file; fewer or more bytes than its header states; a broken gzip stream. The
        memory taken is bounded by the bytes that are there and by what the header states,
        whichever is less.

    References
    ----------
    http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
    """
    with open(path, "rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if packed:
            values, shape = _read_gzip(file, path)
        else:
            dtype, shape = _read_header(file, path)
            n_bytes = os.fstat(file.fileno()).st_size - file.tell()
            _check_size(path, n_bytes, dtype, shape)
            values = np.fromfile(file, dtype, math.prod(shape))
    return values.reshape(shape).astype(values.dtype.newbyteorder("="), copy=False)


def _read_gzip(
    file: IO[bytes], path: str | os.PathLike[str]
) -> tuple[NDArray[Any], tuple[int, ...]]:
    data = bytearray()
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            dtype, shape = _read_header(stream, path)
            # One byte more than stated: it finds trailing bytes, and where there are none it makes
            # gzip reach its end mark and check the CRC. A bomb is not unpacked further than this.
            limit = math.prod(shape) * dtype.itemsize + 1
            while chunk := stream.read(min(_CHUNK, limit - len(data))):
                data += chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{os.fspath(path)}: broken gzip stream: {error}") from error
    _check_size(path, len(data), dtype, shape)
    return np.frombuffer(data, dtype), shape


def _read_header(
    stream: IO[bytes] | gzip.GzipFile, path: str | os.PathLike[str]
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if (
        len(magic) < 4
        or magic[:2] != b"\0\0"
        or magic[2] not in _IDX_DTYPES
        or not 1 <= magic[3] <= 4
    ):
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise ValueError(
            f"{os.fspath(path)}: not an IDX file: begins with {magic.hex(' ') or 'nothing'}, "
            f"expected 00 00, a type code ({codes}) and 01 to 04 dimensions"
        )
    dtype, ndim = _IDX_DTYPES[magic[2]], magic[3]
    dimensions = stream.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise ValueError(
            f"{os.fspath(path)}: the header ends after {4 + len(dimensions)} bytes, "
            f"expected {4 + 4 * ndim} for {ndim} dimensions"
        )
    shape = struct.unpack(f">{ndim}I", dimensions)
    # Where one dimension is 0 no file is too short for the others, yet NumPy must hold them.
    if math.prod(n or 1 for n in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{os.fspath(path)}: the header states the impossible shape {shape}")
    return dtype, shape


def _check_size(
    path: str | os.PathLike[str], n_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if n_bytes != expected:
        found = f"truncated after {n_bytes}" if n_bytes < expected else f"more than {expected}"
        raise ValueError(
            f"{os.fspath(path)}: {found} bytes of values, expected {expected} "
            f"for {dtype.name} of shape {shape}"
        )


# --- CSV and npz files ----------------------------------------------------------------------------


def read_table(
    path: str | os.PathLike[str], label: str | int | None = None
) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    """Read samples and their labels from a CSV or an npz file.

    Parameters
    ----------
    path : str or path-like
        ``.npz``: a NumPy archive with the arrays ``X`` and ``y``. Any other name: text in UTF-8,
        columns separated by commas. Its first line is a header where it holds the name `label`, or
        where no cell of it is a number.
    label : str or int, optional
        CSV: name or index (from 0; negative from the end) of the column of labels; default the
        last. npz: name of the array of labels; default ``y``.

    Returns
    -------
    X : ndarray, shape (n, n_features)
        float64 from CSV, the archive's own dtype from npz.
    y : ndarray, shape (n,)
        From CSV: int64 where every label is a whole number, else float64 where every label is a
        number, else str. From npz as it is, where (n, n_out) is taken too.
    feature_names : tuple of str, length n_features
        From the header, else ``x0``, ``x1``, ...

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Empty file, rows of different lengths, a feature that is no finite number, a missing label,
        an unknown `label`; the message has the file, the line and the column.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, "y" if label is None else label)
    return _read_csv(path, -1 if label is None else label)


def _read_csv(
    path: Path, label: str | int
) -> tuple[NDArray[np.float64], NDArray[Any], tuple[str, ...]]:
    values = array("d")
    labels: list[str] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        rows = filter(None, reader)  # a blank line is an empty row
        try:
            first = [cell.strip() for cell in next(rows, [])]
            n_columns = len(first)
            if n_columns < 2:
                raise ValueError(
                    f"{path}: {n_columns} columns separated by commas, "
                    "expected at least one feature and the label"
                )
            named = isinstance(label, str) and _to_float(label) is None and label in first
            has_header = named or all(_to_float(cell) is None for cell in first)
            names = first if has_header else []
            column = _label_column(path, label, names, n_columns)
            for row in rows if has_header else itertools.chain([first], rows):
                place = f"{path}, line {reader.line_num}"
                if len(row) != n_columns:
                    raise ValueError(f"{place}: {len(row)} columns, expected {n_columns}")
                labels.append(row.pop(column).strip())
                if labels[-1].lower() in ("", "nan"):
                    raise ValueError(f"{place}, column {column + 1}: the label is missing")
                for i, cell in enumerate(row):
                    number = _to_float(cell)
                    if number is None or not math.isfinite(number):
                        raise ValueError(
                            f"{place}, column {i + 1 + (i >= column)}: "
                            f"{cell!r} is not a finite number"
                        )
                    values.append(number)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not labels:
        raise ValueError(f"{path}: a header, but no rows")
    X = np.array(values).reshape(len(labels), n_columns - 1)
    feature_names = [name for i, name in enumerate(names) if i != column]
    return X, _parse_labels(labels), tuple(feature_names) or _default_names(X)


def _to_float(text: str) -> float | None:
    # Python's float() would also take 1_000, which no other reader of CSV calls a number.
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _label_column(path: Path, label: str | int, names: Sequence[str], n_columns: int) -> int:
    if label in names:
        return names.index(str(label))
    try:
        return range(n_columns)[int(label)]
    except (ValueError, IndexError):
        raise ValueError(
            f"label: no column {label!r} in {path}, which has {n_columns} columns: "
            f"{', '.join(names) or 'without names'}"
        ) from None


def _parse_labels(labels: list[str]) -> NDArray[Any]:
    text = np.array(labels)
    if not any("_" in label for label in labels):  # as in _to_float
        for dtype in (np.int64, np.float64):
            with contextlib.suppress(ValueError, OverflowError):
                return text.astype(dtype)
    return text


def _read_npz(path: Path, label: str | int) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an npz archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("X", label) if name in archive.files}
                found = ", ".join(archive.files)
        except Exception as error:  # a dozen types, from zipfile, zlib, struct and NumPy
            raise ValueError(f"{path}: broken npz archive: {error}") from error
    missing = [str(name) for name in ("X", label) if name not in arrays]
    if missing:
        raise ValueError(f"{path}: no array {' and '.join(missing)}, found: {found or 'nothing'}")
    X, y = arrays["X"], arrays[label]
    if X.ndim != 2 or 0 in X.shape or X.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: X is {X.dtype} of shape {X.shape}, expected numbers (n, n_features)"
        )
    if y.ndim not in (1, 2) or len(y) != len(X) or y.dtype.kind not in "biufU":
        raise ValueError(
            f"{path}: {label} is {y.dtype} of shape {y.shape}, expected numbers or text "
            f"({len(X)},) or ({len(X)}, n_out)"
        )
    for name, values in (("X", X), (label, y)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(f"{path}: {name}{place} is not a finite number")
    return X, y, _default_names(X)


def _default_names(X: NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(X.shape[1]))
