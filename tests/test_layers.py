"""Layer records and the passes through one layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastmlp import Dense
from fastmlp.activations import ACTIVATIONS
from fastmlp.backends import get_backend


@pytest.mark.parametrize(
    ("n_units", "error", "message"),
    [
        (0, ValueError, "n_units: expected at least 1, got 0"),
        (-3, ValueError, "n_units: expected at least 1, got -3"),
        (2.0, TypeError, "n_units: expected an integer, got float"),
        ("8", TypeError, "n_units: expected an integer, got str"),
        (True, TypeError, "n_units: expected an integer, got bool"),
        (None, TypeError, "n_units: expected an integer, got NoneType"),
    ],
)
def test_number_of_units_is_checked(n_units, error, message):
    with pytest.raises(error, match=message):
        Dense(n_units)


def test_numpy_integers_are_integers():
    layer = Dense(np.int32(8), "relu")
    assert type(layer.n_units) is int
    assert layer == Dense(8, "relu")


def test_defaults():
    layer = Dense(4)
    assert layer.activation is ACTIVATIONS["identity"]
    assert layer.init is None


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dense(4).n_units = 5


@pytest.mark.parametrize("name", ["l1", "l2"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-0.1, ValueError, r"expected a number in \[0, inf\), got -0.1"),
        (np.nan, ValueError, r"expected a number in \[0, inf\), got nan"),
        ("0.1", TypeError, "expected a number, got str"),
        (True, TypeError, "expected a number, got bool"),
    ],
)
def test_penalties_are_checked(name, value, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        Dense(4, **{name: value})


def test_weights_decay_and_biases_do_not():
    assert Dense(4).parameter_shapes(3) == [("W", (3, 4), True), ("b", (4,), False)]


@pytest.fixture
def passed_forward(backend, dtype):
    """A layer, its parameters, the cache of a forward pass, the gradient that comes back."""
    rng = np.random.default_rng(0)
    X, W, b, dA = (rng.standard_normal(s).astype(dtype) for s in [(6, 3), (3, 4), 4, (6, 4)])
    layer = Dense(4, "tanh")
    return layer, (W, b), layer.forward(get_backend(backend), (W, b), X), dA


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-13, "atol": 1e-14}


def test_forward_keeps_input_preactivation_and_output(passed_forward, dtype):
    _, (W, b), cache, _ = passed_forward
    Z = cache.X @ W + b
    np.testing.assert_allclose(cache.Z, Z, **tolerance(dtype))
    np.testing.assert_allclose(cache.A, np.tanh(Z), **tolerance(dtype))
    assert cache.Z.dtype == cache.A.dtype == dtype


def test_backward_is_the_chain_rule(passed_forward, backend, dtype):
    layer, (W, b), cache, dA = passed_forward
    dZ = layer.activation_gradient(get_backend(backend), cache, dA)
    np.testing.assert_allclose(dZ, dA * (1 - np.tanh(cache.Z) ** 2), **tolerance(dtype))
    dW, db, dX = np.empty_like(W), np.empty_like(b), np.empty_like(cache.X)
    layer.backward(get_backend(backend), (W, b), cache, dZ, (dW, db), dX)
    np.testing.assert_allclose(dW, cache.X.T @ dZ, **tolerance(dtype))
    np.testing.assert_allclose(db, dZ.sum(axis=0), **tolerance(dtype))
    np.testing.assert_allclose(dX, dZ @ W.T, **tolerance(dtype))


def test_apply_is_forward_as_a_formula(passed_forward, dtype):
    layer, parameters, cache, _ = passed_forward
    A = layer.apply(parameters, cache.X)
    np.testing.assert_allclose(A, cache.A, **tolerance(dtype))
    assert A.dtype == dtype


def test_apply_backward_is_backward_as_a_formula(passed_forward, backend, dtype):
    layer, (W, b), cache, dA = passed_forward
    dW, db, dX = np.empty_like(W), np.empty_like(b), np.empty_like(cache.X)
    dZ = layer.activation_gradient(get_backend(backend), cache, dA)
    layer.backward(get_backend(backend), (W, b), cache, dZ, (dW, db), dX)
    mine = layer.apply_backward((W, b), cache.X, dA)
    np.testing.assert_allclose(mine[0], dX, **tolerance(dtype))
    np.testing.assert_allclose(mine[1][0], dW, **tolerance(dtype))
    np.testing.assert_allclose(mine[1][1], db, **tolerance(dtype))
