"""The network: its parameters, passes and copies, and shapes at the edges."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastmlp import SGD, Activation, Adam, Dense, Network
from fastmlp.feeding import sample_order
from fastmlp.layers import LayerCache


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture
def net(backend, dtype, make_network):
    return make_network(backend, dtype)


@pytest.fixture
def data(net, make_data):
    return make_data(net, 22)


# --- Parameters -----------------------------------------------------------------------------------


def test_parameters_are_pairs_of_the_documented_shapes(net, dtype):
    assert [(W.shape, b.shape) for W, b in net.parameters] == [
        ((5, 7), (7,)),
        ((7, 4), (4,)),
        ((4, 3), (3,)),
    ]
    assert all(array.dtype == dtype for pair in net.parameters for array in pair)


def test_parameters_are_views(net, data):
    """Also after predictions and fits have been set up."""
    X, y = data
    net.predict(X)
    net.fit(X, y, epochs=1)
    for W, b in net.parameters[:-1]:
        W[...] = 0
        b[...] = 0
    W, b = net.parameters[-1]
    W[...] = 0
    b[...] = np.log([1, 2, 5])
    for A in (net.predict(X), net.forward(X)):
        np.testing.assert_allclose(A, np.tile([0.125, 0.25, 0.625], (22, 1)), rtol=1e-6)


def test_update_weights_adds(net):
    before = [[array.copy() for array in pair] for pair in net.parameters]
    deltas = [tuple(np.full(a.shape, i + 0.5) for i, a in enumerate(p)) for p in net.parameters]
    net.update_weights(deltas)
    for values, old, added in zip(net.parameters, before, deltas, strict=True):
        for value, o, a in zip(values, old, added, strict=True):
            np.testing.assert_array_equal(value, o + a.astype(o.dtype))


def _wrong_last_shape(deltas):
    deltas[-1] = (deltas[-1][0], np.ones(2))


def _missing_bias(deltas):
    deltas[1] = deltas[1][:1]


def _transposed(deltas):
    deltas[0] = (deltas[0][0].T, deltas[0][1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda deltas: deltas.pop(), r"deltas: expected 3 pairs \(dW, db\), got 2"),
        (_wrong_last_shape, r"deltas\[2\]: expected shape \(3,\), got \(2,\)"),
        (_missing_bias, r"deltas\[1\]: expected 2 arrays \(dW, db\), got 1"),
        (_transposed, r"deltas\[0\]: expected shape \(5, 7\), got \(7, 5\)"),
    ],
)
def test_update_weights_adds_all_or_nothing(net, state_of, spoil, message):
    deltas = [tuple(np.ones(array.shape) for array in pair) for pair in net.parameters]
    spoil(deltas)
    before = state_of(net)
    with pytest.raises(ValueError, match=message):
        net.update_weights(deltas)
    assert state_of(net) == before


# --- Passes ---------------------------------------------------------------------------------------


def test_forward_cache_shows_every_layer(net, data, dtype):
    X, _ = data
    A, cache = net.forward(X, return_cache=True)
    assert [type(entry) for entry in cache] == [LayerCache] * 3
    np.testing.assert_array_equal(cache[0].X, X)
    np.testing.assert_array_equal(cache[-1].A, A)
    for i, (entry, (W, b)) in enumerate(zip(cache, net.parameters, strict=True)):
        np.testing.assert_allclose(entry.Z, entry.X @ W + b, **tolerance(dtype))
        if i < 2:
            np.testing.assert_allclose(entry.A, np.tanh(entry.Z), **tolerance(dtype))
            np.testing.assert_array_equal(cache[i + 1].X, entry.A)
    assert net.forward(X).tobytes() == A.tobytes()


@pytest.mark.parametrize("hidden", ["relu", "sigmoid", "gelu", "step", "softmax"])
@pytest.mark.parametrize("n", [1, 2, 13, 70])
def test_predict_is_forward(backend, dtype, make_network, make_data, hidden, n):
    net = make_network(backend, dtype, widths=(5, 33, 17, 3), hidden=hidden)
    X, _ = make_data(net, n)
    assert net.predict(X).dtype == dtype
    np.testing.assert_allclose(net.predict(X), net.forward(X), **tolerance(dtype))


def test_predict_of_more_rows_than_a_block(backend, dtype, make_network, make_data):
    net = make_network(backend, dtype, widths=(3, 4, 2))
    X, y = make_data(net, 9001)
    np.testing.assert_allclose(net.predict(X), net.forward(X), **tolerance(dtype))
    scores = net.evaluate(X, y)
    P = net.predict(X).astype(np.float64)
    np.testing.assert_allclose(scores["loss"], -np.log(P[np.arange(9001), y]).mean(), rtol=1e-5)
    np.testing.assert_allclose(scores["accuracy"], (P.argmax(axis=1) == y).mean())


def test_samples_do_not_touch_each_other(net, data, dtype):
    X, y = data
    A = net.predict(X)
    changed = X.copy()
    changed[7] = 1e3
    others = np.arange(len(X)) != 7
    assert net.predict(changed)[others].tobytes() == A[others].tobytes()
    one_by_one = np.concatenate([net.predict(x[None]) for x in X])
    np.testing.assert_allclose(one_by_one, A, **tolerance(dtype))
    gradients = [net.compute_gradient(x[None], label[None]) for x, label in zip(X, y, strict=True)]
    for i, pair in enumerate(net.compute_gradient(X, y)):
        for k, gradient in enumerate(pair):
            mean = np.mean([single[i][k] for single in gradients], axis=0)
            np.testing.assert_allclose(gradient, mean, **tolerance(dtype))


def test_evaluate_and_cost(net, data):
    X, y = data
    scores = net.evaluate(X, y)
    assert list(scores) == ["loss", "accuracy"]
    assert scores["loss"] == net.cost(X, y)
    assert scores["accuracy"] == np.mean(net.predict(X).argmax(axis=1) == y)
    assert all(type(value) is float for value in scores.values())


def test_passes_change_nothing(net, data, state_of):
    X, y = data
    before = state_of(net)
    net.predict(X)
    net.forward(X, return_cache=True)[1][0].A[...] = 0
    net.cost(X, y)
    net.evaluate(X, y)
    assert state_of(net) == before


# --- Fits in pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 22])
def test_an_outside_loop_is_a_fit(backend, dtype, make_network, make_data, batch_size):
    """SGD written with compute_gradient and update_weights; 22 leaves a ragged batch of 2."""
    inside, outside = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(inside, 22)
    losses = []
    for start in range(0, 22, batch_size):
        batch = slice(start, start + batch_size)
        losses.append(outside.cost(X[batch], y[batch]) * len(y[batch]))
        gradients = outside.compute_gradient(X[batch], y[batch])
        outside.update_weights([tuple(-0.1 * g for g in pair) for pair in gradients])
    history = inside.fit(X, y, optimizer=SGD(0.1), epochs=1, batch_size=batch_size, shuffle=False)
    np.testing.assert_allclose(inside.arena.flat, outside.arena.flat, **tolerance(dtype))
    np.testing.assert_allclose(history["loss"], [sum(losses) / 22], **tolerance(dtype))


def test_three_fits_are_one(backend, dtype, make_network, make_data, state_of):
    whole, parts = make_network(backend, dtype), make_network(backend, dtype)
    X, y = make_data(whole, 22)
    history = whole.fit(X, y, optimizer=Adam(0.01), epochs=3, batch_size=4)
    losses = [
        parts.fit(X, y, optimizer=Adam(0.01), epochs=1, batch_size=4)["loss"][0] for _ in range(3)
    ]
    assert state_of(parts) == state_of(whole)
    assert losses == history["loss"]


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_orders(backend, dtype, make_network, make_data, optimizer, batch_size):
    """A shuffled epoch is the epoch in that order; another order gives something else."""
    shuffled, sorted_before, as_given = (make_network(backend, dtype) for _ in range(3))
    X, y = make_data(shuffled, 22)
    order = sample_order(sorted_before.rng, 22, True)
    options = {"optimizer": optimizer, "epochs": 1, "batch_size": batch_size}
    shuffled.fit(X, y, **options)
    sorted_before.fit(X[order], y[order], shuffle=False, **options)
    as_given.fit(X, y, shuffle=False, **options)
    assert shuffled.arena.flat.tobytes() == sorted_before.arena.flat.tobytes()
    assert shuffled.arena.flat.tobytes() != as_given.arena.flat.tobytes()


def test_a_new_order_each_epoch(backend, make_network, make_data):
    net = make_network(backend)
    before = repr(net.rng.bit_generator.state)
    net.fit(*make_data(net, 22), epochs=1, shuffle=False)
    assert repr(net.rng.bit_generator.state) == before
    net.fit(*make_data(net, 22), epochs=1)
    assert repr(net.rng.bit_generator.state) != before


def test_batches_larger_than_the_data(backend, dtype, make_network, make_data):
    nets = [make_network(backend, dtype) for _ in range(3)]
    X, y = make_data(nets[0], 22)
    for net, batch_size in zip(nets, (22, 23, 10**12), strict=True):
        net.fit(X, y, optimizer=Adam(), epochs=2, batch_size=batch_size, shuffle=False)
        assert net.arena.flat.tobytes() == nets[0].arena.flat.tobytes()
        assert net.optimizer_state.step == 2


# --- Shapes at the edges --------------------------------------------------------------------------

EDGES = {
    "softmax regression": {"widths": (5, 3)},
    "one unit": {"widths": (5, 1), "output": "identity", "loss": "mse"},
    "one hidden unit": {"widths": (5, 1, 3)},
    "one feature": {"widths": (1, 4, 3)},
    "one feature, one unit": {
        "widths": (1, 1),
        "output": "sigmoid",
        "loss": "binary_cross_entropy",
    },
    "one class pair": {"widths": (5, 4, 2)},
    "one class pair, one output": {
        "widths": (5, 4, 1),
        "output": "sigmoid",
        "loss": "binary_cross_entropy",
    },
    "one class": {"widths": (5, 1)},
    "10 layers": {"widths": (5, *[8] * 10, 3)},
    "3000 units": {"widths": (5, 3000, 3)},
}


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("edge", EDGES)
def test_edges(backend, dtype, make_network, make_data, edge, n):
    """A fit is the outside loop there too; 7 samples in batches of 3 leave a ragged one of 1."""
    net, outside = (make_network(backend, dtype, **EDGES[edge]) for _ in range(2))
    X, y = make_data(net, n)
    for start in range(0, n, 3):
        gradients = outside.compute_gradient(X[start : start + 3], y[start : start + 3])
        outside.update_weights([tuple(-0.05 * g for g in pair) for pair in gradients])
    history = net.fit(X, y, optimizer=SGD(0.05), epochs=1, batch_size=3, shuffle=False)
    assert np.isfinite(history["loss"]).all()
    np.testing.assert_allclose(net.arena.flat, outside.arena.flat, **tolerance(dtype))
    assert net.predict(X).shape == (n, net.architecture.n_outputs)


def test_ten_layers_learn(backend, dtype, make_network):
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype) - np.array(0.5, dtype)
    y = [0, 1, 1, 0]
    deep = make_network(backend, dtype, widths=(2, *[8] * 10, 2))
    deep.fit(X, y, optimizer=Adam(0.005), epochs=200, batch_size=4)
    assert deep.evaluate(X, y)["accuracy"] == 1


# --- Copies and descriptions ----------------------------------------------------------------------

OWN = Activation(np.cos, lambda dA, Z, A: -dA * np.sin(Z), name="cosine")


DUPLICATES = {
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda net, protocol=protocol: pickle.loads(
            pickle.dumps(net, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_go_on_alike(net, data, state_of, monkeypatch, duplicate):
    monkeypatch.delenv("FASTMLP_BACKEND", raising=False)  # a copy asks it again
    X, y = data
    net.fit(X, y, optimizer=Adam(0.01), epochs=1, batch_size=4)
    net.metadata["classes"] = ["a", "b", "c"]
    twin = DUPLICATES[duplicate](net)
    assert state_of(twin) == state_of(net)
    assert twin.architecture == net.architecture
    assert twin.metadata == net.metadata
    assert twin.backend is net.backend
    assert twin.predict(X).tobytes() == net.predict(X).tobytes()
    assert not np.shares_memory(twin.arena.flat, net.arena.flat)
    before = state_of(net)
    twin.fit(X, y, optimizer=Adam(0.01), epochs=2, batch_size=4)
    assert state_of(net) == before
    net.fit(X, y, optimizer=Adam(0.01), epochs=2, batch_size=4)
    assert state_of(twin) == state_of(net)


def test_deepcopy_with_own_parts():
    net = Network(3, [Dense(4, OWN), Dense(1)], loss="mse", seed=0)
    X = np.ones((2, 3))
    assert copy.deepcopy(net).predict(X).tobytes() == net.predict(X).tobytes()


def test_astype(backend, make_network, make_data):
    narrow = make_network(backend, "float32")
    narrow.metadata["note"] = "kept"
    X, y = make_data(narrow, 9)
    wide = narrow.astype("float64")
    for mine, theirs in zip(wide.arena.views, narrow.arena.views, strict=True):
        assert mine.dtype == np.float64
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(wide.predict(X), narrow.predict(X), rtol=1e-5)
    assert wide.metadata == {"note": "kept"}
    assert wide.metadata is not narrow.metadata
    assert wide.backend is narrow.backend
    before = narrow.arena.flat.tobytes()
    wide.fit(X, y, epochs=1)
    assert narrow.arena.flat.tobytes() == before
    assert wide.astype("float32").architecture == narrow.architecture


def test_repr_shows_architecture_and_count(backend):
    layers = [Dense(256, "relu"), Dense(128, "gelu"), Dense(10, "softmax")]
    net = Network(784, layers, loss="cross_entropy", backend=backend)
    lines = repr(net).splitlines()
    assert lines[0] == f"Network(784 inputs, cross_entropy, float32, {backend} backend)"
    assert [line.split() for line in lines[1:]] == [
        ["Dense", "784", "->", "256", "relu", "200,960"],
        ["Dense", "256", "->", "128", "gelu", "32,896"],
        ["Dense", "128", "->", "10", "softmax", "1,290"],
        ["parameters", "235,146"],
    ]
