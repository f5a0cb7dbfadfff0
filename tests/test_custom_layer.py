"""Layers of one's own: trained, checked, saved, and what cannot be one."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest

from fastmlp import SGD, Adam, AdamW, Dense, Layer, Network, check_gradient

GAIN = Layer(
    lambda X, g: X * g,
    lambda dA, X, A, g: (dA * g, (dA * X).sum(axis=0)),
    parameters=lambda rng, n_in: {"g": np.ones(n_in)},
    name="gain",
)
# A dense layer with tanh, written as one of one's own.
DENSE = Layer(
    lambda X, W, b: np.tanh(X @ W + b),
    lambda dA, X, A, W, b: (
        (dA * (1 - A**2)) @ W.T,
        X.T @ (dA * (1 - A**2)),
        (dA * (1 - A**2)).sum(axis=0),
    ),
    parameters=lambda rng, n_in: {"W": rng.standard_normal((n_in, 7)), "b": np.zeros(7)},
    n_units=7,
    name="dense",
)
# No parameters, other units than inputs: pairs of columns and their products.
PRODUCTS = Layer(
    lambda X: X[:, ::2] * X[:, 1::2],
    lambda dA, X, A: np.stack([dA * X[:, 1::2], dA * X[:, ::2]], axis=2).reshape(X.shape),
    n_units=4,
    name="products",
)
NORMALISE = Layer(
    lambda X: X / (np.abs(X).sum(axis=1, keepdims=True) + 1),
    lambda dA, X, A: (
        (dA - np.sign(X) * (dA * A).sum(axis=1, keepdims=True))
        / (np.abs(X).sum(axis=1, keepdims=True) + 1)
    ),
    name="normalise",
)
SOFTMAX = Layer(
    lambda X: np.exp(X) / np.exp(X).sum(axis=1, keepdims=True),
    lambda dA, X, A: A * (dA - (dA * A).sum(axis=1, keepdims=True)),
    name="softmax",
)

NETS = {
    "first": [GAIN, Dense(3, "softmax")],
    "hidden": [Dense(8, "relu"), GAIN, PRODUCTS, Dense(3, "softmax")],
    "two": [Dense(6), DENSE, NORMALISE, Dense(3, "softmax")],
    "last": [Dense(3, "tanh"), GAIN, SOFTMAX],
}


def network(layers, dtype="float64", **options):
    return Network(5, layers, loss="cross_entropy", dtype=dtype, seed=0, **options)


def data(n=40):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5)), rng.integers(0, 3, n)


@pytest.mark.parametrize("layers", NETS.values(), ids=NETS)
def test_gradients(layers):
    assert check_gradient(network(layers), *data()) < 1e-7


@pytest.mark.parametrize("layers", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("optimizer", "batch_size"), [(SGD(0.05), 1), (Adam(0.01), 16)])
def test_training(dtype, layers, optimizer, batch_size):
    net = network(layers, dtype)
    X, y = data()
    history = net.fit(X, y, optimizer=optimizer, epochs=10, batch_size=batch_size)
    assert history["loss"][-1] < history["loss"][0]
    assert net.backend.name == "numpy"
    assert net.predict(X).dtype == dtype
    np.testing.assert_allclose(net.predict(X), net.forward(X), rtol=1e-5)
    np.testing.assert_allclose(
        net.predict(X), net.apply(net.parameters, X.astype(dtype)), rtol=1e-4
    )


def test_a_dense_layer_of_ones_own_is_a_dense_layer():
    """The same weights train to the same weights."""
    nets = [
        network([Dense(6), layer, Dense(3, "softmax")], backend="numpy")
        for layer in (DENSE, Dense(7, "tanh"))
    ]
    for mine, theirs in zip(nets[0].arena.views, nets[1].arena.views, strict=True):
        theirs[...] = mine
    for net in nets:
        net.fit(*data(), optimizer=AdamW(0.01), epochs=3)
    np.testing.assert_allclose(nets[0].arena.flat, nets[1].arena.flat, rtol=1e-10, atol=1e-14)


def test_parameters_and_repr():
    net = network(NETS["hidden"])
    assert [[array.shape for array in layer] for layer in net.parameters] == [
        [(5, 8), (8,)],
        [(8,)],
        [],
        [(4, 3), (3,)],
    ]
    assert "Layer   8 -> 4          products" in repr(net)
    deltas = [tuple(np.ones_like(array) for array in layer) for layer in net.parameters]
    net.update_weights(deltas)
    assert net.parameters[1][0].tolist() == [2] * 8


def test_initial_parameters_come_from_the_networks_seed():
    first, again = network(NETS["two"]), network(NETS["two"])
    other = Network(5, NETS["two"], loss="cross_entropy", dtype="float64", seed=1)
    assert first.arena.flat.tobytes() == again.arena.flat.tobytes()
    assert (first.parameters[1][0] != other.parameters[1][0]).all()


def test_files_and_copies(tmp_path):
    net = network(NETS["hidden"])
    net.fit(*data(), epochs=1)
    net.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"layer 'gain' is not known; pass it in custom"):
        Network.load(tmp_path / "model.safetensors")
    custom = {"gain": GAIN, "products": PRODUCTS}
    loaded = Network.load(tmp_path / "model.safetensors", custom=custom)
    for same in (loaded, copy.deepcopy(net), net.astype("float64")):
        assert same.predict(data()[0]).tobytes() == net.predict(data()[0]).tobytes()


def test_exports_refuse_it(tmp_path):
    net = network(NETS["hidden"])
    with pytest.raises(ValueError, match=r"layers\[1\]: layer 'gain' of your own.* as C"):
        net.to_c(tmp_path / "model.h")
    with pytest.raises(ValueError, match=r"layers\[1\]: expected Dense layers alone, got Layer"):
        net.to_torch()


def test_the_compiled_core_does_not_take_it():
    with pytest.raises(ValueError, match="a layer of your own, which runs on NumPy"):
        network(NETS["first"], backend="compiled")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer(lambda X: X[:, :2], lambda dA, X, A: dA), r"to give shape \(40, 5\), got \(40, 2\)"),
        (Layer(lambda X: X, lambda dA, X, A: dA[:2]), r"to give shapes \[\(40, 5\)\], got"),
        (Layer(lambda X: X, lambda dA, X, A: (dA, dA)), r"to give shapes \[\(40, 5\)\], got"),
        (
            Layer(lambda X, g: X * g, lambda dA, X, A, g: dA, GAIN.parameters),
            r"to give shapes \[\(40, 5\), \(5,\)\], got \[\(40, 5\)\]",
        ),
    ],
)
def test_wrong_shapes_are_named(layer, message):
    net = network([GAIN, layer, Dense(3, "softmax")])
    before = net.arena.flat.tobytes()
    with pytest.raises(ValueError, match=message):
        net.fit(*data(), epochs=1)
    assert net.arena.flat.tobytes() == before


def test_the_readmes_pieces():
    """The code that the README shows, as it stands there."""
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip("needs the README beside the tests")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "gain = Layer(" in block]
    exec(block, {})


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="function, gradient: expected callables"):
        Layer(np.ones(3), lambda dA, X, A: dA)
    for n_units in (0, 2.5, "3"):
        with pytest.raises(ValueError, match="n_units: expected an integer of at least 1"):
            Layer(lambda X: X, lambda dA, X, A: dA, n_units=n_units)


@pytest.mark.parametrize("value", [np.ones((2, 2, 2)), 1.0, [], [np.nan]])
def test_wrong_parameters_are_named(value):
    layer = Layer(lambda X, p: X, lambda dA, X, A, p: dA, lambda rng, n_in: {"p": value})
    with pytest.raises(ValueError, match="layer 'custom': expected parameter 'p' to be a vector"):
        network([layer, Dense(3, "softmax")])
