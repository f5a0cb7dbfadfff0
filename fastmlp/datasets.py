"""Data sets.

====================================  ==========================================================
`load_digits`, `load_iris`            carried by scikit-learn: no network needed
`load_mnist`, `load_fashion_mnist`    from ``FASTMLP_DATA``, else the cache, else downloaded
====================================  ==========================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import config
from fastmlp.idx import read_idx
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
