"""Model files: round trips, damaged and hostile files, writes that fail half way."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastmlp import SGD, Activation, Dense, Loss, Network
from fastmlp.activations import ACTIVATIONS
from fastmlp.losses import LOSSES

SINE = Activation(np.sin, lambda dA, Z, A: dA * np.cos(Z), name="sine")
ABSOLUTE = Loss(
    lambda A, Y: np.abs(A - Y).sum(axis=1), lambda A, Y: np.sign(A - Y), name="absolute"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def net(make_network):
    return make_network("numpy", "float32")


@pytest.fixture
def saved(net, path):
    """A model file, `net` in it."""
    net.metadata["classes"] = ["a", "b", "c"]
    net.save(path)
    return path


def load(path):
    return Network.load(path, backend="numpy")


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [str, lambda path: path], ids=["str", "Path"])
def test_round_trip(backend, dtype, make_network, make_data, path, convert):
    net = make_network(backend, dtype)
    X, y = make_data(net, 9)
    net.fit(X, y, epochs=1)
    net.metadata = {"classes": ["ä", "b"], "mean": 0.5, "nested": {"list": [1, None, True]}}
    net.save(convert(path))
    loaded = Network.load(convert(path), seed=7, backend=backend)
    assert loaded.architecture == net.architecture
    assert loaded.arena.flat.tobytes() == net.arena.flat.tobytes()
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    assert loaded.metadata == net.metadata
    assert loaded.backend is net.backend
    twin = Network.load(path, seed=7, backend=backend)
    for each in (loaded, twin):
        each.fit(X, y, optimizer=SGD(0.1), epochs=2, batch_size=4)
    assert loaded.arena.flat.tobytes() == twin.arena.flat.tobytes()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_part_is_kept(path, activation, loss):
    output = activation if LOSSES[loss].takes(ACTIVATIONS[activation]) else "sigmoid"
    net = Network(3, [Dense(4, activation), Dense(2, output)], loss=loss, backend="numpy")
    net.save(path)
    assert load(path).architecture == net.architecture


def test_own_parts_are_given_again(path):
    net = Network(3, [Dense(4, SINE), Dense(1)], loss=ABSOLUTE, seed=0)
    net.save(path)
    custom = {"sine": SINE, "absolute": ABSOLUTE}
    loaded = Network.load(path, custom=custom)
    assert loaded.architecture == net.architecture
    X = np.ones((2, 3))
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    for name, kind in [("sine", "activation"), ("absolute", "loss")]:
        fewer = {key: value for key, value in custom.items() if key != name}
        with pytest.raises(
            ValueError, match=rf"{path}: {kind} '{name}' is not known; pass it in cus"
        ):
            Network.load(path, custom=fewer)


def test_the_official_reader_reads_it(net, saved):
    tensors = load_file(saved)
    assert sorted(tensors) == ["0.W", "0.b", "1.W", "1.b", "2.W", "2.b"]
    for i, pair in enumerate(net.parameters):
        for name, values in zip("Wb", pair, strict=True):
            assert tensors[f"{i}.{name}"].dtype == np.float32
            np.testing.assert_array_equal(tensors[f"{i}.{name}"], values)


def test_saving_and_loading_do_not_change_the_network(net, path, state_of):
    before = state_of(net)
    net.save(path)
    load(path).parameters[0][0][...] = 7
    assert state_of(net) == before
    assert load(path).arena.flat.tobytes() == net.arena.flat.tobytes()


def test_a_network_can_be_saved_over_another(saved, make_network):
    other = make_network("numpy", "float64", widths=(2, 3), seed=5)
    other.save(saved)
    assert load(saved).architecture == other.architecture


@pytest.mark.parametrize("value", [np.nan, {1, 2}, np.float32(1), 1j, b"bytes"], ids=repr)
def test_metadata_that_json_cannot_hold_are_refused(net, path, value):
    net.metadata["value"] = value
    with pytest.raises(ValueError, match="metadata: expected what JSON can hold"):
        net.save(path)
    assert list(path.parent.iterdir()) == []


# --- Files that cannot be read --------------------------------------------------------------------


def test_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"net\.safetensors"):
        load(path)


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_every_truncation_is_refused(saved):
    content = saved.read_bytes()
    for length in range(len(content)):
        write_anew(saved, content[:length])
        assert_refused(saved)


def test_bytes_behind_the_end_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert_refused(saved)


def header_and_data(path):
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def file_of(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def write_anew(path, content):
    """Faster by far than to overwrite a file, which some file systems sync to the disk."""
    path.unlink()
    path.write_bytes(content)


def assert_refused(path, message=None):
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert type(caught.value) is ValueError
    assert str(caught.value).startswith(f"{path}: ")


def test_every_flipped_byte_of_the_header_is_refused_or_harmless(net, saved):
    """Harmless: in the user's metadata, or in spelling that JSON does not mind."""
    header, data = header_and_data(saved)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # in any order until here
    content = file_of(header, data)
    write_anew(saved, content)
    assert load(saved).arena.flat.tobytes() == net.arena.flat.tobytes()
    size = len(content) - len(data)
    messages = []
    for position in range(size):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            write_anew(saved, damaged)
            try:
                loaded = load(saved)
            except ValueError as error:
                messages.append(str(error))
            else:
                assert loaded.architecture.widths == net.architecture.widths
                assert np.isfinite(loaded.arena.flat).all()
    assert all(message.startswith(f"{saved}: ") for message in messages)
    assert len(messages) > 0.9 * 4 * size


def rewrite(path, change_header=None, change_tensors=None):
    """Write the file anew, with another header or other tensors."""
    header = header_and_data(path)[0]["__metadata__"]
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    if change_header is not None:
        change_header(header)
    if change_tensors is not None:
        change_tensors(tensors)
    save_file(tensors, path, header)


def in_architecture(**parts):
    def change(header):
        header["architecture"] = json.dumps({**json.loads(header["architecture"]), **parts})

    return change


def without(key):
    return lambda header: header.pop(key)


def first_layer(**parts):
    def change(header):
        description = json.loads(header["architecture"])
        description["layers"][0].update(parts)
        header["architecture"] = json.dumps(description)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.clear(), "not one of fastmlp's models"),
        (lambda header: header.update(format="other"), "not one of fastmlp's models"),
        (lambda header: header.update(version="2"), "model file version '2'; this fastmlp reads"),
        (without("version"), "model file version ''"),
        (without("architecture"), "description in the header is damaged"),
        (without("metadata"), "description in the header is damaged"),
        (lambda header: header.update(metadata="[1]"), r"is damaged \(metadata\)"),
        (lambda header: header.update(metadata="{"), "description in the header is damaged"),
        (lambda header: header.update(architecture="[" * 10**5), "header is damaged"),
        (lambda header: header.update(architecture="3"), None),
        (lambda header: header.update(architecture="null"), None),
        (lambda header: header.update(architecture="{}"), "the description in the header lacks"),
        (in_architecture(layers=[]), "layers: expected at least one layer"),
        (in_architecture(layers=3), None),
        (in_architecture(layers=None), None),
        (in_architecture(layers={"a": 1}), None),
        (in_architecture(layers=[[]]), None),
        (in_architecture(n_inputs=6), r"array 0.W: expected \(6, 7\) of F32, found \(5, 7\)"),
        (in_architecture(n_inputs=10**30), "array 0.W: expected"),
        (in_architecture(n_inputs=-5), "n_inputs: expected at least 1"),
        (in_architecture(n_inputs=5.0), "n_inputs: expected an integer"),
        (in_architecture(n_inputs="5"), "n_inputs: expected an integer"),
        (in_architecture(dtype="float64"), "array 0.W: expected .* of F64, found .* of F32"),
        (in_architecture(dtype="float16"), "dtype: expected float32 or float64"),
        (in_architecture(dtype="object"), "dtype: expected float32 or float64"),
        (in_architecture(dtype="no such type"), None),
        (in_architecture(dtype=[["a", "f4"]]), None),
        (in_architecture(loss="unknown"), "loss 'unknown' is not known"),
        (in_architecture(loss=["mse"]), r"loss \['mse'\] is not known"),
        (in_architecture(loss=None), "loss None is not known"),
        (first_layer(type="Convolution"), "layer type 'Convolution' is not known"),
        (first_layer(activation="unknown"), "activation 'unknown' is not known"),
        (first_layer(activation="cross_entropy"), "activation 'cross_entropy' is not known"),
        (first_layer(n_units=8), "array 0.W: expected"),
        (first_layer(n_units=10**15), "array 0.W: expected"),
        (first_layer(n_units=0), "n_units: expected at least 1"),
        (first_layer(n_units=None), "n_units: expected an integer"),
    ],
)
def test_lying_headers_are_refused(saved, change, message):
    rewrite(saved, change_header=change)
    assert_refused(saved, message)


def _replace(name, array):
    return lambda tensors: tensors.update({name: array})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_replace("0.W", np.ones((7, 5), "f4")), r"array 0.W: expected \(5, 7\) .*found \(7, 5\)"),
        (_replace("0.W", np.ones(35, "f4")), r"array 0.W: expected \(5, 7\) .*found \(35,\)"),
        (_replace("2.b", np.ones((), "f4")), r"array 2.b: expected \(3,\) .*found \(\)"),
        (_replace("1.b", np.ones(4, "f8")), "array 1.b: expected .* of F32, found .* of F64"),
        (_replace("1.b", np.ones(4, "f2")), "array 1.b: expected .* of F32, found .* of F16"),
        (_replace("1.b", np.ones(4, "i4")), "array 1.b: expected .* of F32, found .* of I32"),
        (_replace("3.W", np.ones(4, "f4")), r"expected the arrays \['0.W'.*, found .*'3.W'"),
        (lambda tensors: tensors.pop("1.W"), r"expected the arrays \['0.W'.*, found \['0.W'"),
        (lambda tensors: tensors.clear(), r"expected the arrays .*, found \[\]"),
        (_replace("2.b", np.array([1, np.nan, 1], "f4")), "expected finite parameters"),
        (_replace("2.b", np.array([1, -np.inf, 1], "f4")), "expected finite parameters"),
    ],
)
def test_wrong_tensors_are_refused(saved, change, message):
    rewrite(saved, change_tensors=change)
    assert_refused(saved, message)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_safetensors_are_refused(path, metadata):
    save_file({"0.W": np.ones((5, 7), np.float32)}, path, metadata)
    assert_refused(path, "a safetensors file, but not one of fastmlp's models")


class Exploit:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"\x93NUMPY\x01\x00", b"PK\x03\x04" * 20, pickle.dumps(Exploit())],
    ids=["empty", "zeros", "npy", "zip", "pickle"],
)
def test_other_files_are_refused_and_run_nothing(path, content):
    path.write_bytes(content)
    assert_refused(path, "no model file, or a damaged one")


def huge_files(header):
    """Files of a few bytes that claim a great many."""
    architecture = json.loads(header["architecture"])
    architecture["layers"] = [{"type": "Dense", "n_units": 1 << 40, "activation": "tanh"}]
    claims = {
        "__metadata__": {**header, "architecture": json.dumps(architecture)},
        "0.W": {"dtype": "F32", "shape": [5, 1 << 40], "data_offsets": [0, 20 << 40]},
        "0.b": {
            "dtype": "F32",
            "shape": [1 << 40],
            "data_offsets": [20 << 40, 24 << 40],
        },
    }
    yield file_of(claims)
    yield file_of({**claims, "0.W": {**claims["0.W"], "data_offsets": [0, 0]}})
    yield file_of({**claims, "0.W": {**claims["0.W"], "shape": [1 << 63, 1 << 63]}})
    yield file_of({**claims, "0.W": {**claims["0.W"], "shape": [-5, 1 << 40]}})
    for length in (1 << 30, 1 << 40, 1 << 63, (1 << 64) - 1):
        yield struct.pack("<Q", length) + b"{}"


LOAD_WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from fastmlp import Network
import safetensors

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        Network.load(path, backend="numpy")
    except ValueError as error:
        assert str(error).startswith(path + ": "), error
    else:
        raise AssertionError(path)
print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_claims_of_huge_sizes_take_no_memory(saved, tmp_path, run_python):
    paths = []
    for i, claim in enumerate(huge_files(header_and_data(saved)[0]["__metadata__"])):
        paths.append(tmp_path / f"{i}.safetensors")
        paths[-1].write_bytes(claim)
    assert run_python(LOAD_WITH_LITTLE_MEMORY, *paths) == "refused\n"


# --- Writes that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace", "fdopen", "chmod"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failed_write_leaves_the_old_file(saved, make_network, monkeypatch, function, error):
    def fail(*arguments, **options):
        raise error

    content = saved.read_bytes()
    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        make_network("numpy", seed=9).save(saved)
    assert saved.read_bytes() == content
    assert list(saved.parent.iterdir()) == [saved]


SAVE_TO_A_FULL_DISK = """
import resource, sys
from fastmlp import Dense, Network

net = Network(100, [Dense(100)], loss="mse", backend="numpy")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    net.save(sys.argv[1])
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_full_disk_leaves_the_old_file(saved, run_python):
    content = saved.read_bytes()
    assert run_python(SAVE_TO_A_FULL_DISK, saved) == "OSError\n"
    assert saved.read_bytes() == content
    assert list(saved.parent.iterdir()) == [saved]


SAVE_AND_BE_KILLED = """
import os, signal, sys
from fastmlp import Dense, Network

net = Network(100, [Dense(100)], loss="mse", backend="numpy")
setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
net.save(sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_killed_write_leaves_the_old_file(saved, net, start_python, function):
    content = saved.read_bytes()
    with start_python(SAVE_AND_BE_KILLED, saved, function) as child:
        child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert saved.read_bytes() == content
    assert load(saved).arena.flat.tobytes() == net.arena.flat.tobytes()
    net.save(saved)
    assert load(saved).arena.flat.tobytes() == net.arena.flat.tobytes()


def test_a_folder_is_not_replaced(net, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        net.save(folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_a_missing_folder_is_an_error(net, tmp_path):
    with pytest.raises(FileNotFoundError):
        net.save(tmp_path / "missing" / "net.safetensors")


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_file_modes(net, path, umask):
    """New files follow the umask; a file that is there keeps its mode."""
    net.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o604)
    net.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert os.umask(umask) == umask
