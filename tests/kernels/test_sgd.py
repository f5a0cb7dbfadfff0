"""Plain SGD sample by sample: the sequential formula, update for update; zeros left out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import SGD
from fastmlp.activations import ACTIVATIONS
from fastmlp.backends import load_compiled
from fastmlp.backends.base import TOGETHER
from fastmlp.losses import LOSSES

from .conftest import (
    TOLERANCE,
    Frame,
    Run,
    framed,
    make_data,
    make_network,
    padding_of,
    seeds,
    sizes,
)

per_sample = pytest.importorskip("fastmlp._core.per_sample")
minibatch = pytest.importorskip("fastmlp._core.minibatch")

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


def core_of(network, data):
    """A copy of the parameters, and the core's trainer that changes it."""
    run = Run(load_compiled(), network, SGD(), data, [])
    assert isinstance(run.trainer.core, per_sample.PerSampleTrainer)
    return run.parameters, run.trainer.core


def epoch(core, order, rates):
    """Sums of loss, weights and hits."""
    sums = np.zeros((1, 5))
    core.epochs(order, rates, sums, np.zeros(len(order)))
    assert sums[0, 4] > 0
    return sums[0, :3].tolist()


def sequential(network, data, order, rates):
    """The formula in float64, one sample after the other; yields loss, hit, [(W, b), ...]."""
    architecture, parameters = network
    pairs = [[p.astype(float) for p in pair] for pair in parameters.pairs()]
    records = [layer.activation for layer in architecture.layers]
    loss, n_outputs = architecture.loss, architecture.n_outputs
    fused = loss.fuses(records[-1])
    for sample, lr in zip(order, rates, strict=True):
        x = data.X[sample : sample + 1]
        x = x / 255 if x.dtype == np.uint8 else x.astype(float)
        y = np.eye(n_outputs)[data.Y[sample]] if data.Y.ndim == 1 else data.Y[sample].astype(float)
        y, A, Z = y[None], [x], []
        for record, (W, b) in zip(records, pairs, strict=True):
            Z.append(A[-1] @ W + b)
            A.append(record.forward(Z[-1]))
        weight = 1.0 if data.weight is None else data.weight[sample]
        value = loss.value_from_z(Z[-1], y) if fused else loss.value(A[-1], y)
        hit = bool(loss.correct(A[-1], y)[0]) if loss.correct else False
        if fused:
            d = loss.gradient_from_z(A[-1], Z[-1], y)
        else:
            d = records[-1].backward(loss.gradient(A[-1], y), Z[-1], A[-1])
        d = d * (weight > 0)
        for i in reversed(range(len(pairs))):
            W, b = pairs[i]
            step = lr * A[i].T @ d, lr * d[0]
            if i:
                d = records[i - 1].backward(d @ W.T, Z[i - 1], A[i])
            W -= step[0]
            b -= step[1]
        yield weight * value[0], hit, pairs


def check_parameters(parameters, pairs):
    tolerance = TOLERANCE[parameters.dtype.name]
    for ours, exact in zip(parameters.pairs(), pairs, strict=True):
        for view, values in zip(ours, exact, strict=True):
            assert np.abs(view - values).max() <= tolerance * (1 + np.abs(values).max())


@st.composite
def problems(draw):
    """Everything about a fit but the dtype."""
    n_layers = draw(st.integers(1, 4))
    loss, output = draw(st.sampled_from(PAIRS))
    n_units = draw(st.lists(st.integers(1, 40), min_size=n_layers, max_size=n_layers))
    if output == "softmax":
        n_units[-1] += 1  # one unit is 1, where 1 - a and the floor of the dtype are the loss
    mixed = st.lists(st.sampled_from(HIDDEN), min_size=n_layers - 1, max_size=n_layers - 1)
    alike = st.sampled_from(["relu", "sigmoid", "tanh"]).map(lambda name: [name] * (n_layers - 1))
    return {
        "network": ([draw(sizes), *n_units], [*draw(mixed | alike), output], loss),
        "pixels": draw(st.booleans()),
        "weighted": draw(st.booleans()),
        "labels": draw(st.booleans()) and LOSSES[loss].labels,
        "zeros": draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        "seed": draw(seeds),
    }


@given(problems())
@settings(max_examples=40)
def test_an_epoch_is_the_sequential_formula(isa, dtype, problem):
    rng = np.random.default_rng(problem["seed"])
    network = make_network(*problem.pop("network"), dtype, problem["seed"])
    data = make_data(network[0], 12, 1, **problem)
    order, rates = framed(rng.integers(0, 12, 20)), framed(rng.uniform(0.0005, 0.005, 20))
    inputs = [array for array in (data.X, data.Y, data.weight, order) if array is not None]
    before = [array.tobytes() for array in inputs]
    parameters, core = core_of(network, data)
    loss, weight, correct = epoch(core, order, rates)
    assert [array.tobytes() for array in inputs] == before
    steps = list(sequential(network, data, order, rates))
    check_parameters(parameters, steps[-1][2])
    assert not padding_of(parameters).any()
    exact_loss = sum(step[0] for step in steps)
    assert abs(loss - exact_loss) <= 20 * TOLERANCE[dtype] * (1 + abs(exact_loss))
    assert weight == (20 if data.weight is None else data.weight[order].sum())
    assert correct == sum(step[1] for step in steps)
    assert core.state.step == 20


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("widths", [[50, 32, 32, 10], [17, 9, 3], [70, 33, 1], [3, 5]])
def test_update_for_update(isa, dtype, widths, pixels):
    """After each sample it is the formula's, alone or behind others of its block."""
    activations = [*["sigmoid"] * (len(widths) - 2), "sigmoid"]
    network = make_network(widths, activations, "binary_cross_entropy", dtype)
    data = make_data(network[0], 25, 1, pixels=pixels, zeros=0.6)
    order, rates = np.random.default_rng(0).permutation(25), np.linspace(0.5, 0.1, 25)
    parameters, core = core_of(network, data)
    for i, (_, _, pairs) in enumerate(sequential(network, data, order, rates)):
        epoch(core, order[i : i + 1], rates[i : i + 1])
        check_parameters(parameters, pairs)
    for n in range(2, 26):
        parameters, core = core_of(network, data)
        epoch(core, order[:n], rates[:n])
        *_, (_, _, pairs) = sequential(network, data, order[:n], rates[:n])
        check_parameters(parameters, pairs)


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("widths", [[50, 33, 20, 10], [40, 3]])
def test_bits_do_not_depend_on_calls(isa, dtype, widths, pixels):
    """What is done ahead or late beside a sample ends with the kernel's call, of 256 at most.

    Calls end with whole blocks here. An epoch begins with fresh transposed copies of the weights,
    so within one they were kept right.
    """
    activations = [*["sigmoid", "gelu"][: len(widths) - 2], "softmax"]
    network = make_network(widths, activations, "cross_entropy", dtype)
    data = make_data(network[0], 40, 1, pixels=pixels, labels=True, zeros=0.6)
    order, rates = np.random.default_rng(0).integers(0, 40, 600), np.linspace(0.1, 0.01, 600)
    outcomes = set()
    assert per_sample.ROWS == 2 * TOGETHER
    for division in ([600], [TOGETHER] * 150, [252, 4, 344], [300, 300]):
        parameters, core = core_of(network, data)
        hits, at = 0, 0
        for n in division:
            hits += epoch(core, order[at : at + n], rates[at : at + n])[2]
            at += n
        outcomes.add((parameters.flat.tobytes(), hits))
    assert len(outcomes) == 1


@pytest.mark.parametrize("n_outputs", [2, 4, 7, 8, 10, 16, 17])
def test_a_label_is_its_one_hot_row(isa, dtype, n_outputs):
    """Labels whose row fits a vector take a way of their own; of equal outputs the first is it."""
    network = make_network([20, n_outputs], ["softmax"], "cross_entropy", dtype)
    network[1].pairs()[0][0][...] *= 0.1
    data = make_data(network[0], 50, 1, labels=True, zeros=0.5)
    data.X[:10] = 0
    network[1].pairs()[0][1][...] = 0.3
    rows = dataclasses.replace(data, Y=np.eye(n_outputs, dtype=dtype)[data.Y])
    order, rates = np.arange(50), np.r_[np.zeros(10), np.full(40, 0.1)]
    (ours, core), (others, core_of_rows) = core_of(network, data), core_of(network, rows)
    loss, _, hits = epoch(core, order[:10], rates[:10])
    assert hits == (data.Y[:10] == 0).sum()
    assert loss == pytest.approx(10 * np.log(n_outputs), rel=1e-6)
    assert epoch(core_of_rows, order[:10], rates[:10])[2] == hits
    assert epoch(core, order[10:], rates[10:])[2] == epoch(core_of_rows, order[10:], rates[10:])[2]
    assert np.abs(ours.flat - others.flat).max() <= TOLERANCE[dtype]


def test_epochs_of_one_call_are_those_of_several(isa, dtype):
    network = make_network([9, 7, 3], ["tanh", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 30, 1, labels=True, weighted=True)
    order, rates = np.random.default_rng(0).integers(0, 30, 5 * 13), np.linspace(0.1, 0.5, 5 * 13)
    outcomes = []
    for together in (5, 2, 1):
        parameters, core = core_of(network, data)
        sums, losses = np.zeros((5, 5)), np.zeros(5 * 13)
        for i in range(0, 5, together):
            steps = slice(13 * i, 13 * (i + together))
            core.epochs(order[steps], rates[steps], sums[i : i + together], losses[steps])
        assert core.state.step == 5 * 13
        outcomes.append((parameters.flat.tolist(), sums[:, :4].tolist(), losses.tolist()))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("pixels", [True, False])
@given(sizes, sizes, st.sampled_from([0.1, 0.5, 0.9]), seeds)
@settings(max_examples=20)
def test_features_that_are_0_are_left_out(isa, dtype, pixels, n_inputs, n_units, zeros, seed):
    """The bits of the network without them; their weights are neither read nor written."""
    widths, activations = [n_inputs, n_units, 3], ["tanh", "softmax"]
    network = make_network(widths, activations, "cross_entropy", dtype, seed)
    data = make_data(network[0], 9, 1, seed, pixels=pixels, labels=True)
    absent = np.random.default_rng(seed).random(n_inputs) < zeros
    absent[0] = n_inputs == 1 and absent[0]
    data.X[:, absent] = 0
    (W, _), _ = network[1].pairs()
    W[absent] = np.nan
    parameters, core = core_of(network, data)
    order, rates = np.arange(9), np.full(9, 0.1)
    results = epoch(core, order, rates)
    ours = [view.copy() for view in parameters.views]
    assert np.isnan(ours[0][absent]).all()
    assert np.isfinite(ours[0][~absent]).all()
    if absent.all():
        return
    widths[0] = int((~absent).sum())
    small = make_network(widths, activations, "cross_entropy", dtype)
    for view, values in zip(small[1].views, network[1].views, strict=True):
        view[...] = values[~absent] if values is W else values
    small_data = dataclasses.replace(data, X=np.ascontiguousarray(data.X[:, ~absent]))
    others, small_core = core_of(small, small_data)
    assert epoch(small_core, order, rates) == results
    assert np.array_equal(others.views[0], ours[0][~absent])
    for other, our in zip(others.views[1:], ours[1:], strict=True):
        assert np.array_equal(other, our)


def test_minus_zero_is_zero(isa, dtype):
    network = make_network([40, 7, 3], ["tanh", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 9, 1, labels=True, zeros=0.5)
    minus = dataclasses.replace(data, X=np.where(data.X == 0, -data.X, data.X))
    assert np.signbit(minus.X).sum() > np.signbit(data.X).sum()
    flats = []
    for samples in (data, minus):
        parameters, core = core_of(network, samples)
        epoch(core, np.arange(9), np.full(9, 0.1))
        flats.append(parameters.flat)
    assert np.array_equal(*flats)


@pytest.mark.parametrize("n_inputs", [1, 15, 16, 17, 50])
def test_pixels_are_their_255th_parts(isa, dtype, n_inputs):
    network = make_network([n_inputs, 7, 3], ["tanh", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 9, 1, labels=True, pixels=True, zeros=0.5)
    scaled = dataclasses.replace(data, X=data.X * np.dtype(dtype).type(1 / 255))
    flats = []
    for samples in (data, scaled):
        parameters, core = core_of(network, samples)
        epoch(core, np.arange(9), np.full(9, 0.1))
        flats.append(parameters.flat)
    assert np.array_equal(*flats)


@pytest.mark.parametrize("pixels", [True, False])
def test_bits_do_not_depend_on_alignment(isa, dtype, pixels):
    network = make_network([45, 7, 3], ["tanh", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 5, 1, pixels=pixels, zeros=0.5)
    flats = []
    for offset in range(0, 64, data.X.itemsize):
        X = Frame(data.X.shape, data.X.dtype, pad=1, offset=offset)
        X.array[...] = data.X
        Y = framed(data.Y, pad=1, offset=offset // data.Y.itemsize * data.Y.itemsize)
        parameters, core = core_of(network, dataclasses.replace(data, X=X.array, Y=Y))
        epoch(core, np.arange(5), np.full(5, 0.1))
        assert X.intact
        flats.append(parameters.flat)
    for flat in flats[1:]:
        assert np.array_equal(flat, flats[0])


def test_weights_only_switch_samples_off(isa, dtype):
    """A batch of one is its own weighted mean."""
    network = make_network([9, 7, 3], ["relu", "softmax"], "cross_entropy", dtype)
    data = make_data(network[0], 30, 1, labels=True, weighted=True)
    parameters, core = core_of(network, data)
    _, total, _ = epoch(core, np.arange(30), np.full(30, 0.1))
    assert total == data.weight.sum()
    present = np.flatnonzero(data.weight)
    assert 0 < len(present) < 30
    others, core = core_of(network, dataclasses.replace(data, weight=None))
    epoch(core, present, np.full(len(present), 0.1))
    assert np.abs(parameters.flat - others.flat).max() <= TOLERANCE[dtype]


def test_subnormal_numbers_are_zero(isa, dtype):
    network = make_network([20, 3], ["identity"], "mse", dtype)
    data = make_data(network[0], 4, 1)
    data.X[...] = np.finfo(dtype).smallest_subnormal
    data.Y[...] = np.finfo(dtype).max ** 0.25
    parameters, core = core_of(network, data)
    (W, b), *_ = parameters.pairs()
    W[...] = 0
    epoch(core, np.arange(4), np.full(4, 0.1))
    assert not W.any()
    assert b.all()


@pytest.mark.parametrize("bad", [0, 7, 29])
def test_an_epoch_stops_at_the_first_loss_that_is_not_finite(isa, dtype, bad):
    network = make_network([9, 7, 3], ["relu", "identity"], "mse", dtype)
    data = make_data(network[0], 30, 1)
    data.Y[bad] = np.inf
    _, core = core_of(network, data)
    order = np.append(np.full(30, (bad + 1) % 30), np.arange(60) % 30)
    sums, losses = np.zeros((3, 5)), np.zeros(90)
    core.epochs(order, np.full(90, 0.1), sums, losses)
    assert np.isfinite(sums[0]).all()
    assert not np.isfinite(sums[1, 0])
    assert not sums[2].any()
    assert not losses[30 + bad + 1 :].any()
    assert core.state.step == 30 + bad + 1


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "core"),
    [
        (SGD(), 1, "PerSampleTrainer"),
        (SGD(), 2, "MinibatchTrainer"),
        (SGD(momentum=0.5), 1, "MinibatchTrainer"),
        (SGD(weight_decay=0.1), 1, "MinibatchTrainer"),
    ],
)
def test_only_plain_sgd_with_batches_of_one_is_per_sample(optimizer, batch_size, core):
    network = make_network([3, 2], ["identity"], "mse", "float32")
    run = Run(load_compiled(), network, optimizer, make_data(network[0], 8, batch_size), [])
    assert type(run.trainer.core).__name__ == core


def test_rates_of_another_number_of_samples_are_refused():
    network = make_network([3, 2], ["identity"], "mse", "float32")
    _, core = core_of(network, make_data(network[0], 8, 1))
    with pytest.raises(ValueError, match="rates: expected 8 learning rates"):
        epoch(core, np.arange(8), np.ones(7))
    with pytest.raises(ValueError, match=r"losses: expected shape \(8,\)"):
        core.epochs(np.arange(8), np.ones(8), np.zeros((2, 5)), np.zeros(7))
    for shape in [(3, 5), (2, 4)]:
        with pytest.raises(ValueError, match="sums: expected shape"):
            core.epochs(np.arange(8), np.ones(8), np.zeros(shape), np.zeros(8))


GUARDED = """
from fastmlp import SGD, Dense
from fastmlp.architecture import Architecture
from fastmlp.backends import load_compiled
from fastmlp.backends.base import TrainingData
from fastmlp.optimizers import OptimizerState

rng = np.random.default_rng(0)
axes = (1, 7, 15, 16, 17, 33), (1, 2, 10, 17), (True, False), (True, False)
for dtype, at_end, n_in, n_out, pixels, of_labels in cases(*axes):
    layers = [Dense(n_out, "relu"), Dense(n_out, "softmax")]
    architecture = Architecture.checked(n_in, layers, "cross_entropy", dtype)
    parameters = architecture.new_parameters()
    X = rng.integers(0, 3, (5, n_in)).astype(np.uint8 if pixels else dtype)
    Y = np.full(5, n_out - 1) if of_labels else np.full((5, n_out), 1 / n_out, dtype)
    X, Y, weight, order = (guarded(a, at_end=at_end) for a in (X, Y, np.ones(5), np.arange(5)))
    state = OptimizerState(SGD(), parameters)
    data = TrainingData(X, Y, weight, 1)
    core = load_compiled().trainer(architecture, parameters, state, data).core
    outputs = np.ones(5), np.zeros((1, 5)), np.zeros(5)
    rates, sums, losses = (guarded(a, at_end=at_end) for a in outputs)
    core.epochs(order, rates, sums, losses)
    assert np.isfinite(parameters.flat).all()
"""


def test_pages_behind_and_before_the_data_are_not_touched(run_guarded):
    run_guarded(GUARDED)
