"""Gradients of whole networks: against central differences, and against automatic differentiation.

The forward formulas below are written again with HIPS autograd (https://github.com/HIPS/autograd),
which derives the gradient from them on its own.
"""

from __future__ import annotations

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.scipy.special import erfc, logsumexp
from scipy.special import xlogy

from fastmlp import Activation, Dense, Loss, Network, check_gradient
from fastmlp.activations import ACTIVATIONS
from fastmlp.losses import LOSSES

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _sigmoid(z):
    return 0.5 * (1 + anp.tanh(z / 2))


def _elu(z, alpha):
    return anp.where(z > 0, z, alpha * (anp.exp(anp.where(z > 0, 0, z)) - 1))


FORWARD = {
    "identity": lambda z: z,
    "relu": lambda z: anp.where(z > 0, z, 0),
    "leaky_relu": lambda z: anp.where(z > 0, z, z / 100),
    "elu": lambda z: _elu(z, 1),
    "selu": lambda z: SELU_SCALE * _elu(z, SELU_ALPHA),
    "sigmoid": _sigmoid,
    "tanh": anp.tanh,
    "softplus": lambda z: anp.log(1 + anp.exp(z)),
    "gelu": lambda z: z * erfc(-z / 2**0.5) / 2,
    "silu": lambda z: z * _sigmoid(z),
    "softmax": lambda z: anp.exp(z - logsumexp(z, axis=1, keepdims=True)),
    "exp": anp.exp,
    "increasing": lambda z: anp.cumsum(
        anp.concatenate([z[:, :1], anp.log(1 + anp.exp(z[:, 1:]))], axis=1), axis=1
    ),
}

VALUE = {
    "cross_entropy": lambda a, y: -anp.sum(y * anp.log(a), axis=1),
    "binary_cross_entropy": lambda a, y: (
        -anp.mean(y * anp.log(a) + (1 - y) * anp.log(1 - a), axis=1)
    ),
    "mse": lambda a, y: anp.mean((a - y) ** 2, axis=1),
    "mae": lambda a, y: anp.mean(anp.abs(a - y), axis=1),
    "huber": lambda a, y: anp.mean(
        anp.where(anp.abs(a - y) < 1, (a - y) ** 2 / 2, anp.abs(a - y) - 0.5), axis=1
    ),
    "quantile": lambda a, y: anp.mean(anp.abs(a - y), axis=1) / 2,
    "poisson": lambda a, y: anp.sum(a - y * anp.log(a) + xlogy(y, y) - y, axis=1),
    "gamma": lambda a, y: anp.sum(anp.log(a / y) + y / a - 1, axis=1),
    "hinge": lambda a, y: anp.max(a + 1 - y, axis=1) - anp.sum(a * y, axis=1),
    "focal": lambda a, y: -anp.sum(y * (1 - a) ** 2 * anp.log(a), axis=1),
    "binary_focal": lambda a, y: (
        -anp.mean(y * (1 - a) ** 2 * anp.log(a) + (1 - y) * a**2 * anp.log(1 - a), axis=1)
    ),
}

# Hidden activation, loss, output activation: every activation before every loss, in either place.
USUAL_OUTPUT = {
    "cross_entropy": "softmax",
    "binary_cross_entropy": "sigmoid",
    "mse": "identity",
    "mae": "identity",
    "huber": "identity",
    "quantile": "increasing",
    "poisson": "exp",
    "gamma": "exp",
    "hinge": "identity",
    "focal": "softmax",
    "binary_focal": "sigmoid",
}
HIDDEN = [(hidden, loss, USUAL_OUTPUT[loss]) for hidden in FORWARD for loss in VALUE]
OUTPUT = [
    ("tanh", loss, output)
    for output in FORWARD
    for loss in VALUE
    if LOSSES[loss].takes(ACTIVATIONS[output])
]
every_activation_and_loss = pytest.mark.parametrize(
    ("hidden", "loss", "output"), list(dict.fromkeys([*HIDDEN, *OUTPUT]))
)
DEPTHS = [(4, 3), (1, 1), (4, 1, 3), (4, 1, 1), (4, 6, 5, 4, 3), (4, *[6] * 10, 3)]
every_depth = pytest.mark.parametrize(
    "widths", DEPTHS, ids=lambda widths: "-".join(map(str, widths))
)


def autograd_gradient(net, X, Y, weight):
    """Gradients of the weighted mean loss, in float64; `Y` are rows."""
    architecture = net.architecture
    names = [layer.activation.name for layer in architecture.layers]
    weight = np.ones(len(X)) if weight is None else np.asarray(weight, np.float64)

    def cost(parameters):
        A = np.asarray(X, np.float64)
        for (W, b), name in zip(parameters, names, strict=True):
            A = FORWARD[name](anp.dot(A, W) + b)
        return anp.sum(weight * VALUE[architecture.loss.name](A, Y)) / weight.sum()

    return grad(cost)([(W.astype(np.float64), b.astype(np.float64)) for W, b in net.parameters])


def relative_difference(actual, expected):
    """As of `check_gradient`: the worst array's largest difference over its largest sum."""
    worst = 0.0
    for a, e in zip(
        (array for pair in actual for array in pair),
        (array for pair in expected for array in pair),
        strict=True,
    ):
        assert a.shape == e.shape
        largest = (np.abs(a) + np.abs(e)).max()
        worst = max(worst, np.abs(a - e).max() / largest if largest > 0 else 0.0)
    return worst


def problem(net, n=6):
    """Inputs, targets as rows, and biases that are not all zero."""
    rng = np.random.default_rng(5)
    for layer, (W, b) in zip(net.architecture.layers, net.parameters, strict=True):
        b[...] = rng.normal(0, 0.3, b.shape)
        if layer.activation.name == "exp":
            W *= 0.1  # two of them one behind the other overflow
    X = rng.standard_normal((n, net.architecture.n_inputs))
    shape = (n, net.architecture.n_outputs)
    if net.architecture.loss.labels:
        Y = np.eye(shape[1])[rng.integers(0, shape[1], n)]
    elif net.architecture.loss.probabilities:
        Y = rng.integers(0, 2, shape).astype(float)
    elif net.architecture.loss.targets != "real":
        Y = rng.integers(1, 5, shape).astype(float)
    else:
        Y = rng.normal(0, 1.5, shape)
    return X, Y


@every_activation_and_loss
def test_central_differences(backend, make_network, hidden, loss, output):
    net = make_network(backend, widths=(4, 5, 3), hidden=hidden, output=output, loss=loss)
    weight = np.random.default_rng(6).uniform(0.5, 2, 6)
    assert check_gradient(net, *problem(net), weight) < 1e-6


@every_activation_and_loss
def test_autograd(backend, make_network, hidden, loss, output):
    net = make_network(backend, widths=(4, 5, 6, 3), hidden=hidden, output=output, loss=loss)
    X, Y = problem(net, 21)
    weight = np.random.default_rng(6).uniform(0, 2, 21)
    for sample_weight in (None, weight):
        actual = net.compute_gradient(X, Y, sample_weight)
        assert relative_difference(actual, autograd_gradient(net, X, Y, sample_weight)) < 1e-10


def test_every_built_in_part_is_tested():
    assert set(FORWARD) == set(ACTIVATIONS) - {"step"}
    assert set(VALUE) == set(LOSSES)


@every_depth
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_depths_and_single_units(backend, make_network, widths, loss):
    net = make_network(backend, widths=widths, hidden="tanh", output=USUAL_OUTPUT[loss], loss=loss)
    X, Y = problem(net, 9)
    assert check_gradient(net, X, Y) < 1e-6
    assert (
        relative_difference(net.compute_gradient(X, Y), autograd_gradient(net, X, Y, None)) < 1e-10
    )


def test_layers_of_different_activations(backend):
    names = ["gelu", "selu", "softmax", "relu", "softplus"]
    layers = [*(Dense(4 + i, name) for i, name in enumerate(names)), Dense(3, "softmax")]
    net = Network(4, layers, loss="mse", dtype="float64", seed=0, backend=backend)
    X, Y = problem(net, 9)
    assert check_gradient(net, X, Y) < 1e-6
    assert (
        relative_difference(net.compute_gradient(X, Y), autograd_gradient(net, X, Y, None)) < 1e-10
    )


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_labels_and_probability_rows(backend, make_network, output):
    net = make_network(backend, output=output)
    rng = np.random.default_rng(7)
    X, _ = problem(net, 11)
    labels, weight = rng.integers(0, 3, 11), rng.uniform(0, 2, 11)
    rows = rng.dirichlet([1, 1, 1], 11)
    for Y, as_rows in [(labels, np.eye(3)[labels]), (rows, rows)]:
        actual = net.compute_gradient(X, Y, weight)
        assert relative_difference(actual, autograd_gradient(net, X, as_rows, weight)) < 1e-10
        assert check_gradient(net, X, Y, weight) < 1e-6


@pytest.mark.parametrize("loss", VALUE)
@pytest.mark.parametrize("hidden", FORWARD)
def test_float32(backend, make_network, hidden, loss):
    net = make_network(backend, "float32", hidden=hidden, output=USUAL_OUTPUT[loss], loss=loss)
    X, Y = problem(net, 21)
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    actual = net.compute_gradient(X, Y)
    assert all(array.dtype == np.float32 for pair in actual for array in pair)
    assert relative_difference(actual, autograd_gradient(net, X, Y, None)) < 2e-5


# --- Our own formulas under autograd --------------------------------------------------------------

traceable = pytest.mark.parametrize("name", sorted(set(FORWARD) - {"gelu"}))
SMOOTH_AT_ZERO = {"identity", "elu", "sigmoid", "tanh", "softplus", "silu", "softmax", "exp"}


@traceable
def test_autograd_differentiates_the_activations(name):
    activation = ACTIVATIONS[name]
    rng = np.random.default_rng(8)
    Z, dA = rng.normal(0, 2, (9, 4)), rng.standard_normal((9, 4))
    if name in SMOOTH_AT_ZERO:
        Z[0] = 0
    expected = activation.backward(dA, Z, activation.forward(Z))
    actual = grad(lambda Z: (dA * activation.forward(Z)).sum())(Z)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", VALUE)
def test_autograd_differentiates_the_losses(name):
    loss = LOSSES[name]
    rng = np.random.default_rng(9)
    A, Y = rng.uniform(0.01, 0.99, (9, 4)), rng.dirichlet([1, 1, 1, 1], 9)
    if not loss.probabilities and not loss.labels:
        A, Y = 5 * A, (2 if loss.positive else -2) * Y
    actual = grad(lambda A: loss.value(A, Y).sum())(A)
    np.testing.assert_allclose(actual, loss.gradient(A, Y), rtol=1e-12, atol=1e-14)


@traceable
def test_autograd_differentiates_apply(make_network, name):
    net = make_network("numpy", hidden=name)
    X, Y = problem(net, 21)
    loss = net.architecture.loss
    actual = grad(lambda parameters: loss.value(net.apply(parameters, X), Y).mean())(net.parameters)
    assert relative_difference(actual, net.compute_gradient(X, Y)) < 1e-12


def test_apply_gives_what_predict_gives(backend, dtype, make_network):
    net = make_network(backend, dtype)
    X, _ = problem(net, 7)
    A = net.apply(net.parameters, X)
    np.testing.assert_allclose(A, net.predict(X), rtol=1e-5 if dtype == "float32" else 1e-12)
    assert A.dtype == dtype
    pixels = np.arange(10, dtype=np.uint8).reshape(2, 5)
    np.testing.assert_allclose(net.apply(net.parameters, pixels), net.predict(pixels), rtol=1e-5)


def test_apply_takes_other_parameters_and_checks_inputs(make_network):
    net = make_network("numpy")
    halved = [(W / 2, b + 1) for W, b in net.parameters]
    X, _ = problem(net, 7)
    A = net.apply(halved, X)
    for mine, theirs in zip(net.parameters, halved, strict=True):
        mine[0][...], mine[1][...] = theirs
    np.testing.assert_array_equal(A, net.predict(X))
    with pytest.raises(ValueError, match="X: expected 5 columns"):
        net.apply(halved, X[:, :4])


# --- Penalties ------------------------------------------------------------------------------------


def penalised(backend, dtype="float64"):
    layers = [Dense(5, "tanh", l1=0.01), Dense(4, "tanh"), Dense(3, "softmax", l1=0.02, l2=0.3)]
    return Network(4, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)


def test_penalties_are_in_the_training_cost_alone(backend):
    net = penalised(backend)
    X, Y = problem(net)
    (W0, _), _, (W2, _) = net.parameters
    penalty = 0.01 * np.abs(W0).sum() + 0.02 * np.abs(W2).sum() + 0.15 * (W2**2).sum()
    assert net.cost(X, Y, training=True) == pytest.approx(net.cost(X, Y) + penalty, rel=1e-13)
    assert net.evaluate(X, Y)["loss"] == net.cost(X, Y)


def test_gradient_of_the_penalties(backend):
    net = penalised(backend)
    X, Y = problem(net)
    weight = np.random.default_rng(6).uniform(0, 2, len(X))
    assert check_gradient(net, X, Y, weight) < 1e-6
    plain, trained = (net.compute_gradient(X, Y, weight, training=flag) for flag in (False, True))
    assert relative_difference(plain, autograd_gradient(net, X, Y, weight)) < 1e-10
    (W0, _), _, (W2, _) = net.parameters
    expected = [0.01 * np.sign(W0), 0, 0.02 * np.sign(W2) + 0.3 * W2]
    for (dW, db), (plain_dW, plain_db), extra in zip(trained, plain, expected, strict=True):
        np.testing.assert_allclose(dW, plain_dW + extra, rtol=1e-13)
        np.testing.assert_array_equal(db, plain_db)


# --- check_gradient itself ------------------------------------------------------------------------


def test_check_gradient_sees_a_wrong_activation(make_network):
    wrong = Activation(np.tanh, lambda dA, Z, A: dA * (1 - A**2) * 1.001)
    net = make_network("numpy", hidden=wrong)
    assert check_gradient(net, *problem(net)) > 1e-4


def test_check_gradient_sees_a_wrong_loss(make_network):
    wrong = Loss(lambda A, Y: ((A - Y) ** 2).sum(axis=1), lambda A, Y: 2.001 * (A - Y))
    net = make_network("numpy", output="identity", loss=wrong)
    assert check_gradient(net, *problem(net)) > 1e-4


def test_check_gradient_does_not_change_the_network(
    backend, dtype, make_network, make_data, state_of
):
    net = make_network(backend, dtype)
    net.fit(*make_data(net, 8), epochs=1)
    before = state_of(net)
    assert check_gradient(net, *make_data(net, 4)) < 1e-6
    assert state_of(net) == before
    assert net.architecture.dtype == dtype


def test_compute_gradient_does_not_change_the_network(
    backend, dtype, make_network, make_data, state_of
):
    net = make_network(backend, dtype)
    before = state_of(net)
    gradients = net.compute_gradient(*make_data(net, 4))
    gradients[0][0][...] = 7
    assert state_of(net) == before
