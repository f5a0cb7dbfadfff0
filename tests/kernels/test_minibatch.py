"""The minibatch epoch against the specification's, and its bits for any number of threads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmlp import SGD, Adagrad, Adam, AdamW, BatchNorm, Dense, Dropout, LayerNorm, Nadam, RMSprop
from fastmlp.activations import ACTIVATIONS
from fastmlp.backends import load_compiled
from fastmlp.backends.base import PLAIN, StepOptions
from fastmlp.backends.numpy_backend import NumpyBackend
from fastmlp.losses import LOSSES

from .conftest import (
    TOLERANCE,
    Run,
    framed,
    make_data,
    make_network,
    network_of,
    padding_of,
    seeds,
)

minibatch = pytest.importorskip("fastmlp._core.minibatch")
compiled_backend = pytest.importorskip("fastmlp.backends.compiled_backend")

# Denominators far from 0: a gradient of a rounding error must not become a whole step.
OPTIMIZERS = {
    "SGD": SGD(),
    "SGD with decay": SGD(weight_decay=0.1),
    "momentum": SGD(momentum=0.9),
    "Nesterov": SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    "RMSprop": RMSprop(epsilon=0.1),
    "Adagrad": Adagrad(epsilon=0.1),
    "Adam": Adam(epsilon=0.1),
    "AdamW": AdamW(epsilon=0.1, weight_decay=0.5),
    "Nadam": Nadam(epsilon=0.1),
}
DIFFERENTIABLE = [name for name, record in ACTIVATIONS.items() if record.differentiable]
# Several of the others one behind the other overflow.
HIDDEN = [name for name in DIFFERENTIABLE if name not in ("exp", "increasing")]
PAIRS = [
    (loss, output)
    for loss, record in LOSSES.items()
    for output in DIFFERENTIABLE
    if record.takes(ACTIVATIONS[output])
    # 1 / a of a probability near 0: such a fit diverges
    and not (record.positive and ACTIVATIONS[output].probabilities)
]


def widened(architecture, data):
    """The same network and data in float64."""
    wide = dataclasses.replace(architecture, dtype=np.dtype(np.float64))
    if data.Y.ndim == 2:
        data = dataclasses.replace(data, Y=data.Y.astype(np.float64))
    if data.X.dtype != np.uint8:
        data = dataclasses.replace(data, X=data.X.astype(np.float64))
    return wide, data


def check_against_specification(network, optimizer, data, orders, options=PLAIN):
    """Every parameter and moment within rounding, padding 0, inputs as they were."""
    architecture, parameters = network
    inputs = [a for a in (data.X, data.Y, data.weight, *orders) if a is not None]
    before = [array.tobytes() for array in inputs]
    run = Run(load_compiled(), network, optimizer, data, orders, options=options)
    assert [array.tobytes() for array in inputs] == before
    wide, wide_data = widened(architecture, data)
    exact = Run(NumpyBackend(), (wide, parameters), optimizer, wide_data, orders, options=options)
    tolerance = TOLERANCE[architecture.dtype.name]
    for arena, exact_arena in zip(run.arenas, exact.arenas, strict=True):
        for view, values in zip(arena.views, exact_arena.views, strict=True):
            scale = 1 + np.abs(values).max()
            assert np.abs(view - values).max() <= tolerance * scale
        assert not padding_of(arena).any()
    for result, exact_result in zip(run.results, exact.results, strict=True):
        assert abs(result.loss - exact_result.loss) <= tolerance * (1 + abs(exact_result.loss))
        assert result.correct == exact_result.correct
        largest = 1 + np.abs(exact_result.losses).max()
        assert np.abs(result.losses - exact_result.losses).max() <= tolerance * largest
        assert abs(result.norms - exact_result.norms) <= tolerance * (1 + exact_result.norms) * 10
        assert (result.n_steps, result.norms > 0) == (len(result.losses), options.measures_norm)
    assert run.state.step == exact.state.step == sum(data.n_steps(len(order)) for order in orders)


@st.composite
def problems(draw):
    """Everything about a fit but the dtype."""
    n_layers = draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 40), min_size=n_layers + 1, max_size=n_layers + 1))
    loss, output = draw(st.sampled_from(PAIRS))
    if output == "softmax":
        widths[-1] += 1  # one unit is 1, where 1 - a and the floor of the dtype are the loss
    hidden = draw(st.lists(st.sampled_from(HIDDEN), min_size=n_layers - 1, max_size=n_layers - 1))
    n = draw(st.integers(1, 70))
    return {
        "widths": widths,
        "activations": [*hidden, output],
        "loss": loss,
        "optimizer": draw(st.sampled_from(list(OPTIMIZERS))),
        "n": n,
        "batch_size": draw(st.one_of(st.integers(4, 70), st.sampled_from([1, n]))),
        "pixels": draw(st.booleans()),
        "weighted": draw(st.booleans()),
        "labels": draw(st.booleans()) and LOSSES[loss].labels,
        "zeros": draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])),
        "seed": draw(seeds),
    }


@given(problems())
@settings(max_examples=60)
def test_epochs_are_the_specifications(isa, dtype, problem):
    rng = np.random.default_rng(problem["seed"])
    network = make_network(
        problem["widths"], problem["activations"], problem["loss"], dtype, problem["seed"]
    )
    n = problem["n"]
    names = "batch_size", "seed", "pixels", "weighted", "labels", "zeros"
    data = make_data(network[0], n, **{name: problem[name] for name in names})
    # Some samples often, some never; and some at most once. Few steps: rounding grows with them.
    most = 8 * data.batch_size
    orders = [rng.integers(0, n, rng.integers(1, min(most, 90) + 1)), rng.permutation(n)[:most]]
    orders = [framed(order) for order in orders]
    check_against_specification(network, OPTIMIZERS[problem["optimizer"]], data, orders)


@pytest.mark.parametrize(
    ("loss", "output", "labels"),
    [
        *((loss, output, False) for loss, output in PAIRS),
        *((loss, output, True) for loss, output in PAIRS if LOSSES[loss].labels),
    ],
)
def test_every_loss_behind_every_output(isa, dtype, loss, output, labels):
    network = make_network([9, 12, 5], ["tanh", output], loss, dtype)
    data = make_data(network[0], 30, 8, labels=labels, weighted=True)
    check_against_specification(network, SGD(momentum=0.5), data, [np.arange(30)])


@pytest.mark.parametrize("hidden", DIFFERENTIABLE)
def test_every_hidden_activation(isa, dtype, hidden):
    network = make_network([9, 17, 12, 5], [hidden, hidden, "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 30, 8, labels=True)
    check_against_specification(network, Adam(epsilon=0.1), data, [np.arange(30)] * 2)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer(isa, dtype, optimizer):
    network = make_network([20, 33, 3], ["sigmoid", "sigmoid"], "binary_cross_entropy", dtype)
    data = make_data(network[0], 33, 16, pixels=True)
    check_against_specification(network, optimizer, data, [np.arange(33)[::-1].copy()] * 3)


@pytest.mark.parametrize("n", [63, 64, 65, 129, 256, 257])
def test_batches_around_a_block_of_rows(isa, dtype, n):
    network = make_network([9, 12, 5], ["relu", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 300, n, labels=True, weighted=True)
    check_against_specification(network, Adam(epsilon=0.1), data, [np.arange(300)] * 2)


def core_epochs(
    network, optimizer, data, n_threads, n_epochs=2, options=PLAIN, together=None, n_samples=None
):
    """Bytes of parameters and moments, sums and losses, after epochs of the core, of which so many
    are `together` in one call, by default all.
    """
    run = Run(load_compiled(), network, optimizer, data, [], options=options)
    together = together or n_epochs
    n_samples = n_samples or len(data.X)
    orders = np.random.default_rng(0).integers(0, len(data.X), n_epochs * n_samples)
    n_steps, all_sums, all_losses = data.n_steps(n_samples), [], []
    for epoch in range(0, n_epochs, together):
        n = min(together, n_epochs - epoch)
        rates = np.full(n * n_steps, 0.05)
        scalars = optimizer.scalars(rates, 1 + epoch * n_steps + np.arange(n * n_steps))
        sums, losses = np.zeros((n, 5)), np.zeros(n * n_steps)
        order = orders[epoch * n_samples : (epoch + n) * n_samples]
        seeds = np.arange(12345 + epoch, 12345 + epoch + n, dtype=np.uint64)
        team = run.trainer.core.epochs(order, scalars, n_threads, sums, losses, rates, seeds, 2**40)
        assert team <= n_threads
        assert (sums[:, 4] > 0).all()
        all_sums += sums[:, :4].tolist()
        all_losses += losses.tolist()
    assert run.state.step == n_epochs * n_steps
    return [arena.flat.tobytes() for arena in run.arenas], all_sums, all_losses


@given(
    n_epochs=st.integers(1, 7),
    together=st.integers(1, 7),
    n_samples=st.integers(1, 70),
    batch_size=st.integers(1, 40),
    n_threads=st.integers(1, 2),
)
@settings(max_examples=30)
def test_epochs_of_one_call_are_those_of_several(
    isa, dtype, n_epochs, together, n_samples, batch_size, n_threads
):
    layers = [Dropout(0.3), LayerNorm(), Dense(7, "relu", l2=0.01), Dense(3, "softmax")]
    network = network_of(5, layers, "cross_entropy", dtype)
    data = make_data(network[0], 20, batch_size, weighted=True, labels=True)
    options = StepOptions(clip_norm=0.5)
    arguments = network, Adam(), data, n_threads, n_epochs, options
    all_at_once = core_epochs(*arguments, n_epochs, n_samples)
    assert core_epochs(*arguments, together, n_samples) == all_at_once


@pytest.mark.parametrize(
    "optimizer", [OPTIMIZERS["momentum"], OPTIMIZERS["AdamW"]], ids=["momentum", "AdamW"]
)
@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize(
    ("widths", "batch_size", "labels"),
    [
        ([37, 61, 29, 5], 64, True),  # every thread has rows of the batch and of every matrix
        ([100, 200, 10], 130, False),
        ([40, 3, 2], 2, True),  # some threads have nothing
    ],
)
def test_bits_do_not_depend_on_threads(isa, dtype, widths, batch_size, labels, zeros, optimizer):
    activations = [*["relu", "tanh"][: len(widths) - 2], "softmax"]
    network = make_network(widths, activations, "cross_entropy", dtype)
    options = {"labels": labels, "weighted": True, "zeros": zeros}
    data = make_data(network[0], 2 * batch_size + 5, batch_size, **options)
    one = core_epochs(network, optimizer, data, 1)
    for n_threads in (1, 2, 3, 8):
        assert core_epochs(network, optimizer, data, n_threads) == one, n_threads


def check_bits(network, data, zeros, options):
    """The same for any number of threads, and with zeros left out or not."""
    one = core_epochs(network, Adam(), data, 1, options=options)
    for n_threads in (2, 3, 8):
        assert core_epochs(network, Adam(), data, n_threads, options=options) == one, n_threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_backend, "_many_zeros", lambda X: zeros == 0)
        assert core_epochs(network, Adam(), data, 2, options=options) == one
    assert dense_epochs(network, data, 2, options=options) == one


def dense_epochs(network, data, n_threads, options=PLAIN, optimizer=None):
    """Those of the core that leaves out no zeros, of inputs or of layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_backend, "all_finite", lambda parameters: False)
        return core_epochs(network, optimizer or Adam(), data, n_threads, options=options)


@pytest.mark.parametrize(("zeros", "pixels"), [(0.0, False), (0.8, False), (0.8, True)])
@pytest.mark.parametrize(
    ("n_inputs", "layers"),
    [
        (256, [Dense(256, "softmax")]),
        (263, [Dense(250, "gelu", l2=0.01, max_norm=1.0), BatchNorm(), Dense(5, "softmax")]),
        (701, [Dense(95, "tanh"), Dropout(0.3), Dense(5, "softmax")]),
    ],
)
def test_inputs_in_two_slices(isa, dtype, n_inputs, layers, zeros, pixels):
    """A wide first layer: as the specification says, and the same bits in every way."""
    network = network_of(n_inputs, layers, "cross_entropy", dtype)
    options = {"labels": True, "weighted": True, "zeros": zeros, "pixels": pixels}
    data = make_data(network[0], 150, 97, **options)
    steps = StepOptions(clip_norm=0.5)
    check_against_specification(network, Adam(epsilon=0.1), data, [np.arange(150)] * 2, steps)
    check_bits(network, data, zeros, steps)


@pytest.mark.parametrize("options", [PLAIN, StepOptions(clip_norm=0.5)], ids=["plain", "clipped"])
@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize("n_units", [1, 2, 4, 6, 7, 10, 12])
def test_layers_of_few_units(isa, dtype, n_units, zeros, options):
    """Their gradients are made transposed, in taller strips, with no zeros left out."""
    layers = [Dense(n_units, "tanh", l2=0.01), Dense(150, "relu"), Dense(n_units, "identity")]
    network = network_of(150, layers, "mse", dtype)
    data = make_data(network[0], 50, 21, zeros=zeros, weighted=True)
    orders = [np.arange(50), np.arange(50)[::-1].copy()]
    check_against_specification(network, Adam(epsilon=0.1), data, orders, options)
    check_bits(network, data, zeros, options)


@given(
    widths=st.lists(st.integers(1, 130), min_size=3, max_size=3),
    batch_size=st.integers(1, 135),
    ragged=st.integers(0, 40),
    seed=seeds,
)
@example(widths=[130, 130, 130], batch_size=100, ragged=35, seed=0)  # rows of both halves alone
@example(widths=[130, 129, 130], batch_size=65, ragged=1, seed=0)  # of the second half alone
@example(widths=[16, 130, 127], batch_size=9, ragged=2, seed=0)  # all rows alone
@settings(max_examples=20)
def test_back_by_rows_and_by_columns(isa, dtype, widths, batch_size, ragged, seed):
    """The lanes of the way back are a small batch's rows, or a large one's columns."""
    widths = [7, *widths, 3]
    activations = ["tanh", "gelu", "identity", "softmax"]
    network = make_network(widths, activations, "cross_entropy", dtype, seed)
    data = make_data(network[0], batch_size + ragged, batch_size, seed, labels=True)
    order = np.arange(len(data.X))
    check_against_specification(network, SGD(momentum=0.9), data, [order])
    one = core_epochs(network, SGD(momentum=0.9), data, 1, n_epochs=1)
    for n_threads in (2, 3, 8):
        assert core_epochs(network, SGD(momentum=0.9), data, n_threads, n_epochs=1) == one


@pytest.mark.parametrize(
    ("zeros", "options"),
    [(0.0, PLAIN), (0.8, StepOptions(clip_norm=0.5))],
    ids=["plain", "clipped with zeros"],
)
def test_layers_that_no_cache_holds(isa, dtype, zeros, options):
    """More than 8 MB of weights and moments: updated in pieces of 512 columns, prefetched."""
    layers = [Dense(600, "relu", l2=0.01), Dense(1170, "tanh"), Dense(3, "softmax")]
    network = network_of(1170, layers, "cross_entropy", dtype)
    data = make_data(network[0], 265, 260, zeros=zeros, labels=True)
    check_against_specification(network, Adam(epsilon=0.1), data, [np.arange(265)], options)
    check_bits(network, data, zeros, options)


@pytest.mark.parametrize("n_units", [4, 8, 16, 32])
def test_many_inputs_of_few_units(isa, dtype, n_units):
    """No cache holds the weights and moments, and their rows are one or two vectors."""
    layers = [Dense(n_units, "tanh"), Dense(3, "softmax")]
    network = network_of(44_000, layers, "cross_entropy", dtype)
    data = make_data(network[0], 12, 9, zeros=0.8, labels=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_backend, "_many_zeros", lambda X: False)
        dense = core_epochs(network, Adam(), data, 1)
        patch.setattr(compiled_backend, "_many_zeros", lambda X: True)
        for n_threads in (1, 2):
            assert core_epochs(network, Adam(), data, n_threads) == dense


@given(
    st.integers(1, 300),
    st.integers(1, 150),
    st.integers(1, 130),
    st.sampled_from([0.3, 0.9, 0.99, 1.0]),
    seeds,
)
@settings(max_examples=20)
def test_bits_do_not_depend_on_skipping_zeros(
    isa, dtype, n_inputs, n_units, batch_size, zeros, seed
):
    """Single zeros, features that no sample has, and samples without any; pieces of inputs, panels
    of units and groups of 8 or 64 samples that are not full.
    """
    network = make_network(
        [n_inputs, n_units, 3], ["relu", "softmax"], "cross_entropy", dtype, seed
    )
    options = {"labels": True, "zeros": zeros, "pixels": seed % 2 == 1}
    data = make_data(network[0], batch_size + 9, batch_size, seed, **options)
    rng = np.random.default_rng(seed)
    data.X[:, rng.random(n_inputs) < 0.3] = 0
    data.X[rng.random(len(data.X)) < 0.3] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_backend, "_many_zeros", lambda X: False)
        dense = core_epochs(network, Adam(), data, 1)
        patch.setattr(compiled_backend, "_many_zeros", lambda X: True)
        for n_threads in (1, 2):
            assert core_epochs(network, Adam(), data, n_threads) == dense


@given(
    optimizer=st.sampled_from(list(OPTIMIZERS.values())),
    n_inputs=st.integers(2, 120),
    n_units=st.integers(9, 300),
    batch_size=st.integers(2, 72),
    l2=st.sampled_from([0.0, 0.01]),
    seed=seeds,
)
@settings(max_examples=40)
def test_updates_in_the_shade_of_products(
    isa, dtype, optimizer, n_inputs, n_units, batch_size, l2, seed
):
    """Of two rows of weights during the products of the next two: last rows that are single, last
    vectors that are not full, panels of every width, lists shorter and longer than a panel.
    """
    layers = [Dense(n_units, "tanh", l2=l2), Dense(3, "softmax")]
    network = network_of(n_inputs, layers, "cross_entropy", dtype, seed)
    data = make_data(network[0], batch_size + 9, batch_size, seed, labels=True, zeros=0.85)
    dense = dense_epochs(network, data, 1, optimizer=optimizer)
    for n_threads in (1, 2, 3):
        assert core_epochs(network, optimizer, data, n_threads) == dense


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_where_zeros_are_left_out(isa, dtype, optimizer):
    network = make_network([31, 137, 3], ["tanh", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 65, 33, labels=True, zeros=0.85)
    check_against_specification(network, optimizer, data, [np.arange(65)] * 3)


def sparse_layers(kind, n_units, next_units):
    """A layer whose outputs are often 0, and the one that leaves those out."""
    first = {
        "relu": [Dense(n_units, "relu")],
        "dropout": [Dense(n_units, "tanh"), Dropout(0.7)],
        "both": [Dense(n_units, "relu"), Dropout(0.3)],
        "norm": [Dense(n_units), LayerNorm("relu")],
        "batch norm": [Dense(n_units), BatchNorm("relu")],
    }[kind]
    return [*first, Dense(next_units, "relu", l2=0.01), Dense(3, "softmax")]


@given(
    kind=st.sampled_from(["relu", "dropout", "both", "norm", "batch norm"]),
    n_inputs=st.one_of(st.integers(1, 30), st.just(300)),
    n_units=st.integers(1, 300),
    next_units=st.integers(1, 150),
    batch_size=st.integers(2, 130),
    below=st.sampled_from([0.0, 0.5, 1.0, 9.0]),
    seed=seeds,
)
@settings(max_examples=40)
def test_bits_do_not_depend_on_skipping_zeros_of_layers(
    isa, dtype, kind, n_inputs, n_units, next_units, batch_size, below, seed
):
    """`below`: subtracted from what goes into relu; by 9, all outputs are 0."""
    layers = sparse_layers(kind, n_units, next_units)
    network = network_of(n_inputs, layers, "cross_entropy", dtype, seed)
    for layer, group in zip(network[0].layers, network[1].groups(), strict=True):
        if layer.activation.name == "relu":
            group[1][...] -= below
    data = make_data(network[0], batch_size + 9, batch_size, seed, labels=True)
    dense = dense_epochs(network, data, 1)
    for n_threads in (1, 2, 3):
        assert core_epochs(network, Adam(), data, n_threads) == dense


@pytest.mark.parametrize("kind", ["relu", "dropout", "both", "norm", "batch norm"])
@pytest.mark.parametrize("n_inputs", [20, 300])  # 300: two slices
def test_layers_of_many_zeros(isa, dtype, kind, n_inputs):
    """As the specification says."""
    layers = sparse_layers(kind, 250, 120)
    network = network_of(n_inputs, layers, "cross_entropy", dtype)
    data = make_data(network[0], 150, 97, weighted=True, labels=True)
    steps = StepOptions(clip_norm=0.5)
    check_against_specification(network, Adam(epsilon=0.1), data, [np.arange(150)] * 2, steps)
    check_bits(network, data, 0.0, steps)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_not_finite_show_in_spite_of_zeros(isa, dtype, value):
    """0 times infinity is NaN, also where most of X is 0."""
    network = make_network([50, 12, 5], ["identity", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 40, 16, labels=True)
    data.X[:, 7:] = 0
    network[1].views[0][30, 4] = value
    run = Run(load_compiled(), network, SGD(), data, [np.arange(40)])
    assert np.isnan(run.results[0].loss)
    assert run.trainer.core.state.step == 1


def test_pixels_are_their_255th_parts(isa, dtype):
    network = make_network([50, 12, 5], ["relu", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 40, 16, pixels=True, labels=True)
    scaled = data.X * np.dtype(dtype).type(1 / 255)
    floats = dataclasses.replace(data, X=scaled)
    assert core_epochs(network, Adam(), data, 2) == core_epochs(network, Adam(), floats, 2)


# Up to 32 outputs labels have a kernel of their own, which takes blocks of rows and of columns.
@pytest.mark.parametrize("n_outputs", [2, 3, 8, 9, 16, 17, 31, 32, 33])
def test_labels_are_one_hot_rows(isa, dtype, n_outputs):
    network = make_network([9, 12, n_outputs], ["relu", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 45, 19, labels=True, weighted=True)
    rows = dataclasses.replace(data, Y=np.eye(n_outputs, dtype=dtype)[data.Y])
    orders = [np.arange(45), np.arange(45)[::-1].copy()]
    one, other = (Run(load_compiled(), network, SGD(), d, orders) for d in (data, rows))
    tolerance = TOLERANCE[np.dtype(dtype).name]
    np.testing.assert_allclose(one.arenas[0].flat, other.arenas[0].flat, atol=tolerance)
    for a, b in zip(one.results, other.results, strict=True):
        np.testing.assert_allclose(a.losses, b.losses, atol=tolerance * b.losses.max())
        assert (a.correct, a.weight) == (b.correct, b.weight)


def test_samples_of_weight_0_count_for_nothing(isa, dtype):
    """Not in the sums, not in the gradient: whatever stands in them, as long as it is finite."""
    network = make_network([9, 12, 5], ["tanh", "identity"], "mse", dtype)
    data = make_data(network[0], 40, 16, weighted=True)
    other = dataclasses.replace(data, X=data.X.copy(), Y=data.Y.copy())
    other.X[data.weight == 0] = 3
    other.Y[data.weight == 0] = -3
    assert 0 < (data.weight == 0).sum() < 40
    assert core_epochs(network, Adam(), data, 1) == core_epochs(network, Adam(), other, 1)
    nothing = dataclasses.replace(data, weight=np.zeros(40))
    (parameters,), sums, _ = core_epochs(network, SGD(), nothing, 1, 1)
    assert parameters == network[1].flat.tobytes()
    assert sums[0][:2] == [0, 0]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_subnormal_moments_fall_to_zero(isa, dtype, n_threads):
    """Without a flush rounding keeps 0.9 times four of the smallest numbers at four of them."""
    network = make_network([20, 9, 3], ["relu", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 8, 4, labels=True)
    data.X[...] = 0
    run = Run(load_compiled(), network, Adam(), data, [])
    (moments, _), *_ = run.state.moments[0].pairs()
    moments[...] = 4 * np.finfo(dtype).smallest_subnormal
    scalars = Adam().scalars(np.full(2, 0.01), np.arange(1, 3))
    run.trainer.core.epochs(np.arange(8), scalars, n_threads, np.zeros((1, 5)), np.zeros(2))
    assert not moments.any()


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("bad", [0, 17, 39])
def test_an_epoch_stops_at_the_first_loss_that_is_not_finite(isa, dtype, bad, n_threads):
    network = make_network([9, 12, 5], ["tanh", "identity"], "mse", dtype)
    data = make_data(network[0], 40, 16)
    data.Y[bad] = np.inf
    run = Run(load_compiled(), network, SGD(), data, [])
    scalars = SGD().scalars(np.full(6, 0.1), np.arange(1, 7))
    order = np.append(np.full(40, (bad + 1) % 40), np.arange(40))
    sums, losses = np.zeros((2, 5)), np.zeros(6)
    run.trainer.core.epochs(order, scalars, n_threads, sums, losses)
    assert np.isfinite(sums[0]).all()
    assert not np.isfinite(sums[1, 0])
    assert not losses[3 + bad // 16 + 1 :].any()
    assert run.trainer.core.state.step == 3 + bad // 16 + 1


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("order", (41,), r"sums: expected shape \(2, 5\)"),
        ("sums", (2, 4), r"sums: expected shape \(2, 5\)"),
        ("losses", (5,), r"losses: expected shape \(6,\)"),
        ("rates", (7,), r"rates: expected shape \(6,\)"),
        ("seeds", (1,), r"seeds: expected shape \(2,\)"),
        ("scalars", (5, 4), r"scalars: expected shape \(6, 4\)"),
        ("scalars", (6, 3), r"scalars: expected shape \(6, 4\)"),
    ],
)
def test_arrays_of_another_number_of_steps_are_refused(name, shape, expected):
    network = make_network([3, 2], ["identity"], "mse", "float32")
    core = Run(load_compiled(), network, SGD(), make_data(network[0], 40, 16), []).trainer.core
    arguments = {
        "order": np.zeros(80, np.intp),
        "scalars": np.zeros((6, 4)),
        "n_threads": 1,
        "sums": np.zeros((2, 5)),
        "losses": np.zeros(6),
    }
    dtype = {"order": np.intp, "seeds": np.uint64}.get(name, np.float64)
    with pytest.raises(ValueError, match=expected):
        core.epochs(**{**arguments, name: np.zeros(shape, dtype)})


GUARDED = """
import dataclasses

from fastmlp import Adam, Dense
from fastmlp.architecture import Architecture
from fastmlp.backends import load_compiled
from fastmlp.backends.base import TrainingData
from fastmlp.optimizers import OptimizerState

rng = np.random.default_rng(0)
axes = (1, 7, 16, 33), (1, 2, 10, 17), (True, False), (True, False), (1, 3)
for dtype, at_end, n_in, n_out, pixels, of_labels, n_threads in cases(*axes):
    layers = [Dense(n_out, "relu"), Dense(n_out, "softmax")]
    architecture = Architecture.checked(n_in, layers, "cross_entropy", dtype)
    parameters = architecture.new_parameters()
    X = rng.integers(0, 2, (5, n_in)).astype(np.uint8 if pixels else dtype)
    Y = np.full(5, n_out - 1) if of_labels else np.full((5, n_out), 1 / n_out, dtype)
    X, Y, weight, order = (guarded(a, at_end=at_end) for a in (X, Y, np.ones(5), np.arange(5)))
    state = OptimizerState(Adam(), parameters)
    data = TrainingData(X, Y, weight, 2)
    core = load_compiled().trainer(architecture, parameters, state, data).core
    scalars = guarded(Adam().scalars(np.ones(3), np.arange(1, 4)), at_end=at_end)
    sums, losses = guarded(np.zeros((1, 5)), at_end=at_end), guarded(np.zeros(3), at_end=at_end)
    core.epochs(order, scalars, n_threads, sums, losses)
    assert np.isfinite(parameters.flat).all()
"""


def test_pages_behind_and_before_the_data_are_not_touched(run_guarded):
    run_guarded(GUARDED)
