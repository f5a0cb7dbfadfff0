"""Trainings that are interrupted and go on: the same bits, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from fastmlp import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Averaged,
    BatchNorm,
    Callback,
    Checkpoint,
    Dense,
    Dropout,
    EarlyStopping,
    LayerNorm,
    Nadam,
    Network,
    RMSprop,
)
from fastmlp.callbacks import LambdaCallback, TimeBudget
from fastmlp.schedules import (
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)

TIMES = ("seconds", "samples_per_second")


def records_of(network):
    """Without what the clock says."""
    return [{k: v for k, v in r.items() if k not in TIMES} for r in network.history.records]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.safetensors"


class Killed(BaseException):
    pass


def kill_after(epoch):
    """As a kill between two epochs; after the checkpoint."""

    def act(network, record):
        if record["epoch"] == epoch:
            raise Killed

    callback = LambdaCallback(on_epoch_end=act)
    callback.order = 3
    return callback


CASES = [
    (SGD(0.05), 1),
    (SGD(StepDecay(0.05, 7), momentum=0.9), 4),
    (SGD(WarmUp(CosineDecay(0.1, 4, cycles=None), 3), momentum=0.9, nesterov=True), 4),
    (RMSprop(ExponentialDecay(0.01, 5)), 4),
    (Adagrad(InverseScaling(0.1)), 4),
    (Adam(OneCycle(0.02, 15)), 4),
    (AdamW(ReduceOnPlateau(0.01, patience=1, min_delta=0.05)), 4),
    (Averaged(SGD(StepDecay(0.05, 7), momentum=0.9), 0.9), 4),
    (Nadam(WarmUp(ReduceOnPlateau(0.01, patience=1, min_delta=0.05), 2)), 10),
]


@pytest.mark.parametrize(("optimizer", "batch_size"), CASES, ids=str)
def test_a_resumed_training_is_the_uninterrupted_one(
    backend, dtype, make_network, make_data, state_of, path, optimizer, batch_size
):
    """Interrupted twice, by exceptions and without; the optimizer given again and not."""
    whole, net = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(whole, 10)
    settings = {"batch_size": batch_size, "validation_data": (X[:5], y[:5])}
    whole.fit(X, y, optimizer=optimizer, epochs=7, **settings)
    with pytest.raises(Killed):
        net.fit(
            *(X, y),
            optimizer=optimizer,
            epochs=7,
            callbacks=[kill_after(2), Checkpoint(path)],
            **settings,
        )
    net = Network.load(path, backend=backend)
    assert net.history.last_epoch == 2
    net.fit(X, y, epochs=3, callbacks=[Checkpoint(path)], **settings)
    net = Network.load(path, backend=backend)
    net.fit(X, y, optimizer=optimizer, epochs=2, **settings)
    assert state_of(net) == state_of(whole)
    assert net.optimizer_state.schedule == whole.optimizer_state.schedule
    assert records_of(net) == records_of(whole)


def regularised(backend, dtype):
    """Masks of every epoch, statistics that run along, penalties."""
    layers = [
        *(Dropout(0.2), Dense(6, "relu", l2=1e-3), BatchNorm(), Dropout(0.3)),
        *(Dense(5, "tanh"), LayerNorm(), Dense(3, "softmax")),
    ]
    return Network(5, layers, loss="cross_entropy", seed=0, dtype=dtype, backend=backend)


@pytest.mark.parametrize("restore_best", [False, True])
def test_layers_that_change_in_training_go_on_too(
    backend, dtype, make_data, state_of, path, restore_best
):
    whole, net = regularised(backend, dtype), regularised(backend, dtype)
    X, y = make_data(whole, 10)
    settings = {"batch_size": 4, "validation_data": (X[:5], y[:5]), "clip_norm": 0.5}

    def callbacks(*more):
        # Only the first epoch is an improvement, so the best is one of before the interruption.
        best = [EarlyStopping(min_delta=100)] if restore_best else []
        return [*best, Checkpoint(path), *more]

    whole.fit(X, y, optimizer=Averaged(Adam()), epochs=6, callbacks=callbacks(), **settings)
    killed = callbacks(kill_after(3))
    with pytest.raises(Killed):
        net.fit(X, y, optimizer=Averaged(Adam()), epochs=6, callbacks=killed, **settings)
    net = Network.load(path, backend=backend)
    net.fit(X, y, epochs=3, callbacks=callbacks(), **settings)
    assert state_of(net) == state_of(whole)
    assert records_of(net) == records_of(whole)
    assert net.predict(X).tobytes() == whole.predict(X).tobytes()
    assert net.optimizer_state.step == (3 if restore_best else 18)


def test_what_is_restored(backend, dtype, make_network, make_data, state_of, path):
    net = make_network(backend, dtype)
    X, y = make_data(net, 10)
    net.fit(X, y, optimizer=Adam(CosineDecay(0.01, 9)), epochs=2)
    net.metadata = {"classes": ["a", "b"]}
    net.save(path, training=True)
    loaded = Network.load(path, backend=backend)
    assert state_of(loaded) == state_of(net)
    assert loaded.history == net.history
    assert loaded.optimizer_state.optimizer == net.optimizer_state.optimizer
    assert loaded.metadata == net.metadata
    net.save(path)
    plain = Network.load(path, backend=backend)
    assert plain.optimizer_state is None
    assert plain.history.records == []


def test_a_network_that_was_never_trained(make_network, make_data, state_of, path):
    net = make_network("numpy")
    net.save(path, training=True)
    loaded = Network.load(path, backend="numpy")
    assert state_of(loaded) == state_of(net)
    X, y = make_data(net, 10)
    for each in (net, loaded):
        each.fit(X, y, epochs=1)
    assert state_of(loaded) == state_of(net)


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_random_numbers_of_every_generator(make_network, path, kind):
    net = make_network("numpy")
    net.rng = np.random.Generator(getattr(np.random, kind)(5))
    net.rng.permutation(7)
    net.rng.integers(0, 100, dtype=np.uint32)  # half of a word is kept for the next call
    net.save(path, training=True)
    loaded = Network.load(path)
    assert type(loaded.rng.bit_generator).__name__ == kind
    for draw in ("permutation", "standard_normal"):
        expected = getattr(net.rng, draw)(50)
        np.testing.assert_array_equal(getattr(loaded.rng, draw)(50), expected)
    assert Network.load(path, seed=3).rng.random() == np.random.default_rng(3).random()


# --- Callbacks ------------------------------------------------------------------------------------


def noise(seed):
    """A validation loss that goes up and down, the same for the same epoch."""

    def act(network, record):
        record["val_loss"] = float(np.random.default_rng([seed, record["epoch"]]).random())

    return LambdaCallback(on_epoch_end=act)


@given(seed=st.integers(0, 100), cut=st.integers(1, 8))
def test_early_stopping_and_the_best_file_go_on(seed, cut):
    """Whole and resumed stop at the same epoch, with the same network and the same best file."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((10, 5)), rng.integers(0, 3, 10)

    def network():
        layers = [Dense(4, "tanh"), Dense(3, "softmax")]
        return Network(5, layers, loss="cross_entropy", seed=0, backend="numpy")

    def callbacks(folder, *more):
        return [
            Checkpoint(f"{folder}/last"),
            Checkpoint(f"{folder}/best", keep="best"),
            EarlyStopping(patience=3),
            noise(seed),
            *more,
        ][::-1]

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole, net = network(), network()
        ended = whole.fit(X, y, epochs=12, callbacks=callbacks(one)).stop_reason
        try:
            net.fit(X, y, epochs=12, callbacks=callbacks(two, kill_after(cut)))
        except Killed:
            net = Network.load(f"{two}/last", backend="numpy")
            left = 12 - net.history.last_epoch
            assert net.fit(X, y, epochs=left, callbacks=callbacks(two)).stop_reason == ended
        assert records_of(net) == records_of(whole)
        assert net.arena.flat.tobytes() == whole.arena.flat.tobytes()
        assert net.optimizer_state.step == whole.optimizer_state.step
        for name in ("last", "best"):
            a, b = (Network.load(f"{folder}/{name}", backend="numpy") for folder in (one, two))
            assert records_of(a) == records_of(b)
            assert a.arena.flat.tobytes() == b.arena.flat.tobytes()


def test_a_time_budget_goes_on(make_network, make_data, path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fastmlp.callbacks.perf_counter", lambda: now[0])

    def pass_time(network, record):
        now[0] += 10

    def callbacks():
        return [LambdaCallback(on_epoch_end=pass_time), TimeBudget(45), Checkpoint(path)]

    net = make_network("numpy")
    data = make_data(net, 10)
    with pytest.raises(Killed):
        net.fit(*data, epochs=9, callbacks=[*callbacks(), kill_after(2)])
    now[0] += 1000
    net = Network.load(path, backend="numpy")
    net.fit(*data, epochs=7, callbacks=callbacks())
    assert net.history.last_epoch == 5
    net = Network.load(path, backend="numpy")
    assert net.fit(*data, epochs=7, callbacks=callbacks()).stop_reason == "TimeBudget"
    assert net.history.last_epoch == 5


class Counter(Callback):
    def on_fit_begin(self, network, **_):
        self.counts = np.zeros(3)

    def on_epoch_end(self, network, record):
        self.counts[record["epoch"] % 3] += 1

    def state(self):
        return {"counts": self.counts, "note": ["JSON", 1.5, None]}

    def restore(self, network, state):
        assert state["note"] == ["JSON", 1.5, None]
        self.counts = state["counts"].copy()


def test_callbacks_of_your_own_have_a_state_too(make_network, make_data, path):
    net = make_network("numpy")
    data = make_data(net, 10)
    net.fit(*data, epochs=4, callbacks=[Counter(), Checkpoint(path), Counter()])
    net = Network.load(path, backend="numpy")
    counters = [Counter(), Counter(), Counter()]
    net.fit(*data, epochs=1, callbacks=counters)
    assert [counter.counts.tolist() for counter in counters] == [[1, 2, 2], [1, 2, 2], [0, 0, 1]]
    net.fit(*data, epochs=1, callbacks=counters)
    assert counters[0].counts.tolist() == [1, 0, 0]
    assert net.callbacks == ()


@dataclass(frozen=True)
class Halving(Schedule):
    lr: float

    def values(self, t):
        return self.lr / 2**t


def test_schedules_of_your_own_are_given_again(make_network, make_data, state_of, path):
    net = make_network("numpy")
    data = make_data(net, 10)
    net.fit(*data, optimizer=SGD(WarmUp(Halving(0.5), 2)), epochs=2)
    net.save(path, training=True)
    with pytest.raises(ValueError, match=r"'Halving' is not known; pass it in custom=\{name"):
        Network.load(path)
    loaded = Network.load(path, custom={"Halving": Halving}, backend="numpy")
    assert loaded.optimizer_state.optimizer == net.optimizer_state.optimizer
    assert state_of(loaded) == state_of(net)


def test_functions_as_schedules_cannot_be_saved(make_network, make_data, path, state_of):
    """Found out before the first epoch."""
    net = make_network("numpy")
    data = make_data(net, 10)
    message = "expected a number or a Schedule as lr to save the training, got a plain function"
    with pytest.raises(ValueError, match=message):
        net.fit(*data, optimizer=SGD(lambda step: 0.1), callbacks=[Checkpoint(path)])
    assert net.history.records == []
    with pytest.raises(ValueError, match=message):
        net.save(path, training=True)
    assert not path.exists()


# --- When it saves --------------------------------------------------------------------------------


def files_and_epochs(folder):
    return {
        path.name: Network.load(path, backend="numpy").history.last_epoch
        for path in sorted(folder.iterdir())
    }


def test_every_n_epochs_and_at_the_end(make_network, make_data, tmp_path):
    net = make_network("numpy")
    data = make_data(net, 10)
    saved = []
    look = LambdaCallback(on_epoch_end=lambda *_: saved.append(files_and_epochs(tmp_path)))
    look.order = 3
    net.fit(*data, epochs=5, callbacks=[Checkpoint(tmp_path / "a", every=2), look])
    assert saved == [{}, {"a": 2}, {"a": 2}, {"a": 4}, {"a": 4}]
    assert files_and_epochs(tmp_path) == {"a": 5}
    with pytest.raises(Killed):
        net.fit(*data, epochs=5, callbacks=[Checkpoint(tmp_path / "a", every=4), kill_after(7)])
    assert files_and_epochs(tmp_path) == {"a": 5}


def test_the_last_checkpoint_is_the_last_epoch_though_the_best_is_restored(
    make_network, make_data, tmp_path
):
    net = make_network("numpy")
    X, y = make_data(net, 10)
    worse = LambdaCallback(on_epoch_end=lambda net, record: record.update(loss=record["epoch"]))
    net.fit(X, y, epochs=3, callbacks=[worse, EarlyStopping(), Checkpoint(tmp_path / "a", every=9)])
    last = Network.load(tmp_path / "a", backend="numpy")
    assert (last.history.last_epoch, last.optimizer_state.step) == (3, 3)
    assert net.optimizer_state.step == 1


def test_a_file_for_each_epoch(make_network, make_data, tmp_path):
    net = make_network("numpy")
    data = make_data(net, 10)
    net.fit(*data, epochs=5, callbacks=[Checkpoint(tmp_path / "{epoch:03d}.net", every=2)])
    assert files_and_epochs(tmp_path) == {"002.net": 2, "004.net": 4, "005.net": 5}


def test_the_best(make_network, make_data, tmp_path):
    net = make_network("numpy")
    scores = iter([0.5, 0.7, 0.6, 0.8, 0.8, 0.1])
    score = LambdaCallback(on_epoch_end=lambda net, record: record.update(val_f1=next(scores)))
    best = Checkpoint(tmp_path / "best{epoch}", keep="best", monitor="val_f1")
    net.fit(*make_data(net, 10), epochs=6, callbacks=[best, score])
    assert files_and_epochs(tmp_path) == {"best1": 1, "best2": 2, "best4": 4}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"keep": "all"}, ValueError, "keep: expected 'last' or 'best', got 'all'"),
        ({"every": 0}, ValueError, "every: expected at least 1, got 0"),
        ({"every": 0.5}, TypeError, "every: expected an integer, got float"),
        ({"path": "{step}"}, ValueError, "path: expected no other braces than {epoch}"),
        ({"path": "{"}, ValueError, "path: expected no other braces"),
        ({"mode": "up"}, ValueError, "mode: expected"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Checkpoint(**{"path": "a", **settings})


# --- Writes that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["missing/a", "file/a", "folder"])
def test_a_place_that_cannot_be_written_shows_at_once(make_network, make_data, tmp_path, where):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    net = make_network("numpy")
    before = net.arena.flat.tobytes()
    with pytest.raises(OSError, match=str(tmp_path)):
        net.fit(*make_data(net, 10), callbacks=[Checkpoint(tmp_path / where)])
    assert net.arena.flat.tobytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_shows_at_once(make_network, make_data, tmp_path):
    tmp_path.chmod(0o500)
    net = make_network("numpy")
    with pytest.raises(PermissionError, match=str(tmp_path)):
        net.fit(*make_data(net, 10), callbacks=[Checkpoint(tmp_path / "a")])
    assert net.history.records == []


def test_a_full_disk_leaves_the_last_good_file_and_a_valid_network(
    make_network, make_data, state_of, path, monkeypatch
):
    whole, net = make_network("numpy"), make_network("numpy")
    data = make_data(net, 10)
    whole.fit(*data, epochs=5)

    def fill_the_disk(network, record):
        if record["epoch"] == 3:

            def fail(*_):
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, "fsync", fail)

    full = LambdaCallback(on_epoch_end=fill_the_disk)
    with pytest.raises(OSError, match="No space left on device"):
        net.fit(*data, epochs=5, callbacks=[full, Checkpoint(path)])
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == [path]
    loaded = Network.load(path, backend="numpy")
    assert loaded.history.last_epoch == 2
    loaded.fit(*data, epochs=3)
    net.fit(*data, epochs=2)
    assert state_of(loaded) == state_of(net) == state_of(whole)


FIT_AND_BE_KILLED = """
import io, os, signal, sys
import numpy as np
from fastmlp import Adam, Checkpoint, Dense, Network

path, backend, epochs, function, at_call = sys.argv[1:]
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 8)), rng.integers(0, 3, 40)
try:
    net = Network.load(path, backend=backend)
except FileNotFoundError:
    net = Network(8, [Dense(16, "relu"), Dense(3, "softmax")], loss="cross_entropy", seed=0,
                  backend=backend)

calls = 0

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

if function == "write":
    original = os.fdopen

    class HalfWritten(io.FileIO):
        def write(self, content):
            global calls
            calls += 1
            if calls == int(at_call):
                super().write(content[: len(content) // 2])
                kill()
            return super().write(content)

    os.fdopen = lambda handle, mode: HalfWritten(handle, mode)
elif function != "none":
    original = getattr(os, function)

    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls == int(at_call):
            kill()
        return original(*arguments, **options)

    setattr(os, function, wrapped)

net.fit(X, y, optimizer=Adam(1e-2), epochs=int(epochs) - net.history.last_epoch, batch_size=16,
        callbacks=[Checkpoint(path)])
state = net.optimizer_state
print(net.arena.flat.tobytes().hex(), state.moments[1].flat.tobytes().hex(), state.step,
      net.history["loss"], net.rng.bit_generator.state)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_killed_while_it_writes(backend, start_python, run_python, path, tmp_path):
    """SIGKILL in the middle of the file, before and after its sync, before the rename; then again.

    A file is there from the first checkpoint on, it always loads, and what goes on from it ends
    where an uninterrupted training does.
    """
    arguments = backend, 6
    expected = run_python(FIT_AND_BE_KILLED, tmp_path / "whole", *arguments, "none", 0)
    killed_at = [("write", 2), ("fsync", 1), ("replace", 2), ("fsync", 3), ("replace", 1)]
    epochs = []
    for function, call in killed_at:
        with start_python(FIT_AND_BE_KILLED, path, *arguments, function, call) as child:
            _, error = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, error
        epochs.append(Network.load(path).history.last_epoch)
    assert epochs == [1, 1, 2, 3, 3]
    assert run_python(FIT_AND_BE_KILLED, path, *arguments, "none", 0) == expected


# --- Files that lie -------------------------------------------------------------------------------


@pytest.fixture
def saved(make_network, make_data, path):
    """A checkpoint in float32, with moments and early stopping's arrays."""
    net = make_network("numpy", "float32")
    data = make_data(net, 10)
    callbacks = [EarlyStopping(monitor="loss"), Checkpoint(path)]
    net.fit(*data, optimizer=Adam(), epochs=2, callbacks=callbacks)
    return path


def header_of(path):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def rewrite(path, change_training=None, change_tensors=None):
    header, tensors = header_of(path), {k: v.copy() for k, v in load_file(path).items()}
    if change_training is not None:
        training = json.loads(header["training"])
        change_training(training)
        header["training"] = json.dumps(training)
    if change_tensors is not None:
        change_tensors(tensors)
    path.unlink()
    save_file(tensors, path, header)


def put(*keys, value):
    def change(training):
        for key in keys[:-1]:
            training = training[key]
        training[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda training: training.clear(), "description of the training is damaged"),
        (put("optimizer", value=3), "is damaged"),
        (put("optimizer", value={}), "is damaged"),
        (put("optimizer", "rule", value={"lr": 1}), None),
        (put("optimizer", "rule", "name", value="Lion"), "'Lion' is not known; pass it in custom"),
        (put("optimizer", "rule", "name", value="SGD"), None),
        (put("optimizer", "rule", "lr", value=-1), "lr: expected a number in"),
        (put("optimizer", "rule", "lr", value={"name": "Constant"}), None),
        (put("optimizer", "step", value="many"), None),
        (put("random_state", value={}), "is damaged"),
        (put("random_state", "bit_generator", value="os.system"), "'os.system' are not known"),
        (put("random_state", "bit_generator", value="MT19937"), None),
        (put("random_state", "state", value={"state": -1, "inc": 2**200}), None),
        (put("history", value={}), "history: expected a list of records"),
        (put("history", value=[{"loss": 1.0}]), "history: expected numbers"),
        (put("callbacks", value=3), "is damaged"),
        (put("callbacks", value=[]), "is damaged"),
        (put("callbacks", 0, value="EarlyStopping"), "is damaged"),
    ],
)
def test_damaged_descriptions_are_refused(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message) as caught:
        Network.load(saved)
    assert type(caught.value) is ValueError
    assert str(caught.value).startswith(f"{saved}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("moments.1.0.W"), "is damaged .*moments.1.0.W"),
        (lambda t: t.update({"moments.1.0.W": np.ones((5, 6), "f4")}), r"expected \(5, 7\) of fl"),
        (lambda t: t.update({"moments.0.0.b": np.ones(7)}), r"of float32, found \(7,\) of float64"),
        (lambda t: t.update({"moments.0.0.b": np.full(7, np.nan, "f4")}), "expected finite"),
        (lambda t: t.update({"moments.2.0.b": np.ones(7, "f4")}), "moments.2.0.b is not expected"),
        (lambda t: t.update({"callbacks.9.a": np.ones(7)}), "is damaged"),
        (lambda t: t.update({"callbacks.x.a": np.ones(7)}), None),
        (lambda t: t.update({"others": np.ones(7)}), "expected the arrays .*'others'"),
    ],
)
def test_wrong_tensors_are_refused(saved, change, message):
    rewrite(saved, change_tensors=change)
    with pytest.raises(ValueError, match=message) as caught:
        Network.load(saved)
    assert str(caught.value).startswith(f"{saved}: ")


def test_tensors_of_a_training_in_a_plain_model_are_refused(saved):
    header, tensors = header_of(saved), load_file(saved)
    del header["training"]
    save_file(tensors, saved, header)
    with pytest.raises(ValueError, match=r"expected the arrays \['0.W'"):
        Network.load(saved)


def test_every_truncation_is_refused(saved):
    content = saved.read_bytes()
    for length in range(0, len(content), 13):
        saved.unlink()
        saved.write_bytes(content[:length])
        with pytest.raises(ValueError, match="no model file, or a damaged one"):
            Network.load(saved)


def test_a_state_for_another_network_is_refused(saved, make_data):
    rewrite(saved, change_tensors=lambda t: t.update({"callbacks.0.arena.0": np.ones(3, "f4")}))
    net = Network.load(saved)
    with pytest.raises(ValueError, match="saved state of a callback does not fit"):
        net.fit(*make_data(net, 10), epochs=1, callbacks=[EarlyStopping()])


def test_the_old_file_stays_where_another_one_cannot_be_read(saved, tmp_path):
    content = saved.read_bytes()
    other = tmp_path / "other"
    other.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="other: no model file, or a damaged one"):
        Network.load(other)
    assert saved.read_bytes() == content
    assert {path.name for path in Path(tmp_path).iterdir()} == {saved.name, "other"}
