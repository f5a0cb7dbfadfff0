"""Activations against formulas written again here, in float64 with SciPy's special functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from fastmlp import SGD, Activation, Dense, Network, check_gradient
from fastmlp.activations import ACTIVATIONS, get_activation, softmax_jacobian
from fastmlp.backends import get_backend, load_compiled
from fastmlp.initializers import INITIALIZERS

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def _normal_density(z):
    return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


# Name: f and f', elementwise. At a kink, the derivative from the left.
FORMULAS = {
    "identity": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1, 0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "elu": (
        lambda z: np.where(z > 0, z, special.expm1(np.minimum(z, 0))),
        lambda z: np.exp(np.minimum(z, 0)),
    ),
    "selu": (
        lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * special.expm1(np.minimum(z, 0))),
        lambda z: SELU_SCALE * np.where(z > 0, 1, SELU_ALPHA * np.exp(np.minimum(z, 0))),
    ),
    "sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    "tanh": (np.tanh, lambda z: np.cosh(np.clip(z, -300, 300)) ** -2),
    "softplus": (lambda z: np.logaddexp(0, z), special.expit),
    "gelu": (
        lambda z: z * special.ndtr(z),
        lambda z: special.ndtr(z) + z * _normal_density(z),
    ),
    "silu": (
        lambda z: z * special.expit(z),
        lambda z: special.expit(z) * (1 + z * special.expit(-z)),
    ),
}
# Beyond the range of GRID it overflows, as it has to.
EXP = {"exp": (np.exp, np.exp)}
ELEMENTWISE = [*FORMULAS, "step"]
ZERO_AT_ZERO = ["identity", "relu", "leaky_relu", "elu", "selu", "tanh", "gelu", "silu"]

# Name: limits of f at minus and at plus infinity.
LIMITS = {
    "identity": (-np.inf, np.inf),
    "relu": (0, np.inf),
    "leaky_relu": (-np.inf, np.inf),
    "elu": (-1, np.inf),
    "selu": (-SELU_SCALE * SELU_ALPHA, np.inf),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
    "softplus": (0, np.inf),
    "step": (0, 1),
    "exp": (0, np.inf),
}

GRID = np.concatenate([np.linspace(-20, 20, 1601), np.linspace(-0.5, 0.5, 999)]).reshape(-1, 26)


def forward(backend, name, Z):
    Z = np.array(Z)
    before = Z.tobytes()
    A = np.full_like(Z, np.nan)
    get_backend(backend).activation_forward(get_activation(name), Z, A)
    assert Z.tobytes() == before
    return A


def backward(backend, name, dA, Z):
    A = forward(backend, name, Z)
    inputs = [np.array(dA, A.dtype), np.array(Z), A]
    before = [array.tobytes() for array in inputs]
    dZ = np.full_like(Z, np.nan)
    get_backend(backend).activation_backward(get_activation(name), *inputs, dZ)
    assert [array.tobytes() for array in inputs] == before
    return dZ


def eps(dtype):
    return np.finfo(dtype).eps


@pytest.mark.parametrize("name", FORMULAS | EXP)
def test_forward_is_the_formula(backend, dtype, name):
    Z = GRID.astype(dtype)
    expected = (FORMULAS | EXP)[name][0](Z.astype(np.float64))
    actual = forward(backend, name, Z)
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual, expected, rtol=16 * eps(dtype), atol=2 * eps(dtype))


@pytest.mark.parametrize("name", FORMULAS | EXP)
def test_rows_without_gaps_have_the_bits_of_rows_with(dtype, name):
    """They are taken together; a single column above all."""
    if load_compiled() is None:
        pytest.skip("needs the compiled core")
    for Z in (GRID.astype(dtype), GRID.astype(dtype).reshape(-1, 1)):
        apart, A = (np.zeros((len(Z), Z.shape[1] + 3), dtype)[:, :-3] for _ in range(2))
        apart[:] = Z
        get_backend("compiled").activation_forward(get_activation(name), apart, A)
        assert A.tobytes() == forward("compiled", name, Z).tobytes()


@pytest.mark.parametrize("name", FORMULAS | EXP)
def test_backward_is_the_derivative(backend, dtype, name):
    Z = GRID.astype(dtype)
    dA = np.random.default_rng(0).standard_normal(Z.shape).astype(dtype)
    expected = dA.astype(np.float64) * (FORMULAS | EXP)[name][1](Z.astype(np.float64))
    np.testing.assert_allclose(
        backward(backend, name, dA, Z), expected, rtol=16 * eps(dtype), atol=8 * eps(dtype)
    )


def test_increasing_adds_up_softplus(backend, dtype):
    rng = np.random.default_rng(0)
    Z, dA = rng.normal(0, 4, (2, 20, 5)).astype(dtype)
    steps = np.concatenate([Z[:, :1], np.logaddexp(0, Z[:, 1:])], axis=1)
    A = forward(backend, "increasing", Z)
    np.testing.assert_allclose(A, np.cumsum(steps, axis=1), rtol=50 * eps(dtype), atol=eps(dtype))
    assert (np.diff(A, axis=1) > 0).all()
    slopes = np.concatenate([np.ones((20, 1)), special.expit(Z[:, 1:])], axis=1)
    expected = [[slopes[s, j] * dA[s, j:].sum() for j in range(5)] for s in range(20)]
    np.testing.assert_allclose(
        backward(backend, "increasing", dA, Z), expected, rtol=50 * eps(dtype), atol=9 * eps(dtype)
    )


def test_step_is_one_from_zero_on(backend, dtype):
    Z = np.array([[-1e-3, -0.0, 0.0, 1e-3]], dtype)
    assert forward(backend, "step", Z).tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_relu_derivative_at_zero_is_zero(backend, dtype, zero):
    Z = np.full((3, 5), zero, dtype)
    assert not backward(backend, "relu", np.ones_like(Z), Z).any()


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("z", [-1e4, -800.0, -90.0, 90.0, 800.0, 1e4])
def test_far_from_zero(backend, dtype, name, z):
    Z = np.full((2, 9), z, dtype)
    value, derivative = (formula(np.float64(z)) for formula in FORMULAS[name])
    tolerance = {"rtol": 16 * eps(dtype), "atol": eps(dtype)}
    np.testing.assert_allclose(forward(backend, name, Z), np.full(Z.shape, value), **tolerance)
    np.testing.assert_allclose(
        backward(backend, name, np.ones_like(Z), Z), np.full(Z.shape, derivative), **tolerance
    )


@pytest.mark.parametrize("name", LIMITS)
def test_infinities(backend, dtype, name):
    Z = np.array([[-np.inf, np.inf]], dtype)
    np.testing.assert_allclose(forward(backend, name, Z), [LIMITS[name]], rtol=4 * eps(dtype))


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_infinities_of_the_functions_that_multiply_by_z(backend, dtype, name):
    """At minus infinity the formula is ``-inf * 0``: the limit 0 or NaN, no other number."""
    below, above = forward(backend, name, np.array([[-np.inf, np.inf]], dtype))[0]
    assert below == 0 or np.isnan(below)
    assert above == np.inf


@pytest.mark.parametrize("name", [*ELEMENTWISE, "softmax"])
def test_nan_propagates(backend, dtype, name):
    Z = np.ones((3, 17), dtype)
    Z[1, 8] = np.nan
    A = forward(backend, name, Z)
    assert np.isnan(A[1, 8])
    assert np.isfinite(A[[0, 2]]).all()
    if name != "softmax":
        assert np.isnan(A).sum() == 1


@pytest.mark.parametrize("name", ZERO_AT_ZERO)
def test_small_numbers_keep_their_digits(backend, dtype, name):
    """f(z) = f'(0) z there, from either side; an exp(z) - 1 without care gives 0."""
    Z = np.array([[-1e-12, -1e-30, 1e-30, 1e-12]], dtype)
    slopes = FORMULAS[name][1](Z.astype(np.float64))
    np.testing.assert_allclose(
        forward(backend, name, Z), slopes * Z.astype(np.float64), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_zeros_and_subnormals(backend, dtype, name):
    tiny = np.finfo(dtype).smallest_subnormal
    Z = np.array([[-0.0, 0.0, tiny, -tiny, 5 * tiny, -5 * tiny]], dtype)
    formula = FORMULAS[name][0] if name != "step" else lambda z: (z >= 0).astype(float)
    np.testing.assert_allclose(
        forward(backend, name, Z), formula(Z.astype(np.float64)), rtol=0, atol=4 * eps(dtype)
    )


@pytest.mark.parametrize("name", ["identity", "relu"])
def test_subnormals_are_not_flushed(backend, dtype, name):
    Z = np.array([[1, 3, 1000]], dtype) * np.finfo(dtype).smallest_subnormal
    assert forward(backend, name, Z).tobytes() == Z.tobytes()


@given(
    Z=st.tuples(st.integers(1, 6), st.integers(1, 40)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.floats(-1e4, 1e4, width=32))
    )
)
def test_softmax_rows_are_distributions(backend, dtype, Z):
    Z = Z.astype(dtype)
    A = forward(backend, "softmax", Z)
    np.testing.assert_allclose(A.sum(axis=1, dtype=np.float64), 1, rtol=8 * eps(dtype))
    assert (A >= 0).all()
    np.testing.assert_allclose(
        A, special.softmax(Z.astype(np.float64), axis=1), rtol=64 * eps(dtype), atol=eps(dtype)
    )


def test_softmax_of_equal_and_of_distant_numbers(backend, dtype):
    Z = np.array([[1e4, 1e4, 1e4, 1e4], [1e4, -1e4, 0, 0]], dtype)
    assert forward(backend, "softmax", Z).tolist() == [[0.25] * 4, [1, 0, 0, 0]]
    assert forward(backend, "softmax", np.array([[-7.0], [1e4]], dtype)).tolist() == [[1], [1]]


def test_softmax_backward_goes_through_the_jacobian(backend, dtype):
    rng = np.random.default_rng(0)
    Z, dA = (rng.standard_normal((9, 6)).astype(dtype) for _ in range(2))
    A = special.softmax(Z.astype(np.float64), axis=1)
    jacobian = np.stack([np.diag(a) - np.outer(a, a) for a in A])
    np.testing.assert_allclose(softmax_jacobian(A), jacobian, rtol=1e-15)
    np.testing.assert_allclose(
        backward(backend, "softmax", dA, Z),
        np.einsum("si,sij->sj", dA, jacobian),
        rtol=0,
        atol=8 * eps(dtype),
    )


def test_step_network_runs_forward_and_refuses_training(backend, dtype):
    xor = Network(
        2, [Dense(2, "step"), Dense(1, "step")], loss="mse", dtype=dtype, backend=backend, seed=0
    )
    for values, wanted in zip(
        xor.parameters, [([[1, 1], [1, 1]], [-0.5, -1.5]), ([[1], [-2]], [-0.5])], strict=True
    ):
        for value, numbers in zip(values, wanted, strict=True):
            value[...] = numbers
    X, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    assert xor.predict(X).ravel().tolist() == y
    before = xor.arena.flat.tobytes()
    for train in (xor.fit, xor.compute_gradient):
        with pytest.raises(ValueError, match=r"layers\[0\].*'step'.*cannot be trained"):
            train(X, y)
    assert xor.arena.flat.tobytes() == before


SINE = Activation(np.sin, lambda dA, Z, A: dA * np.cos(Z), name="sine")


def test_own_activation_runs_on_numpy_and_trains(dtype):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (64, 1)).astype(dtype)
    y = np.sin(3 * X)
    net = Network(1, [Dense(16, SINE), Dense(1)], loss="mse", dtype=dtype, seed=0)
    assert net.backend.name == "numpy"
    np.testing.assert_array_equal(
        net.forward(X, return_cache=True)[1][0].A, np.sin(X @ net.parameters[0][0])
    )
    assert check_gradient(net, X[:8], y[:8]) < 1e-6
    history = net.fit(X, y, optimizer=SGD(0.05, momentum=0.9), epochs=60, batch_size=8)
    assert history["loss"][-1] < 0.1 * history["loss"][0]


def test_own_activation_is_refused_by_the_compiled_backend():
    with pytest.raises(ValueError, match=r"backend: .*of your own.*'compiled'"):
        Network(1, [Dense(1, SINE)], loss="mse", backend="compiled")


def test_own_activations_are_not_mistaken_for_those_whose_names_they_have():
    """The compiled core, and the fused gradient, go by the record and not by the name."""
    doubled = Activation(lambda Z: 2 * Z, lambda dA, Z, A: 2 * dA, name="sigmoid")
    sharp = Activation(
        lambda Z: special.softmax(3 * Z, axis=1),
        lambda dA, Z, A: 3 * A * (dA - (dA * A).sum(axis=1, keepdims=True)),
        name="softmax",
    )
    X = np.random.default_rng(0).standard_normal((3, 2))
    net = Network(2, [Dense(2, doubled), Dense(2, sharp)], loss="cross_entropy", seed=0)
    (W1, _), (W2, _) = net.parameters
    np.testing.assert_allclose(
        net.predict(X), special.softmax(3 * (2 * (X @ W1)) @ W2, axis=1), rtol=1e-5
    )
    assert check_gradient(net, X, [0, 1, 1]) < 1e-6


def test_registry_is_what_is_documented():
    assert list(ACTIVATIONS) == [
        *("identity", "relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "softplus"),
        *("gelu", "silu", "softmax", "step", "exp", "increasing"),
    ]
    for code, (name, record) in enumerate(ACTIVATIONS.items()):
        assert record.name == name
        assert record.code == code
        assert record.default_init in INITIALIZERS
        assert get_activation(record) is record


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        ("reluu", ValueError, r"activation: expected one of \[.*'relu'.*\], got 'reluu'"),
        (None, TypeError, "activation: expected a name or an Activation, got NoneType"),
        (np.sin, TypeError, "activation: expected a name or an Activation, got ufunc"),
    ],
)
def test_unknown_activations_are_refused(activation, error, message):
    with pytest.raises(error, match=message):
        Dense(3, activation)
