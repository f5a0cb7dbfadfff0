"""Training from chunks and from files: the bits of arrays in memory, flat memory, errors."""

from __future__ import annotations

import json
import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import SGD, Adam, Dense, DivergenceError, Network, feeding, mapped
from fastmlp.feeding import sample_order, sample_orders
from fastmlp.mapped import MappedRows

N = 500


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 6)), rng.integers(0, 3, N), rng.random(N) + 0.1


def network(backend, dtype="float32", seed=0):
    layers = [Dense(5, "tanh"), Dense(3, "softmax")]
    return Network(6, layers, loss="cross_entropy", dtype=dtype, seed=seed, backend=backend)


def chunks_of(*arrays, sizes):
    """Consecutive chunks of these sizes, again and again, until the arrays end."""
    start = 0
    while start < len(arrays[0]):
        for size in sizes:
            if start < len(arrays[0]):
                yield tuple(array[start : start + size] for array in arrays)
            start += size


@pytest.fixture
def _small_blocks(monkeypatch):
    """Blocks of one or two batches; every map counts as large."""
    monkeypatch.setattr(feeding, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(mapped, "LARGE", 0)
    monkeypatch.setattr(mapped, "PIECE", 700)
    monkeypatch.setattr(mapped, "FOLIO", 100)


@pytest.fixture
def memory_map(tmp_path):
    """``memory_map(values, mode)``: the values in a file, mapped."""

    def make(values, mode="r"):
        path = tmp_path / "X.npy"
        np.save(path, values)
        return np.load(path, mmap_mode=mode)

    return make


# --- The same bits --------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_blocks")
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    batch_size=st.sampled_from([1, 7, 32, 10_000]),
)
@settings(max_examples=25)
def test_chunks_train_like_one_array(backend, sizes, batch_size):
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((N, 6)), rng.integers(0, 3, N), rng.random(N) + 0.1
    nets, histories = [], []
    for chunked in (False, True):
        net = network(backend)
        source = lambda: chunks_of(*arrays, sizes=sizes)  # noqa: E731
        data = (source,) if chunked else arrays[:2]
        history = net.fit(
            *data,
            optimizer=SGD(0.01),
            epochs=2,
            batch_size=batch_size,
            shuffle=False,
            sample_weight=None if chunked else arrays[2],
        )
        nets.append(net)
        histories.append(history)
    assert nets[0].arena.flat.tobytes() == nets[1].arena.flat.tobytes()
    assert nets[0].optimizer_state.step == nets[1].optimizer_state.step
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-12)
    assert histories[0]["accuracy"] == histories[1]["accuracy"]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("shuffle", [False, True, "blocks"])
@pytest.mark.parametrize("kind", ["float32", "float64", ">f8", "uint8", "int16"])
def test_a_memory_map_trains_like_the_array(
    backend, dtype, samples, memory_map, shuffle, kind, state_of
):
    X, y, weight = samples
    X = (100 * np.abs(X)).astype(kind)
    states = []
    for source in (X, memory_map(X), memory_map(X, "c")):
        net = network(backend, dtype)
        history = net.fit(
            source,
            y,
            optimizer=Adam(),
            epochs=2,
            batch_size=30,
            shuffle=shuffle,
            sample_weight=weight,
            validation_data=(source, y),
        )
        states.append((state_of(net), history["val_loss"], history["accuracy"]))
        states[-1] += (net.predict(source).tobytes(), net.forward(source).tobytes())
        states[-1] += tuple(dW.tobytes() for dW, db in net.compute_gradient(source, y))
    assert states[0] == states[1] == states[2]


@pytest.mark.usefixtures("_small_blocks")
def test_views_of_a_memory_map(backend, samples, memory_map):
    X, y, _ = samples
    big = memory_map(np.hstack([X, X, X]))
    for view in (big[::2, 3:9], big[::-1, 6:12], np.asarray(big)[:, ::3]):
        n = len(view)
        nets = [network(backend), network(backend)]
        for net, source in zip(nets, (view, np.array(view)), strict=True):
            net.fit(source, y[:n], epochs=1)
        assert nets[0].arena.flat.tobytes() == nets[1].arena.flat.tobytes()


def test_only_large_maps_are_read_in_blocks(samples, memory_map, monkeypatch):
    values = memory_map(samples[0])
    assert not mapped.is_large_map(values)
    monkeypatch.setattr(mapped, "LARGE", values.nbytes - 1)
    assert mapped.is_large_map(values)
    assert mapped.is_large_map(np.asarray(values)[::-1][:N])
    assert not mapped.is_large_map(np.array(values))


@pytest.mark.usefixtures("_small_blocks")
@given(rows=st.lists(st.integers(0, 99), max_size=80), kind=st.sampled_from(["f4", "f8", "u1"]))
def test_rows_of_a_map(tmp_path_factory, rows, kind):
    values = np.arange(400).reshape(100, 4).astype(kind)
    path = tmp_path_factory.mktemp("map") / "X.dat"
    values.tofile(path)
    X = np.memmap(path, kind, "r", shape=values.shape)
    view = MappedRows(X, np.dtype(kind if kind == "u1" else "f4"))
    rows = np.array(rows, dtype=np.intp)
    assert view[rows].tolist() == values[rows].tolist()
    assert view[3:50].tolist() == values[3:50].tolist()
    assert view[:].dtype == view.dtype


def test_chunks_of_every_form(backend, samples):
    """Whatever fit takes for X and y, a chunk takes; inputs of the chunks may differ in dtype."""
    X, y, weight = samples
    net, twin = network(backend), network(backend)
    arrays = X.astype(np.float32), y, weight
    net.fit(list(chunks_of(*arrays, sizes=[100])), epochs=2, shuffle=False)
    forms = [
        (X[:100].astype(np.float32).tolist(), y[:100].tolist(), weight[:100]),
        [np.asfortranarray(X[100:300]), y[100:300].astype(np.uint8), weight[100:300]],
        (X[300:], y[300:], weight[300:]),
    ]
    twin.fit(forms, epochs=2, shuffle=False)
    assert net.arena.flat.tobytes() == twin.arena.flat.tobytes()


@pytest.mark.parametrize("n", [1, 255, 256, 8192, 20_000])
@pytest.mark.parametrize("shuffle", [False, True, "blocks"])
def test_every_sample_comes_once(n, shuffle):
    order = sample_order(np.random.default_rng(0), n, shuffle)
    assert sorted(order) == list(range(n))
    if n > 1:
        assert (order == np.arange(n)).all() == (shuffle is False)


def test_all_orders_are_equally_likely():
    orders = sample_orders(np.random.default_rng(0), 4, True, 24_000).reshape(-1, 4)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize("shuffle", [False, True])
def test_numpys_booleans(samples, state_of, shuffle):
    states = []
    for value in (shuffle, np.bool_(shuffle)):
        net = network("numpy")
        net.fit(*samples[:2], epochs=1, shuffle=value)
        states.append(state_of(net))
    assert states[0] == states[1]


@given(n=st.integers(1, 400), n_epochs=st.integers(1, 5), draws=st.integers(0, 3))
@pytest.mark.parametrize("shuffle", [True, np.True_, False, "blocks"])
def test_orders_of_several_epochs_are_those_of_each(shuffle, n, n_epochs, draws):
    one, other = (np.random.default_rng(0) for _ in range(2))
    for rng in (one, other):
        rng.integers(0, 10, draws, dtype=np.int32)  # half a word may be left
    orders = [sample_order(one, n, shuffle) for _ in range(n_epochs)]
    np.testing.assert_array_equal(
        sample_orders(other, n, shuffle, n_epochs), np.concatenate(orders)
    )
    assert one.bit_generator.state == other.bit_generator.state


def test_blocks_keep_runs_together_and_mix_them():
    n = 10 * feeding.WINDOW_ROWS
    order = sample_order(np.random.default_rng(0), n, "blocks")
    window = order[: feeding.WINDOW_ROWS]
    runs, counts = np.unique(window // feeding.RUN_ROWS, return_counts=True)
    assert len(runs) == feeding.WINDOW_ROWS // feeding.RUN_ROWS
    assert (counts == feeding.RUN_ROWS).all()
    assert runs.max() - runs.min() > n // feeding.RUN_ROWS // 2
    assert len(np.unique(window[:64] // feeding.RUN_ROWS)) > 16


def test_shuffled_chunks(backend, samples, state_of):
    """A chunk's samples come in a new order each epoch, before those of the next chunk."""
    X, y, _ = samples
    seen = []
    net = network(backend)

    class Spy(feeding.ChunkFeed):
        def epochs(self, rng, n_epochs=1):
            for data, order in super().epochs(rng, n_epochs):
                seen.append(data.X[order])
                yield data, order

    feed = Spy(net.architecture, [(X[:300], y[:300]), (X[300:], y[300:])], 32, True)
    epochs = []
    for _ in range(2):
        seen.clear()
        for _ in feed.epochs(net.rng):
            pass
        epochs.append(np.concatenate(seen))
    for epoch in epochs:
        for part, source in ((epoch[:300], X[:300]), (epoch[300:], X[300:])):
            source = source.astype(np.float32)
            assert part.tolist() != source.tolist()
            assert sorted(part.tolist()) == sorted(source.tolist())
    assert epochs[0].tolist() != epochs[1].tolist()

    states = []
    for _ in range(2):
        net = network(backend)
        net.fit(lambda: chunks_of(X, y, sizes=[200]), epochs=2)
        states.append(state_of(net))
    assert states[0] == states[1]


# --- partial_fit ----------------------------------------------------------------------------------


def test_partial_fit_goes_on(backend, samples, state_of):
    X, y, weight = samples
    net, twin = network(backend), network(backend)
    net.fit(X, y, optimizer=Adam(0.01), epochs=3, batch_size=64, sample_weight=weight)
    twin.partial_fit(X, y, optimizer=Adam(0.01), sample_weight=weight)
    for _ in range(2):
        history = twin.partial_fit(X, y, sample_weight=weight)
    assert state_of(net) == state_of(twin)
    assert len(history) == 1


def test_partial_fit_of_chunks(backend, samples, state_of):
    X, y, _ = samples
    net, twin = network(backend), network(backend)
    net.fit(X, y, epochs=1, shuffle=False)
    twin.partial_fit(chunks_of(X, y, sizes=[128]), shuffle=False)
    assert state_of(net) == state_of(twin)
    assert twin.optimizer_state.optimizer == Adam()


# --- Reading ahead --------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_blocks")
def test_the_next_chunk_is_read_while_one_trains(backend, samples):
    """By one other thread, one block ahead and no further."""
    X, y, _ = samples
    threads, read, trained = set(), [], []
    waiting = threading.Event()

    def chunks():
        for i in range(6):
            threads.add(threading.get_ident())
            read.append(i)
            if len(read) == len(trained) + 2:
                waiting.set()
            yield X[:64], y[:64]

    net = network(backend)
    take = net.backend.trainer

    class Watched:
        def __init__(self, *arguments):
            self.trainer = take(*arguments)

        def bind(self, data):
            self.trainer.bind(data)

        def epochs(self, order, *arguments):
            # Block k trains: the reader comes to the chunk behind it by itself, and stops there.
            if len(trained) < 4:
                assert waiting.wait(30)
            assert len(read) <= len(trained) + 2
            waiting.clear()
            trained.append(len(order))
            return self.trainer.epochs(order, *arguments)

    class Backend:
        trainer = staticmethod(Watched)

        def __getattr__(self, name):
            return getattr(type(self).original, name)

    Backend.original, net.backend = net.backend, Backend()
    net.fit(chunks(), epochs=1, batch_size=64)
    assert trained == [64] * 6
    assert len(threads) == 1
    assert threading.get_ident() not in threads


MEMORY = """
import json, os, resource, sys
import numpy as np
from fastmlp import Adam, Dense, Network

path, source, shuffle = sys.argv[1:]
n, n_inputs = 50_000, 1000
layers = [Dense(16, "relu"), Dense(2, "softmax")]
net = Network(n_inputs, layers, loss="cross_entropy", seed=0)
y = np.zeros(n, dtype=np.int64)
y[::2] = 1
warm = np.zeros((2000, n_inputs), dtype=np.float32)
net.fit(warm, y[:2000], epochs=1)
net.predict(warm)
del warm

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

before = peak()
X = np.load(path, mmap_mode="r")
if source == "map":
    net.fit(X, y, epochs=1, shuffle=json.loads(shuffle), validation_data=(X, y))
    net.predict(X)
else:
    def chunks():
        with open(path, "rb") as file:
            file.seek(X.offset)
            for start in range(0, n, 1000):
                rows = np.fromfile(file, np.float32, 1000 * n_inputs).reshape(1000, n_inputs)
                yield rows, y[start : start + 1000]
    net.fit(chunks, epochs=1)
print(json.dumps({"size": os.path.getsize(path), "growth": peak() - before}))
"""


@pytest.mark.skipif(not hasattr(mapped.mmap, "MADV_DONTNEED"), reason="needs Linux's madvise")
@pytest.mark.parametrize(("source", "shuffle"), [("map", "true"), ("map", "false"), ("chunks", "")])
def test_memory_stays_flat(tmp_path, run_python, source, shuffle):
    """Files of 200 MB: fit, validation and prediction take less than 60 MB more than before."""
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.float32, (50_000, 1000))
    X[:, 0] = np.arange(50_000) % 2
    del X
    measured = json.loads(run_python(MEMORY, path, source, shuffle))
    assert measured["size"] >= 200_000_000
    assert measured["growth"] < 60_000_000


# --- Errors ---------------------------------------------------------------------------------------

GOOD = np.zeros((40, 6)), np.zeros(40, dtype=int)


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (GOOD[0], TypeError, r"chunk 1: expected \(X, y\) or .*, got ndarray"),
        (GOOD[:1], TypeError, r"chunk 1: expected \(X, y\) or .*, got tuple of length 1"),
        ((GOOD[0][:, :5], GOOD[1]), ValueError, r"chunk 1: X: expected 6 columns, got shape"),
        ((GOOD[0][:0], GOOD[1][:0]), ValueError, "chunk 1: X: expected at least 1 sample"),
        ((GOOD[0] + np.nan, GOOD[1]), ValueError, "chunk 1: X: expected finite numbers"),
        ((GOOD[0], GOOD[1][1:]), ValueError, "chunk 1: y: expected 40 targets"),
        ((GOOD[0], GOOD[1] + 3), ValueError, "chunk 1: y: expected labels from 0 to 2"),
        ((*GOOD, -np.ones(40)), ValueError, "chunk 1: sample_weight: expected weights of at least"),
        ((*GOOD, np.ones(40)), ValueError, "chunk 1: expected float32 inputs, labels, no weights"),
        (
            (GOOD[0].astype(np.uint8), GOOD[1]),
            ValueError,
            "chunk 1: expected float32 inputs, .* as chunk 0; got uint8 inputs",
        ),
        ((GOOD[0], np.eye(3)[GOOD[1]]), ValueError, "chunk 1: .* got float32 inputs, rows of"),
    ],
)
def test_bad_chunks_are_named(backend, chunk, error, message):
    net = network(backend)
    with pytest.raises(error, match=message):
        net.fit([GOOD, chunk, GOOD], epochs=1)
    assert np.isfinite(net.predict(GOOD[0])).all()


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_exception_of_the_iterable(backend, samples, shuffle):
    """It comes out as it is; what was trained before it stays, and one can go on."""
    X, y, _ = samples

    class ReadingError(Exception):
        pass

    def chunks():
        yield X[:320], y[:320]
        raise ReadingError("disk on fire")

    net, twin = network(backend), network(backend)
    with pytest.raises(ReadingError, match="disk on fire"):
        net.fit(chunks, epochs=3, batch_size=32, shuffle=shuffle)
    step = net.optimizer_state.step
    assert 0 < step <= 10
    if not shuffle:
        twin.fit(X[: 32 * step], y[: 32 * step], epochs=1, batch_size=32, shuffle=False)
        assert net.arena.flat.tobytes() == twin.arena.flat.tobytes()
    assert np.isfinite(net.fit(X, y, epochs=1)["loss"][0])


HANGING = """
import sys, threading
import numpy as np
from fastmlp import Dense, Network

released = threading.Event()
X, y = np.zeros((64, 6)), np.zeros(64, dtype=int)

def chunks():
    yield X, y
    print("ready", flush=True)
    released.wait()

net = Network(6, [Dense(3, "softmax")], loss="cross_entropy", backend=sys.argv[1])
try:
    net.fit(chunks, epochs=1)
except KeyboardInterrupt:
    print(net.optimizer_state.step, np.isfinite(net.cost(X, y)))
    released.set()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_while_a_chunk_is_waited_for(backend, start_python):
    """The fit does not wait for an iterable that hangs."""
    with start_python(HANGING, backend) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=60)
    assert child.returncode == 0, error
    assert out == "0 True\n"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([],), {}, ValueError, "X: expected at least one chunk"),
        ((iter([]),), {"epochs": 1}, ValueError, "X: expected at least one chunk"),
        ((list,), {}, ValueError, "X: expected at least one chunk"),
        ((iter([GOOD]),), {"epochs": 2}, ValueError, "epochs: expected 1 for an iterator"),
        ((3,), {}, TypeError, "y: expected targets; only chunks"),
        (([GOOD],), {"sample_weight": np.ones(40)}, ValueError, "sample_weight: expected None"),
        ((GOOD[0],), {}, ValueError, "y: expected 40 targets"),
        (GOOD, {"shuffle": "block"}, ValueError, "shuffle: expected True, False, 'blocks' or a"),
    ],
)
def test_bad_arguments(backend, arguments, options, error, message, state_of):
    net = network(backend)
    before = state_of(net)[0]
    with pytest.raises(error, match=message):
        net.fit(*arguments, **options)
    assert state_of(net)[0] == before


def test_numbers_of_a_map_that_are_not_finite(samples, memory_map, monkeypatch):
    monkeypatch.setattr(mapped, "LARGE", 0)
    monkeypatch.setattr(mapped, "PIECE", 700)
    X, y, _ = samples
    X[432, 5] = np.inf
    net = network("numpy")
    with pytest.raises(ValueError, match=r"X: expected finite numbers, got inf at \(432, 5\)"):
        net.fit(memory_map(X), y)
    X[432, 5] = 1e300
    with pytest.raises(ValueError, match="X: expected numbers that float32 can hold, got 1e"):
        net.predict(memory_map(X))


def test_divergence_on_chunks(backend, samples, state_of):
    """The network is as it was before the epoch, of which some blocks had been trained."""
    X, y, _ = samples
    net = network(backend)
    net.fit([(X, y)], optimizer=SGD(0.01), epochs=1)
    before = state_of(net)
    rates = lambda step: 0.01 if step < 20 else np.inf  # noqa: E731
    with pytest.raises(DivergenceError, match="in epoch 2 at learning rate"):
        net.fit([(X, y), (X, y)], optimizer=SGD(rates), epochs=1, batch_size=32)
    assert state_of(net)[:2] == before[:2]
