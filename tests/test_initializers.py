"""Initial weights: their distributions, and the same bits on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastmlp import Dense, Network
from fastmlp.activations import ACTIVATIONS
from fastmlp.initializers import INITIALIZERS, get_initializer

# Name: variance for n_in inputs and n_out units.
VARIANCES = {
    "glorot_uniform": lambda n_in, n_out: 2 / (n_in + n_out),
    "glorot_normal": lambda n_in, n_out: 2 / (n_in + n_out),
    "he_uniform": lambda n_in, n_out: 2 / n_in,
    "he_normal": lambda n_in, n_out: 2 / n_in,
    "lecun_normal": lambda n_in, n_out: 1 / n_in,
    "standard_normal": lambda n_in, n_out: 1,
    "max_fan_normal": lambda n_in, n_out: 1 / max(n_in, n_out),
}
SHAPES = [(300, 70), (70, 300)]


def drawn_by_network(init, n_in, n_out):
    net = Network(n_in, [Dense(n_out, init=init)], loss="mse", dtype="float64", seed=0)
    return net.parameters[0]


@pytest.fixture(autouse=True)
def _numpy_is_meant(monkeypatch):
    monkeypatch.setenv("FASTMLP_BACKEND", "numpy")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", VARIANCES)
def test_distribution(name, shape):
    W, b = drawn_by_network(name, *shape)
    assert W.shape == shape
    assert not b.any()
    deviation = VARIANCES[name](*shape) ** 0.5
    if name.endswith("uniform"):
        limit = deviation * 3**0.5
        assert 0.999 * limit < W.max() <= limit
        assert -limit <= W.min() < -0.999 * limit
        expected = stats.uniform(-limit, 2 * limit)
    else:
        expected = stats.norm(0, deviation)
    assert stats.kstest(W.ravel(), expected.cdf).pvalue > 0.01
    # Five standard errors: of the mean, and, below 1.5 / sqrt(n) each, of the relative variance.
    assert abs(W.mean()) < 5 * deviation / W.size**0.5
    assert abs(W.var() / deviation**2 - 1) < 7.5 / W.size**0.5


def test_zeros():
    W, b = drawn_by_network("zeros", 6, 5)
    assert not W.any()
    assert not b.any()


def test_every_initializer_is_tested():
    assert set(INITIALIZERS) == {*VARIANCES, "zeros"}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_same_bits_on_every_backend_and_rounded_once(backend, dtype, name):
    layers = [Dense(33, "tanh", name), Dense(2, "identity", name)]
    net = Network(17, layers, loss="mse", dtype=dtype, seed=3, backend=backend)
    rng = np.random.default_rng(3)
    for (W, _), shape in zip(net.parameters, [(17, 33), (33, 2)], strict=True):
        expected = get_initializer(name)(rng, *shape).astype(dtype)
        assert np.ascontiguousarray(W).tobytes() == expected.tobytes()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_default_is_the_one_of_the_activation(activation):
    layer = Dense(8, activation)
    net = Network(5, [layer, Dense(1)], loss="mse", dtype="float64", seed=4)
    init = get_initializer(layer.activation.default_init)
    np.testing.assert_array_equal(net.parameters[0][0], init(np.random.default_rng(4), 5, 8))


def test_default_of_relu_and_of_tanh():
    assert ACTIVATIONS["relu"].default_init == "he_uniform"
    assert ACTIVATIONS["tanh"].default_init == "glorot_uniform"


def test_function_of_the_user(backend, dtype):
    seen = []

    def init(rng, n_in, n_out):
        seen.append((type(rng), n_in, n_out))
        return np.arange(n_in * n_out).reshape(n_in, n_out)

    net = Network(
        3, [Dense(4, init=init), Dense(2)], loss="mse", dtype=dtype, seed=0, backend=backend
    )
    assert seen == [(np.random.Generator, 3, 4)]
    np.testing.assert_array_equal(net.parameters[0][0], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (12,), ()])
def test_wrong_shape_of_a_users_function_is_refused(shape):
    layer = Dense(4, init=lambda rng, n_in, n_out: np.zeros(shape))
    with pytest.raises(ValueError, match=r"init: expected weights of shape \(3, 4\), got \("):
        Network(3, [layer], loss="mse")


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        ("glorot", ValueError, r"init: expected one of \[.*'zeros'\], got 'glorot'"),
        (0.5, TypeError, "init: expected a name or a callable, got float"),
    ],
)
def test_unknown_initializers_are_refused(init, error, message):
    with pytest.raises(error, match=message):
        Dense(3, init=init)


def test_seeds(backend, dtype, make_network):
    one, same, other = (make_network(backend, dtype, seed=seed) for seed in (1, 1, 2))
    assert one.arena.flat.tobytes() == same.arena.flat.tobytes()
    assert one.arena.flat.tobytes() != other.arena.flat.tobytes()
    unseeded = [make_network(backend, dtype, seed=None) for _ in range(2)]
    assert unseeded[0].arena.flat.tobytes() != unseeded[1].arena.flat.tobytes()
