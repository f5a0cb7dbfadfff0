"""Losses against formulas written again here, one sample and one output at a time."""

from __future__ import annotations

import pickle
from math import exp, log

import numpy as np
import pytest
from scipy import special

from fastmlp import (
    SGD,
    BinaryCrossEntropy,
    BinaryFocal,
    CrossEntropy,
    Dense,
    Focal,
    Huber,
    Loss,
    Network,
    Quantile,
    check_gradient,
)
from fastmlp.activations import get_activation
from fastmlp.backends import get_backend, load_compiled
from fastmlp.losses import LOSSES, get_loss
from fastmlp.schedules import LinearDecay


def _cross_entropy(a, y):
    return -sum(yi * log(ai) for ai, yi in zip(a, y, strict=True) if yi)


def _binary_cross_entropy(a, y):
    terms = [yi * log(ai) + (1 - yi) * log(1 - ai) for ai, yi in zip(a, y, strict=True)]
    return -sum(terms) / len(terms)


def _mean_of(term):
    return lambda a, y: sum(term(ai - yi) for ai, yi in zip(a, y, strict=True)) / len(a)


def _focal(a, y):
    return -sum(yi * (1 - ai) ** 2 * log(ai) for ai, yi in zip(a, y, strict=True))


def _binary_focal(a, y):
    pairs = zip(a, y, strict=True)
    terms = [v * (1 - p) ** 2 * log(p) + (1 - v) * p**2 * log(1 - p) for p, v in pairs]
    return -sum(terms) / len(terms)


def _hinge(a, y):
    return max(ai + 1 - yi for ai, yi in zip(a, y, strict=True)) - np.dot(a, y)


VALUES = {
    "cross_entropy": _cross_entropy,
    "binary_cross_entropy": _binary_cross_entropy,
    "mse": _mean_of(lambda r: r * r),
    "mae": _mean_of(abs),
    "huber": _mean_of(lambda r: r * r / 2 if abs(r) <= 1 else abs(r) - 0.5),
    "quantile": _mean_of(lambda r: abs(r) / 2),
    "poisson": lambda a, y: sum(special.kl_div(y, a)),
    "gamma": lambda a, y: sum(log(p / v) + v / p - 1 for p, v in zip(a, y, strict=True)),
    "hinge": _hinge,
    "focal": _focal,
    "binary_focal": _binary_focal,
}
# Derivative of a sample's loss with respect to one of k outputs.
GRADIENTS = {
    "cross_entropy": lambda a, y, k: -y / a,
    "binary_cross_entropy": lambda a, y, k: ((1 - y) / (1 - a) - y / a) / k,
    "mse": lambda a, y, k: 2 * (a - y) / k,
    "mae": lambda a, y, k: ((a > y) * 1.0 - (a < y) * 1.0) / k,
    "huber": lambda a, y, k: np.where(abs(a - y) <= 1, a - y, np.sign(a - y)) / k,
    "quantile": lambda a, y, k: np.sign(a - y) / 2 / k,
    "poisson": lambda a, y, k: 1 - y / a,
    "gamma": lambda a, y, k: 1 / a - y / a**2,
    "hinge": lambda a, y, k: np.eye(k)[(a + 1 - y).argmax(axis=1)] - y,
    "focal": lambda a, y, k: y * (2 * (1 - a) * np.log(a) - (1 - a) ** 2 / a),
    "binary_focal": lambda a, y, k: (
        (
            y * (2 * (1 - a) * np.log(a) - (1 - a) ** 2 / a)
            - (1 - y) * (2 * a * np.log(1 - a) - a**2 / (1 - a))
        )
        / k
    ),
}
# What may stand in front of each loss.
OUTPUTS = [
    *(
        (loss, output)
        for loss in ("mse", "mae", "huber", "quantile", "hinge")
        for output in ("identity", "tanh")
    ),
    ("poisson", "exp"),
    ("gamma", "exp"),
    *((loss, output) for loss in VALUES for output in ("sigmoid", "softmax")),
]
N, K = 23, 5


def outputs_and_targets(loss, output, dtype, shape=(N, K)):
    """Z, A = output(Z) and targets, all of `dtype`."""
    rng = np.random.default_rng(0)
    Z = rng.normal(0, 2, shape).astype(dtype)
    A = np.empty_like(Z)
    get_backend("numpy").activation_forward(get_activation(output), Z, A)
    record = LOSSES[loss]
    if record.targets != "real":
        return Z, A, rng.integers(record.targets == "positive", 5, shape).astype(dtype)
    if record.labels:
        return Z, A, special.softmax(rng.normal(0, 1, shape), axis=1).astype(dtype)
    if record.probabilities:
        return Z, A, rng.integers(0, 2, shape).astype(dtype)
    return Z, A, rng.normal(0, 2, shape).astype(dtype)


def values_of(backend, loss, output, Z, A, Y):
    inputs = [A, Z, Y]
    before = [array.tobytes() for array in inputs]
    values = np.full(len(A), np.nan)
    get_backend(backend).loss_forward(get_loss(loss), get_activation(output), *inputs, values)
    assert [array.tobytes() for array in inputs] == before
    return values


def gradient_of(backend, loss, output, Z, A, Y, scale=None):
    scale = np.ones(len(A)) if scale is None else scale
    inputs = [A, Z, Y, scale]
    before = [array.tobytes() for array in inputs]
    dZ = np.full_like(Z, np.nan)
    get_backend(backend).loss_backward(get_loss(loss), get_activation(output), *inputs, dZ)
    assert [array.tobytes() for array in inputs] == before
    return dZ


def expected_gradient(loss, output, Z, A, Y):
    """The chain rule in float64: dA times the Jacobian of the output activation."""
    A, Y = A.astype(np.float64), Y.astype(np.float64)
    dA = GRADIENTS[loss](A, Y, A.shape[1])
    if output == "softmax":
        jacobians = np.stack([np.diag(a) - np.outer(a, a) for a in A])
        return np.einsum("si,sij->sj", dA, jacobians)
    return dA * {"identity": 1, "tanh": 1 - A**2, "sigmoid": A * (1 - A), "exp": A}[output]


def tolerance(dtype):
    return {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}


@pytest.mark.parametrize(("loss", "output"), OUTPUTS)
def test_value_is_the_formula(backend, dtype, loss, output):
    Z, A, Y = outputs_and_targets(loss, output, dtype)
    expected = [VALUES[loss](a, y) for a, y in zip(A.tolist(), Y.tolist(), strict=True)]
    np.testing.assert_allclose(
        values_of(backend, loss, output, Z, A, Y), expected, **tolerance(dtype)
    )


@pytest.mark.parametrize(("loss", "output"), OUTPUTS)
def test_gradient_is_the_chain_rule(backend, dtype, loss, output):
    """For the fused pairs too: ``prediction - target`` is what the chain rule gives."""
    Z, A, Y = outputs_and_targets(loss, output, dtype)
    np.testing.assert_allclose(
        gradient_of(backend, loss, output, Z, A, Y),
        expected_gradient(loss, output, Z, A, Y),
        **tolerance(dtype),
    )


@pytest.mark.parametrize(
    ("loss", "output", "divisor"),
    [("cross_entropy", "softmax", 1), ("binary_cross_entropy", "sigmoid", K)],
)
def test_fused_gradient_is_prediction_minus_target(backend, dtype, loss, output, divisor):
    Z, A, Y = outputs_and_targets(loss, output, dtype)
    # Also where a probability has rounded to 0 or 1, and 1 / A is of no use.
    A[0], Y[0] = [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]
    np.testing.assert_allclose(
        gradient_of(backend, loss, output, Z, A, Y), (A - Y) / divisor, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("loss", "output"), OUTPUTS)
def test_gradient_is_scaled_sample_by_sample(backend, dtype, loss, output):
    Z, A, Y = outputs_and_targets(loss, output, dtype)
    scale = np.random.default_rng(1).uniform(0, 2, N)
    scale[3] = 0
    plain = gradient_of(backend, loss, output, Z, A, Y)
    scaled = gradient_of(backend, loss, output, Z, A, Y, scale)
    np.testing.assert_allclose(scaled, plain * scale[:, None], **tolerance(dtype))
    assert not scaled[3].any()


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_labels_are_one_hot_rows(backend, dtype, output):
    Z, A, _ = outputs_and_targets("cross_entropy", output, dtype)
    labels = np.random.default_rng(1).integers(0, K, N)
    rows = np.eye(K, dtype=dtype)[labels]
    for function in (values_of, gradient_of):
        by_label, by_row = (
            function(backend, "cross_entropy", output, Z, A, Y) for Y in (labels, rows)
        )
        np.testing.assert_allclose(by_label, by_row, **tolerance(dtype))


def test_cross_entropy_far_from_the_target(backend, dtype):
    """From the logits: no probability of 0 gets in between."""
    Z = np.array([[1e4, -1e4, 0], [0, 0, 0]], dtype)
    A = np.array([[1, 0, 0], [1 / 3] * 3], dtype)
    labels = np.array([1, 2])
    np.testing.assert_allclose(
        values_of(backend, "cross_entropy", "softmax", Z, A, labels), [2e4, log(3)], rtol=1e-6
    )


def test_binary_cross_entropy_far_from_the_target(backend, dtype):
    Z = np.array([[1e4], [-1e4], [1e4], [-20]], dtype)
    A = np.array([[1], [0], [1], [exp(-20)]], dtype)
    Y = np.array([[0], [1], [1], [0]], dtype)
    np.testing.assert_allclose(
        values_of(backend, "binary_cross_entropy", "sigmoid", Z, A, Y),
        [1e4, 1e4, 0, exp(-20)],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("loss", "output"), [("cross_entropy", "sigmoid"), ("binary_cross_entropy", "softmax")]
)
def test_probabilities_of_zero_and_one_keep_unfused_losses_finite(backend, dtype, loss, output):
    Z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    A = np.array([[1, 0], [0, 1]], dtype)
    Y = np.array([[0, 1], [0, 1]], dtype)
    wrong, right = values_of(backend, loss, output, Z, A, Y)
    assert 80 < wrong < 1500
    assert abs(right) < 1e-6
    assert np.isfinite(gradient_of(backend, loss, output, Z, A, Y)).all()


def test_huber_where_its_branches_meet(backend, dtype):
    A = np.array([[-1.5], [-1], [-0.5], [0], [0.5], [1], [1.5]], dtype)
    Y = np.zeros_like(A)
    assert values_of(backend, "huber", "identity", A, A, Y).tolist() == [
        *(1, 0.5, 0.125, 0, 0.125, 0.5, 1),
    ]
    assert gradient_of(backend, "huber", "identity", A, A, Y).ravel().tolist() == [
        *(-1, -1, -0.5, 0, 0.5, 1, 1),
    ]


def test_mae_gradient_is_zero_at_the_target(backend, dtype):
    A = np.array([[-2, 0, 2]], dtype)
    assert gradient_of(backend, "mae", "identity", A, A, A).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("loss", VALUES)
def test_one_output(backend, dtype, loss):
    output = "sigmoid"
    Z, A, Y = outputs_and_targets(loss, output, dtype, shape=(N, 1))
    expected = [VALUES[loss](a, y) for a, y in zip(A.tolist(), Y.tolist(), strict=True)]
    np.testing.assert_allclose(
        values_of(backend, loss, output, Z, A, Y), expected, **tolerance(dtype)
    )


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        *OUTPUTS,
        (Huber(0.3), "identity"),
        (Quantile(0.8), "identity"),
        (BinaryCrossEntropy(0.2), "sigmoid"),
        (BinaryFocal(3), "sigmoid"),
    ],
    ids=str,
)
def test_one_output_without_gaps_has_the_bits_of_one_with(dtype, loss, output):
    """Samples that lie next to each other are taken together, a vector at a time."""
    if load_compiled() is None:
        pytest.skip("needs the compiled core")
    close = outputs_and_targets(get_loss(loss).name, output, dtype, shape=(N, 1))
    apart = [np.repeat(array, 3, axis=1)[:, :1] for array in close]
    scale = np.random.default_rng(1).uniform(0, 2, N)
    values = [values_of("compiled", loss, output, *arrays) for arrays in (close, apart)]
    assert values[0].tobytes() == values[1].tobytes()
    gradients = [gradient_of("compiled", loss, output, *a, scale) for a in (close, apart)]
    assert gradients[0].tobytes() == gradients[1].tobytes()


def test_cost_is_the_weighted_mean(backend, dtype, make_network, make_data):
    net = make_network(backend, dtype)
    X, y = make_data(net, N)
    weight = np.random.default_rng(1).uniform(0, 3, N)
    values = [-log(p[label]) for p, label in zip(net.predict(X).tolist(), y, strict=True)]
    np.testing.assert_allclose(net.cost(X, y), np.mean(values), rtol=1e-5)
    np.testing.assert_allclose(
        net.cost(X, y, weight), np.sum(weight * values) / weight.sum(), rtol=1e-5
    )


def test_accuracy_counts_classes(backend, dtype):
    net = Network(3, [Dense(3, "softmax")], loss="cross_entropy", dtype=dtype, backend=backend)
    net.parameters[0][0][...] = np.eye(3)
    X = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 1, 1]])
    assert net.evaluate(X, [0, 1, 2, 0])["accuracy"] == 1
    assert net.evaluate(X, [0, 1, 1, 1])["accuracy"] == 0.5
    assert net.evaluate(X, np.eye(3)[[0, 1, 1, 1]])["accuracy"] == 0.5
    assert net.evaluate(X, [0, 1, 1, 1], [3, 3, 1, 1])["accuracy"] == 0.75


def test_accuracy_counts_samples_with_every_output_right(backend, dtype):
    net = Network(
        2, [Dense(2, "sigmoid")], loss="binary_cross_entropy", dtype=dtype, backend=backend
    )
    net.parameters[0][0][...] = np.eye(2)
    X = np.array([[3, -3], [3, 3], [-3, -3], [-3, 3]])
    assert net.evaluate(X, [[1, 0], [1, 1], [0, 1], [1, 1]])["accuracy"] == 0.5


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
def test_regression_has_no_accuracy(backend, loss, make_network, make_data):
    net = make_network(backend, output="identity", loss=loss)
    assert list(net.evaluate(*make_data(net, 5))) == ["loss"]


LOG_COSH = Loss(
    lambda A, Y: np.log(np.cosh(A - Y)).mean(axis=1),
    lambda A, Y: np.tanh(A - Y) / A.shape[1],
    name="log_cosh",
)


def test_own_loss_runs_on_numpy_and_trains(dtype):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    y = X @ [1, -2, 0.5] + 0.3
    net = Network(3, [Dense(1)], loss=LOG_COSH, dtype=dtype, seed=0)
    assert net.backend.name == "numpy"
    assert check_gradient(net, X, y) < 1e-6
    net.fit(X, y, optimizer=SGD(0.1), epochs=60, batch_size=8)
    np.testing.assert_allclose(net.parameters[0][0].ravel(), [1, -2, 0.5], atol=1e-2)
    assert net.cost(X, y) < 1e-3


def test_own_loss_equal_to_a_built_in_one_trains_alike(dtype, make_network, make_data):
    own = Loss(
        lambda A, Y: ((A - Y) ** 2).sum(axis=1) / A.shape[1],
        lambda A, Y: (A - Y) * (2 / A.shape[1]),
    )
    nets = [make_network("numpy", dtype, output="tanh", loss=loss) for loss in (own, "mse")]
    for net in nets:
        net.fit(*make_data(net, 20), optimizer=SGD(0.1), epochs=3, batch_size=4)
    np.testing.assert_allclose(nets[0].arena.flat, nets[1].arena.flat, **tolerance(dtype))


def test_own_loss_is_refused_by_the_compiled_backend():
    with pytest.raises(ValueError, match=r"backend: .*of your own.*'compiled'"):
        Network(3, [Dense(1)], loss=LOG_COSH, backend="compiled")


def test_registry_is_what_is_documented():
    assert list(LOSSES) == [
        *("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "quantile", "poisson"),
        *("gamma", "hinge", "focal", "binary_focal"),
    ]
    for code, (name, record) in enumerate(LOSSES.items()):
        assert (record.name, record.code) == (name, code)
        assert get_loss(record) is record


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("mean", ValueError, r"loss: expected one of \[.*'mse'.*\], got 'mean'"),
        (None, TypeError, "loss: expected a name or a Loss, got NoneType"),
    ],
)
def test_unknown_losses_are_refused(loss, error, message):
    with pytest.raises(error, match=message):
        Network(3, [Dense(1)], loss=loss)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("output", ["identity", "relu", "tanh"])
def test_cross_entropies_need_probabilities(loss, output):
    with pytest.raises(ValueError, match=rf"loss: {loss} needs outputs in \[0, 1\].*'{output}'"):
        Network(3, [Dense(2, output)], loss=loss)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_scaled_loss_scales_value_and_gradient(
    backend, make_network, make_data, loss, batch_size
):
    """Three times the loss with a rate of lr is the loss with a rate of 3 lr."""
    output = "softmax" if loss == "cross_entropy" else "identity"
    plain = make_network(backend, output=output, loss=loss)
    scaled = make_network(backend, output=output, loss=get_loss(loss).scaled(3, 5))
    X, y = make_data(plain, 13)
    assert scaled.cost(X, y) == pytest.approx(5 * plain.cost(X, y))
    for (dW, _), (expected, _) in zip(
        scaled.compute_gradient(X, y), plain.compute_gradient(X, y), strict=True
    ):
        np.testing.assert_allclose(dW, 3 * expected)
    settings = {"epochs": 2, "batch_size": batch_size, "shuffle": False}
    shown = scaled.fit(X, y, optimizer=SGD(0.01), **settings)["loss"]
    expected = plain.fit(X, y, optimizer=SGD(0.03), **settings)["loss"]
    np.testing.assert_allclose(shown, 5 * np.array(expected))
    np.testing.assert_allclose(scaled.arena.flat, plain.arena.flat, 1e-10)


def test_a_scaled_loss_keeps_its_factors_in_pickles_and_files(tmp_path):
    net = Network(3, [Dense(2)], loss=get_loss("mse").scaled(2, 0.5), seed=0)
    net.save(tmp_path / "net.safetensors")
    copies = pickle.loads(pickle.dumps(net)), Network.load(tmp_path / "net.safetensors")
    for copy in copies:
        assert copy.architecture.loss == net.architecture.loss
    assert pickle.loads(pickle.dumps(get_loss("mse"))) is get_loss("mse")


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
@pytest.mark.parametrize("output", ["identity", "relu", "tanh"])
def test_counts_and_amounts_need_positive_outputs(loss, output):
    with pytest.raises(ValueError, match=rf"loss: {loss} needs outputs above 0.*'{output}'"):
        Network(3, [Dense(2, output)], loss=loss)


@pytest.mark.parametrize(
    ("loss", "output", "y", "message"),
    [
        ("poisson", "exp", [1, -1, 2], "y: expected values of at least 0 for poisson, got -1"),
        ("gamma", "softplus", [1, 0, 2], "y: expected values above 0 for gamma, got 0"),
        ("hinge", "identity", [[2], [1], [1]], r"y: expected values in \[0, 1\] for hinge"),
    ],
)
def test_targets_outside_a_loss_are_refused(loss, output, y, message):
    net = Network(2, [Dense(1, output)], loss=loss)
    with pytest.raises(ValueError, match=message):
        net.cost(np.zeros((3, 2)), y)


# --- Losses with options --------------------------------------------------------------------------

WITH_OPTIONS = [
    (CrossEntropy(0.1), "softmax"),
    (CrossEntropy(0.1), "sigmoid"),
    (BinaryCrossEntropy(0.2), "sigmoid"),
    (BinaryCrossEntropy(0.2), "softmax"),
    (Huber(0.3), "identity"),
    (Quantile(0.9), "identity"),
    (Quantile([0.1, 0.5, 0.6]), "increasing"),
    (Focal(0), "softmax"),
    (Focal(0.5), "softmax"),
    (Focal(3), "sigmoid"),
    (BinaryFocal(0), "sigmoid"),
    (BinaryFocal(1.5), "sigmoid"),
]
with_options = pytest.mark.parametrize(("loss", "output"), WITH_OPTIONS, ids=str)


def network_of(loss, output, backend, dtype="float64"):
    layers = [Dense(6, "tanh"), Dense(3, output)]
    return Network(4, layers, loss=loss, dtype=dtype, seed=0, backend=backend)


@with_options
def test_gradient_with_options(backend, make_data, loss, output):
    net = network_of(loss, output, backend)
    X, y = make_data(net, 9)
    assert check_gradient(net, X, y, np.random.default_rng(0).uniform(0, 2, 9)) < 1e-6


@with_options
def test_backends_agree_on_options(dtype, make_data, loss, output):
    if load_compiled() is None:
        pytest.skip("needs the compiled core")
    nets = [network_of(loss, output, backend, dtype) for backend in ("numpy", "compiled")]
    X, y = make_data(nets[0], 40)
    costs = [net.cost(X, y) for net in nets]
    np.testing.assert_allclose(*costs, **tolerance(dtype))
    for net in nets:
        net.fit(X, y, optimizer=SGD(0.1), epochs=2, batch_size=8)
    np.testing.assert_allclose(nets[0].arena.flat, nets[1].arena.flat, **tolerance(dtype))


@with_options
def test_records_with_options_are_kept_in_files_and_pickles(tmp_path, loss, output):
    net = network_of(loss, output, "numpy")
    net.save(tmp_path / "net.safetensors")
    assert Network.load(tmp_path / "net.safetensors").architecture == net.architecture
    assert pickle.loads(pickle.dumps(loss)) is loss


def test_label_smoothing_moves_the_targets(backend, dtype):
    A = special.softmax(np.random.default_rng(0).normal(0, 1, (7, K)), axis=1).astype(dtype)
    Z, labels = np.log(A), np.arange(7) % K
    smoothed = (0.9 * np.eye(K)[labels] + 0.1 / K).astype(dtype)
    for loss, plain, output in [
        (CrossEntropy(0.1), CrossEntropy(), "softmax"),
        (CrossEntropy(0.1), CrossEntropy(), "sigmoid"),
    ]:
        for function in (values_of, gradient_of):
            np.testing.assert_allclose(
                function(backend, loss, output, Z, A, labels),
                function(backend, plain, output, Z, A, smoothed),
                **tolerance(dtype),
            )
    Y = np.eye(K, dtype=dtype)[labels]
    np.testing.assert_allclose(
        values_of(backend, BinaryCrossEntropy(0.2), "sigmoid", Z, A, Y),
        values_of(backend, BinaryCrossEntropy(), "sigmoid", Z, A, (0.8 * Y + 0.1).astype(dtype)),
        **tolerance(dtype),
    )


@pytest.mark.parametrize("loss", [Focal(0), BinaryFocal(0)], ids=str)
def test_focal_of_0_is_cross_entropy(backend, dtype, loss):
    output = loss.fused_with
    plain = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}[output]
    Z, A, Y = outputs_and_targets(plain, output, dtype)
    for function in (values_of, gradient_of):
        np.testing.assert_allclose(
            function(backend, loss, output, Z, A, Y),
            function(backend, plain, output, Z, A, Y),
            **tolerance(dtype),
        )


def test_hinge_is_the_margin_of_crammer_and_singer(backend, dtype):
    A = np.array([[3, 1, 0], [3, 2.5, 0], [1, 3, 0], [0, 0, 0]], dtype)
    expected = [0, 0.5, 3, 1]
    assert values_of(backend, "hinge", "identity", A, A, np.zeros(4, int)).tolist() == expected
    assert gradient_of(backend, "hinge", "identity", A, A, np.zeros(4, int)).tolist() == [
        *([0, 0, 0], [-1, 1, 0], [-1, 1, 0], [-1, 1, 0]),
    ]


def test_quantiles_are_found_and_do_not_cross(backend):
    rng = np.random.default_rng(0)
    X = np.ones((4000, 1))
    y = rng.exponential(1, 4000)
    levels = [0.1, 0.5, 0.9]
    net = Network(1, [Dense(3, "increasing")], loss=Quantile(levels), seed=0, backend=backend)
    net.fit(X, y, optimizer=SGD(LinearDecay(0.5, 20 * 40)), epochs=20, batch_size=100)
    quantiles = net.predict(X[:1])[0]
    np.testing.assert_allclose(quantiles, np.quantile(y, levels), atol=0.06)
    inputs = rng.standard_normal((50, 1)) * 100
    assert (np.diff(net.predict(inputs)) >= 0).all()


def test_one_target_goes_to_all_quantiles(backend):
    net = network_of(Quantile([0.1, 0.5, 0.6]), "increasing", backend)
    X, y = np.ones((5, 4)), np.arange(5.0)
    assert net.cost(X, y) == net.cost(X, y[:, None]) == net.cost(X, np.stack([y] * 3, axis=1))


def test_equal_options_are_the_same_record():
    assert Huber() is LOSSES["huber"] is Huber(1)
    assert Quantile([0.1, 0.9]) is Quantile((0.1, 0.9))
    assert Huber(0.5) != Huber(1)
    assert str(Huber(0.5)) == "huber(delta=0.5)"
    assert str(LOSSES["mse"]) == "mse"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Huber(0), ValueError, r"delta: expected a number in \(0, inf\), got 0"),
        (lambda: Huber("1"), TypeError, "delta: expected a number, got str"),
        (lambda: Focal(-1), ValueError, r"gamma: expected a number in \[0, inf\), got -1"),
        (lambda: BinaryFocal(np.inf), ValueError, "gamma: expected a number"),
        (lambda: CrossEntropy(1), ValueError, r"label_smoothing: .* in \[0, 1\), got 1"),
        (lambda: BinaryCrossEntropy(-0.1), ValueError, "label_smoothing: expected a number"),
        (lambda: Quantile(1.0), ValueError, r"levels: expected a number in \(0, 1\), got 1"),
        (lambda: Quantile([0.5, 0.5]), ValueError, "levels: expected rising numbers"),
        (lambda: Quantile([]), ValueError, "levels: expected rising numbers"),
        (lambda: Quantile("0.5"), TypeError, "levels: expected a number, got str"),
        (
            lambda: Network(3, [Dense(2)], loss=Quantile([0.1, 0.5, 0.9])),
            ValueError,
            r"loss: quantile\(.*\) needs 3 outputs, the last layer has 2",
        ),
    ],
)
def test_options_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()
