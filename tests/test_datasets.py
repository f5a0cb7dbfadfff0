"""Files that are right, wrong, damaged or hostile; mirrors that fail; caches that are broken."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import math
import os
import re
import struct
import threading
import tracemalloc
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import config, datasets
from fastmlp.datasets import Dataset, load_digits, load_fashion_mnist, load_iris, load_mnist
from fastmlp.idx import read_idx
from fastmlp.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

IDX_CODES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
FILES = tuple(datasets._FILES.values())
MEGABYTE = 1 << 20

examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def idx_bytes(code: int, shape: tuple[int, ...], values: bytes) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


def fill(shape: tuple[int, ...], code: int = 0x08) -> bytes:
    n_bytes = math.prod(shape) * np.dtype(IDX_CODES[code]).itemsize
    return np.random.default_rng(n_bytes).bytes(n_bytes)


def value_or_error(call):
    try:
        return call()
    except ValueError as error:
        return error


def peak_memory_of_refusal(path: Path) -> int:
    """Largest number of bytes held at once until `read_idx` refuses the file."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- IDX ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def idx_path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "file"


shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)
full_shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
codes = st.sampled_from(sorted(IDX_CODES))


@examples
@given(code=codes, shape=shapes, packed=st.booleans())
def test_idx_round_trip(idx_path, code, shape, packed):
    values = fill(shape, code)
    content = idx_bytes(code, shape, values)
    idx_path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(idx_path)
    assert read.shape == shape
    assert read.dtype == np.dtype(IDX_CODES[code])
    assert read.dtype.isnative
    assert read.flags.c_contiguous
    assert read.flags.writeable
    assert read.astype(read.dtype.newbyteorder(">")).tobytes() == values


@examples
@given(data=st.data(), code=codes, shape=full_shapes, packed=st.booleans())
def test_idx_truncated_anywhere(idx_path, data, code, shape, packed):
    content = idx_bytes(code, shape, fill(shape, code))
    content = content[: data.draw(st.integers(0, len(content) - 1))]
    idx_path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=r"file: (truncated after|not an IDX file)"):
        read_idx(idx_path)


@examples
@given(code=codes, shape=shapes, tail=st.binary(min_size=1, max_size=40), packed=st.booleans())
def test_idx_trailing_bytes(idx_path, code, shape, tail, packed):
    content = idx_bytes(code, shape, fill(shape, code)) + tail
    idx_path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=r"file: more than .* bytes of values, expected"):
        read_idx(idx_path)


@examples
@given(data=st.data(), shape=full_shapes, packed=st.booleans())
def test_idx_dimension_that_lies(idx_path, data, shape, packed):
    """Whatever byte of the dimensions changes, to whatever value."""
    content = bytearray(idx_bytes(0x08, shape, fill(shape)))
    place = data.draw(st.integers(4, 4 + 4 * len(shape) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    idx_path.write_bytes(gzip.compress(content) if packed else content)
    assert peak_memory_of_refusal(idx_path) < 3 * MEGABYTE


@examples
@given(data=st.data(), shape=full_shapes)
def test_idx_magic_that_lies(idx_path, data, shape):
    content = bytearray(idx_bytes(0x0D, shape, fill(shape, 0x0D)))
    place = data.draw(st.integers(0, 3))
    content[place] ^= data.draw(st.integers(1, 255))
    if content[2] == 0x0C:  # of the size of float32: nothing in the file contradicts it
        content[2] = 0x0A
    idx_path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file: (truncated after|more than|no memory|not an IDX)"):
        read_idx(idx_path)


@examples
@given(data=st.data(), shape=full_shapes)
def test_idx_gzip_damaged_anywhere(idx_path, data, shape):
    """Gzip does not guard everything that it writes; the values it does."""
    values = fill(shape)
    packed = bytearray(gzip.compress(idx_bytes(0x08, shape, values)))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    idx_path.write_bytes(packed)
    read = value_or_error(lambda: read_idx(idx_path))
    if isinstance(read, ValueError):
        assert str(idx_path) in str(read)
    else:
        assert read.tobytes() == values


@examples
@given(data=st.data(), shape=full_shapes)
def test_idx_gzip_cut_anywhere(idx_path, data, shape):
    packed = gzip.compress(idx_bytes(0x08, shape, fill(shape)))
    idx_path.write_bytes(packed[: data.draw(st.integers(2, len(packed) - 1))])
    with pytest.raises(ValueError, match="file: broken gzip stream"):
        read_idx(idx_path)


@pytest.mark.parametrize("shape", [(10,), (2**31,), (2**32 - 1, 1000)])
def test_idx_gzip_bomb_and_lie_take_no_memory(idx_path, shape):
    """64 MiB of zeros under a header that states less, or far more than there is."""
    with gzip.open(idx_path, "wb", compresslevel=1) as file:
        file.write(idx_bytes(0x08, shape, b""))
        for _ in range(4 if math.prod(shape) > 10 else 64):
            file.write(bytes(MEGABYTE))
    assert peak_memory_of_refusal(idx_path) < 12 * MEGABYTE


@pytest.mark.parametrize(
    "shape",
    [(2**31,), (2**32 - 1,) * 2, (2**32 - 1,) * 4, (0, *(2**32 - 1,) * 3), (65536,) * 4],
)
@pytest.mark.parametrize("code", IDX_CODES)
def test_idx_impossible_shape(idx_path, shape, code):
    """(65536,)*4 has the product 2^64, which is 0 in 64 bits."""
    idx_path.write_bytes(idx_bytes(code, shape, b""))
    assert peak_memory_of_refusal(idx_path) < MEGABYTE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing, expected 00 00, a type code"),
        (b"<!DOCTYPE html>", "begins with 3c 21 44 4f, expected 00 00, a type code"),
        (b"\0\0\x0a\1\0\0\0\0", "begins with 00 00 0a 01"),
        (b"\0\0\x08\0", "begins with 00 00 08 00"),
        (b"\0\0\x08\5" + bytes(20), "begins with 00 00 08 05"),
        (b"\0\0\x08\2\0\0\0\1\0", "truncated after 5 bytes of dimensions, expected 8"),
        (b"\0\0\x0b\1\0\0\0\2abc", r"truncated after 3 bytes of values, expected 4 .*int16"),
    ],
)
def test_idx_message(idx_path, content, message):
    idx_path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(str(idx_path))
    assert str(idx_path) in str(caught.value)


def test_idx_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")


# --- Folder and cache -----------------------------------------------------------------------------


def image_files(n_train: int = 6, n_test: int = 4, seed: int = 0) -> dict[str, bytes]:
    """The four files of a small MNIST, unpacked."""
    rng = np.random.default_rng(seed)
    content = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        images, labels = rng.bytes(n * 784), rng.integers(0, 10, n, dtype=np.uint8).tobytes()
        content[f"{part}-images-idx3-ubyte"] = idx_bytes(0x08, (n, 28, 28), images)
        content[f"{part}-labels-idx1-ubyte"] = idx_bytes(0x08, (n,), labels)
    return content


def write_files(folder: Path, content: dict[str, bytes], packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for filename, data in content.items():
        if packed:
            (folder / f"{filename}.gz").write_bytes(gzip.compress(data, compresslevel=1))
        else:
            (folder / filename).write_bytes(data)


def assert_holds(dataset: Dataset, content: dict[str, bytes]) -> None:
    assert dataset.X_train.tobytes() == content["train-images-idx3-ubyte"][16:]
    assert dataset.X_test.tobytes() == content["t10k-images-idx3-ubyte"][16:]
    assert dataset.y_train.tolist() == list(content["train-labels-idx1-ubyte"][8:])
    assert dataset.y_test.tolist() == list(content["t10k-labels-idx1-ubyte"][8:])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder; FASTMLP_DATA is not set."""
    monkeypatch.delenv("FASTMLP_DATA", raising=False)
    monkeypatch.setattr(datasets, "_cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, monkeypatch, cache):
    """An empty FASTMLP_DATA."""
    monkeypatch.setenv("FASTMLP_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def no_gzip(monkeypatch):
    """Call it: from then on nothing can be unpacked."""

    def refuse(*args, **kwargs):
        raise AssertionError("a file was unpacked again")

    return lambda: monkeypatch.setattr(gzip, "GzipFile", refuse)


def test_cache_folder_is_the_users_own():
    assert datasets._cache_folder().name == "fastmlp"
    assert datasets._cache_folder().is_absolute()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("load", "name"), [(load_mnist, "mnist"), (load_fashion_mnist, "fashion_mnist")]
)
def test_load_from_folder(folder, load, name, packed):
    content = image_files()
    write_files(folder / name, content, packed)
    dataset = load()
    assert_holds(dataset, content)
    assert dataset.name == name
    assert dataset.X_train.shape == (6, 784)
    assert dataset.X_test.shape == (4, 784)
    for X in (dataset.X_train, dataset.X_test):
        assert X.dtype == np.uint8
        assert X.flags.c_contiguous
        assert X.flags.writeable
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int64
    assert len(dataset.feature_names) == 784
    assert dataset.feature_names[29] == "pixel_1_1"
    assert len(set(dataset.target_names)) == 10
    assert repr(dataset) == (
        f"Dataset({name}: X_train (6, 784) uint8, y_train (6,) int64, "
        "X_test (4, 784) uint8, y_test (4,) int64, 10 classes)"
    )


@pytest.mark.parametrize(
    ("filename", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx_bytes(8, (6, 28, 27), bytes(6 * 756)), r"\(6, 28, 27\)"),
        ("train-images-idx3-ubyte", idx_bytes(8, (6, 784), bytes(6 * 784)), r"uint8 \(n, 28, 28\)"),
        ("t10k-images-idx3-ubyte", idx_bytes(9, (4, 28, 28), bytes(3136)), "found int8"),
        ("t10k-images-idx3-ubyte", idx_bytes(8, (4, 28, 28), bytes(3135)), "truncated"),
        ("train-labels-idx1-ubyte", idx_bytes(8, (5,), bytes(5)), "6 train images, but 5 labels"),
        (
            "t10k-labels-idx1-ubyte",
            idx_bytes(8, (4,), b"\0\1\2\x0a"),
            "test label 10, expected 0..9",
        ),
        ("t10k-labels-idx1-ubyte", idx_bytes(8, (4, 1), bytes(4)), r"uint8 \(n\)"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_wrong_file_in_folder(folder, filename, content, message, packed):
    write_files(folder / "mnist", image_files() | {filename: content}, packed)
    for _ in range(2):  # the cache does not hide it
        with pytest.raises(ValueError, match=message):
            load_mnist()


def test_second_load_unpacks_nothing(folder, no_gzip):
    content = image_files()
    write_files(folder / "mnist", content)
    load_mnist()
    no_gzip()
    dataset = load_mnist()
    assert_holds(dataset, content)
    assert type(dataset.X_train) is np.ndarray
    assert dataset.X_train.flags.c_contiguous
    dataset.X_train[:] = 0  # the caller's own: the cache does not change with it
    assert_holds(load_mnist(), content)


def test_two_sets_do_not_meet_in_the_cache(folder):
    contents = {name: image_files(seed=i) for i, name in enumerate(("mnist", "fashion_mnist"))}
    for name, content in contents.items():
        write_files(folder / name, content)
    for _ in range(2):
        assert_holds(load_mnist(), contents["mnist"])
        assert_holds(load_fashion_mnist(), contents["fashion_mnist"])


def test_changed_source_is_noticed(folder, cache):
    old, new = image_files(seed=1), image_files(seed=2)
    write_files(folder / "mnist", old, packed=True)
    load_mnist()
    times = {}
    for filename in FILES:
        status = (folder / "mnist" / f"{filename}.gz").stat()
        times[filename] = (status.st_atime_ns, status.st_mtime_ns + 1)
    write_files(folder / "mnist", new)
    for filename, ns in times.items():
        os.utime(folder / "mnist" / f"{filename}.gz", ns=ns)
    assert_holds(load_mnist(), new)
    assert len(list((cache / "mnist").iterdir())) == len(FILES)  # the old entries are gone


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: b"",
        lambda entry: entry[:1],
        lambda entry: entry[: len(entry) // 2],
        lambda entry: entry + b"\0",
        lambda entry: bytes(len(entry)),
        lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
        lambda entry: entry[1:] + entry[:1],
    ],
)
def test_damaged_cache_is_rebuilt(folder, cache, no_gzip, damage):
    content = image_files()
    write_files(folder / "mnist", content)
    load_mnist()
    entries = sorted((cache / "mnist").iterdir())
    sound = [entry.read_bytes() for entry in entries]
    for entry, data in zip(entries, sound, strict=True):
        entry.write_bytes(damage(data))
    assert [entry.read_bytes() for entry in entries] != sound
    assert_holds(load_mnist(), content)
    assert sorted((cache / "mnist").iterdir()) == entries
    assert [entry.read_bytes() for entry in entries] == sound
    no_gzip()
    assert_holds(load_mnist(), content)


def test_cache_that_cannot_be_written(folder, cache):
    """Its place is taken by a file, which stops root too."""
    cache.write_bytes(b"")
    content = image_files()
    write_files(folder / "mnist", content)
    assert_holds(load_mnist(), content)
    assert cache.read_bytes() == b""


def test_full_disk_leaves_nothing_behind(folder, cache, monkeypatch):
    def no_space(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "write_atomically", no_space)
    content = image_files()
    write_files(folder / "mnist", content)
    assert_holds(load_mnist(), content)
    assert list((cache / "mnist").iterdir()) == []


def test_temporary_files_of_killed_processes_are_removed(folder, cache):
    write_files(folder / "mnist", image_files())
    load_mnist()
    entries = sorted((cache / "mnist").iterdir())
    orphans = [entry.with_name(f".{entry.name}.x1.tmp") for entry in entries]
    for entry, orphan in zip(entries, orphans, strict=True):
        entry.rename(orphan)
    load_mnist()
    assert sorted((cache / "mnist").iterdir()) == entries


def test_concurrent_first_loads(folder, cache):
    content = image_files()
    write_files(folder / "mnist", content)
    start = threading.Barrier(4)
    loaded: list[Dataset] = []

    def load() -> None:
        start.wait()
        loaded.append(load_mnist())

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    for dataset in [*loaded, load_mnist()]:
        assert_holds(dataset, content)


# --- Mirrors --------------------------------------------------------------------------------------


class Mirrors:
    """A local web server; each of its folders answers in its own way."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.requests: list[str] = []
        self.behaviour = {"first": "good", "second": "good"}
        self.stop = threading.Event()
        mirrors = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirrors.requests.append(self.path)
                _, folder, filename = self.path.split("/")
                mirrors.answer(self, mirrors.behaviour[folder], mirrors.files[filename])

            def log_message(self, *args) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, handler, behaviour: str, data: bytes) -> None:
        if behaviour == "missing":
            handler.send_error(404)
            return
        handler.send_response(200)
        stated = len(data) // 2 if behaviour == "short" else len(data)
        handler.send_header("Content-Length", str(stated))
        handler.end_headers()
        if behaviour == "stalls":
            handler.wfile.write(data[:10])
            self.stop.wait(30)
        elif behaviour == "wrong":
            handler.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
        elif behaviour in ("cut", "short"):
            handler.wfile.write(data[: len(data) // 2])
        else:
            handler.wfile.write(data)

    def urls(self) -> tuple[str, ...]:
        return tuple(
            f"http://127.0.0.1:{self.server.server_port}/{folder}/" for folder in self.behaviour
        )

    def close(self) -> None:
        if self.thread.is_alive():
            self.stop.set()
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()


@pytest.fixture
def content():
    return image_files()


@pytest.fixture
def mirrors(content, cache, monkeypatch):
    """Two mirrors of a small MNIST, under the sums of its files."""
    files = {f"{name}.gz": gzip.compress(data, 1) for name, data in content.items()}
    mirrors = Mirrors(files)
    monkeypatch.setenv("NO_PROXY", "*")
    published = datasets._Published(
        target_names=tuple("0123456789"),
        mirrors=mirrors.urls(),
        sha256={
            key: hashlib.sha256(files[f"{filename}.gz"]).hexdigest()
            for key, filename in datasets._FILES.items()
        },
    )
    monkeypatch.setitem(datasets._PUBLISHED, "mnist", published)
    yield mirrors
    mirrors.close()


def packed_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.suffix != ".bin")


def test_download_once(mirrors, content, cache, no_gzip):
    assert_holds(load_mnist(), content)
    assert sorted(mirrors.requests) == sorted(f"/first/{filename}.gz" for filename in FILES)
    assert packed_in(cache) == sorted(["mnist", *mirrors.files])
    mirrors.close()
    no_gzip()
    assert_holds(load_mnist(), content)


@pytest.mark.parametrize("fault", ["missing", "wrong", "cut", "short", "stalls"])
def test_second_mirror_steps_in(mirrors, content, cache, monkeypatch, fault):
    monkeypatch.setattr(datasets, "_TIMEOUT", 0.2)
    mirrors.behaviour["first"] = fault
    assert_holds(load_mnist(), content)
    requested = Counter(path.split("/")[1] for path in mirrors.requests)
    assert requested == {"first": 4, "second": 4}
    for filename, data in mirrors.files.items():
        assert (cache / "mnist" / filename).read_bytes() == data
    assert packed_in(cache) == sorted(["mnist", *mirrors.files])  # nothing else was left


@pytest.mark.parametrize("fault", ["missing", "wrong", "cut", "short"])
def test_both_mirrors_fail(mirrors, content, cache, fault):
    mirrors.behaviour.update(first=fault, second=fault)
    with pytest.raises(OSError, match="set FASTMLP_DATA to a folder that has mnist/") as caught:
        load_mnist()
    for text in (*mirrors.urls(), str(cache / "mnist" / f"{FILES[0]}.gz"), "try again"):
        assert text in str(caught.value)
    assert list((cache / "mnist").iterdir()) == []
    mirrors.behaviour.update(second="good")
    assert_holds(load_mnist(), content)


def test_offline(mirrors, cache):
    mirrors.close()
    with pytest.raises(OSError, match="Connect to the internet and try again, or set FASTMLP_DATA"):
        load_mnist()
    assert list((cache / "mnist").iterdir()) == []


def test_damaged_download_is_fetched_again(mirrors, content, cache):
    load_mnist()
    for path in (cache / "mnist").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    assert_holds(load_mnist(), content)
    assert len(mirrors.requests) == 8


def test_folder_goes_before_cache_and_download(mirrors, content, cache, tmp_path, monkeypatch):
    load_mnist()
    own = image_files(seed=5)
    write_files(tmp_path / "data" / "mnist", {FILES[0]: own[FILES[0]]})
    monkeypatch.setenv("FASTMLP_DATA", str(tmp_path / "data"))
    assert_holds(load_mnist(), content | {FILES[0]: own[FILES[0]]})
    assert len(mirrors.requests) == 4


# --- Real data ------------------------------------------------------------------------------------

RAW_SHA256 = {
    "mnist": {
        "X_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "X_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "X_train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "y_train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "X_test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "y_test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


@pytest.mark.parametrize(
    ("load", "name"), [(load_mnist, "mnist"), (load_fashion_mnist, "fashion_mnist")]
)
def test_real_data(load, name, tmp_path, monkeypatch):
    """The arrays, under the header of their file, have the SHA-256 of the unpacked file."""
    folder = config.data_folder()
    if folder is None or not (folder / name).is_dir():
        pytest.skip(f"FASTMLP_DATA names no folder that has {name}")
    monkeypatch.setattr(datasets, "_cache_folder", lambda: tmp_path)
    for dataset in (load(), load()):  # unpacked, then from the cache
        for key, expected in RAW_SHA256[name].items():
            values = getattr(dataset, key).astype(np.uint8)
            shape = (len(values), 28, 28) if key.startswith("X") else values.shape
            content = idx_bytes(0x08, shape, values.tobytes())
            assert hashlib.sha256(content).hexdigest() == expected


@pytest.mark.parametrize("name", RAW_SHA256)
def test_published_addresses(name):
    published = datasets._PUBLISHED[name]
    assert len({url.split("/")[2] for url in published.mirrors}) == 2
    assert all(url.endswith("/") for url in published.mirrors)
    assert published.sha256.keys() == RAW_SHA256[name].keys()
    assert all(len(bytes.fromhex(value)) == 32 for value in published.sha256.values())


# --- Carried by scikit-learn ----------------------------------------------------------------------


def test_digits():
    digits = load_digits()
    assert digits.X_train.shape == (1437, 64)
    assert digits.X_test.shape == (360, 64)
    X = np.vstack([digits.X_train, digits.X_test])
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    assert (X.min(), X.max()) == (0.0, 1.0)
    assert set(np.unique(X * 16)) == set(range(17))
    assert digits.y_train.dtype == np.int64
    assert digits.target_names == tuple("0123456789")
    assert len(digits.feature_names) == 64


def test_iris():
    iris = load_iris()
    X = np.vstack([iris.X_train, iris.X_test])
    assert X.dtype == np.float32
    assert X.shape == (150, 4)
    assert X.max() == np.float32(7.9)  # cm, as measured
    assert iris.target_names == ("setosa", "versicolor", "virginica")
    assert iris.feature_names[3] == "petal width (cm)"


@pytest.mark.parametrize("load", [load_digits, load_iris])
def test_split(load):
    """Every sample once, the share asked for in every class, the seed's own choice."""
    first = load(test_fraction=0.3, seed=1)
    again, other = load(test_fraction=0.3, seed=1), load(test_fraction=0.3, seed=2)
    np.testing.assert_array_equal(first.X_test, again.X_test)
    assert not np.array_equal(first.X_test, other.X_test)

    def rows(dataset: Dataset) -> Counter[bytes]:
        pairs = [(dataset.X_train, dataset.y_train), (dataset.X_test, dataset.y_test)]
        return Counter(
            x.tobytes() + bytes([t]) for X, y in pairs for x, t in zip(X, y, strict=True)
        )

    assert rows(first) == rows(other)
    test = np.bincount(first.y_test)
    total = test + np.bincount(first.y_train)
    np.testing.assert_allclose(test, 0.3 * total, atol=1)


@pytest.mark.parametrize("load", [load_digits, load_iris])
@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan, 0.001, 0.999])
def test_split_that_cannot_be(load, fraction):
    with pytest.raises(ValueError, match="test_fraction: expected from"):
        load(test_fraction=fraction)


# --- CSV ------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Writes text or bytes to a file, gives its path."""

    def write(content: str | bytes, name: str = "table.csv") -> Path:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("text", "label", "X", "y", "names"),
    [
        pytest.param("a,b,c\n1,2,0\n3,4,1\n", None, [[1, 2], [3, 4]], [0, 1], "a b", id="header"),
        pytest.param("1,2,0\n3,4,1\n", None, [[1, 2], [3, 4]], [0, 1], "x0 x1", id="no header"),
        pytest.param("a,b\n1,2", "a", [[2]], [1], "b", id="label by name"),
        pytest.param("a,b\n1,2", 0, [[2]], [1], "b", id="label by index"),
        pytest.param("0,1\n0,2\n", "0", [[1], [2]], [0, 0], "x0", id="index as text, no header"),
        pytest.param("1,2,3\n", -2, [[1, 3]], [2], "x0 x1", id="label from the end"),
        pytest.param("0,1,y\n5,6,7\n", None, [[5, 6]], [7], "0 1", id="numbered header"),
        pytest.param("y,0\nb,6\n", "y", [[6]], ["b"], "0", id="numbered header, label by name"),
        pytest.param("1,2,cat\n3,4,dog", None, [[1, 2], [3, 4]], ["cat", "dog"], "x0 x1", id="str"),
        pytest.param("1,0.5\n2,1\n", None, [[1], [2]], [0.5, 1.0], "x0", id="float labels"),
        pytest.param("1,1_0\n2,2_0\n", None, [[1], [2]], ["1_0", "2_0"], "x0", id="underscore"),
        pytest.param("1,007\n", None, [[1]], [7], "x0", id="leading zeros"),
        pytest.param("1,99999999999999999999\n", None, [[1]], [1e20], "x0", id="beyond int64"),
        pytest.param(
            "\n a , b \r\n\r\n -1e-3 , x y \r\n", None, [[-1e-3]], ["x y"], "a", id="space"
        ),
        pytest.param("\ufeffa,b\n1,2\n", "a", [[2]], [1], "b", id="byte order mark"),
        pytest.param('"a,1","b\n2"\n"1",2\n', None, [[1]], [2], "a,1", id="quotes"),
        pytest.param('1, "a, b"\n', None, [[1]], ["a, b"], "x0", id="space before a quote"),
    ],
)
def test_csv(table, text, label, X, y, names):
    read_X, read_y, read_names = read_table(table(text), label)
    assert read_X.dtype == np.float64
    assert read_X.tolist() == X
    assert read_y.dtype.kind == np.array(y).dtype.kind
    assert read_y.tolist() == y
    assert read_names == tuple(names.split(" "))


@examples
@given(
    X=st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
        min_size=1,
        max_size=8,
    )
)
def test_csv_keeps_every_bit(tmp_path_factory, X):
    path = tmp_path_factory.getbasetemp() / "bits.csv"
    path.write_text("".join(f"{a!r},{b!r},7\n" for a, b in X))
    read_X, y, _ = read_table(path)
    assert read_X.tobytes() == np.array(X).tobytes()
    assert y.tolist() == [7] * len(X)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("", None, "0 columns separated by commas, expected at least one feature"),
        ("\n\n", None, "0 columns"),
        ("a;b;c\n1;2;3\n", None, "1 columns separated by commas"),
        ("a,b\n", None, "a header, but no rows"),
        ("a,b\n1,2\noops,3\n", None, "line 3, column 1: 'oops' is not a finite number"),
        ("a,b,c\n1,oops,3\n", "a", "line 2, column 2: 'oops' is not a finite number"),
        ("a,b,c\n\n1,,3\n", None, "line 3, column 2: '' is not a finite number"),
        ("1,2\nnan,3\n", None, "line 2, column 1: 'nan' is not a finite number"),
        ("1,2\n-inf,3\n", None, "line 2, column 1: '-inf' is not a finite number"),
        ("1,2\n1e999,3\n", None, "line 2, column 1: '1e999' is not a finite number"),
        ("1,2\n1_0,3\n", None, "line 2, column 1: '1_0' is not a finite number"),
        ("1,2\n3,\n", None, "line 2, column 2: the label is missing"),
        ("1,a\n3,NaN\n", None, "line 2, column 2: the label is missing: 'NaN'"),
        ("1,2\n3,-inf\n", None, "line 2, column 2: the label is missing: '-inf'"),
        ("1,2,3\n4,5\n", None, "line 2: 2 columns, expected 3"),
        ("a,b\n1,2\n4,5,6\n", None, "line 3: 3 columns, expected 2"),
        ("a,b\n1,2\n", "c", "label: .* has no column 'c'; it begins with the line a, b"),
        ("a,b\n1,2\n", 2, "label: .* has no column 2"),
        ("a,b\n1,2\n", -3, "label: .* has no column -3"),
        ('1,2\n3,"4', None, "line 2: unexpected end of data"),
        (b"1,2\n\xff\xfe,3\n", None, "can't decode byte 0xff"),
    ],
)
def test_csv_that_is_wrong(table, text, label, message):
    path = table(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path, label)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "missing.npz"])
def test_table_missing(tmp_path, name):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / name)


# --- npz ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8", "i8", "?"])
@pytest.mark.parametrize("y", [[0, 1, 1], [0.5, 1.0, 2.0], ["a", "b", "c"], [[0, 1]] * 3])
def test_npz(tmp_path, dtype, y):
    X = np.arange(6).reshape(3, 2).astype(dtype)
    np.savez_compressed(tmp_path / "t.npz", X=X, y=np.array(y), unused=np.zeros(4))
    read_X, read_y, names = read_table(str(tmp_path / "t.npz"))
    assert read_X.dtype == X.dtype
    np.testing.assert_array_equal(read_X, X)
    assert read_y.tolist() == y
    assert names == ("x0", "x1")


def test_npz_label(tmp_path):
    np.savez(tmp_path / "t.npz", X=np.ones((2, 1)), species=[3, 4], y=[0, 0])
    assert read_table(tmp_path / "t.npz", "species")[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected the array X, found nothing"),
        ({"x": np.ones((2, 1)), "y": [0, 1]}, "expected the array X, found x, y"),
        ({"X": np.ones((2, 1)), "Y": [0, 1]}, "expected the array y, found X, Y"),
        ({"X": np.ones(2), "y": [0, 1]}, r"X is float64 of shape \(2,\), expected numbers"),
        ({"X": np.ones((0, 3)), "y": []}, r"X is float64 of shape \(0, 3\)"),
        ({"X": np.array([["a"]]), "y": [0]}, "X is <U1"),
        ({"X": np.ones((1, 1), complex), "y": [0]}, "X is complex128"),
        ({"X": np.ones((2, 1)), "y": [0]}, r"y is int64 of shape \(1,\), expected .* \(2,\)"),
        ({"X": np.ones((2, 1)), "y": np.ones((2, 1, 1))}, "y is float64 of shape"),
        ({"X": np.ones((2, 1)), "y": np.array([0, None])}, "broken npz archive: Object arrays"),
        ({"X": np.array([[0, 1], [np.nan, 0]]), "y": [0, 1]}, r"X\[1, 0\] is not a finite"),
        ({"X": np.ones((2, 1), "f2"), "y": [0, np.inf]}, r"y\[1\] is not a finite"),
    ],
)
def test_npz_that_is_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_table(tmp_path / "t.npz")
    assert str(tmp_path / "t.npz") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"1,2,3\n", b"\x93NUMPY", b"PK\x03\x04" + bytes(60)])
def test_npz_that_is_no_archive(table, content):
    with pytest.raises(ValueError, match=r"table\.npz: not an npz archive"):
        read_table(table(content, "table.npz"))


@examples
@given(data=st.data())
def test_npz_damaged_anywhere(tmp_path_factory, data):
    """Zip does not guard everything that it writes; the values it does."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez(path, X=np.ones((4, 2)), y=np.arange(4))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    read = value_or_error(lambda: read_table(path))
    if isinstance(read, ValueError):
        assert str(path) in str(read)
    else:
        assert read[0].tolist() == [[1, 1]] * 4
        assert read[1].tolist() == [0, 1, 2, 3]


def test_npz_that_states_more_than_it_holds(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 2), }"
    member = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(64)
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("X.npy", member)
        archive.writestr("y.npy", member)
    with pytest.raises(ValueError, match="broken npz archive"):
        read_table(tmp_path / "t.npz")
