"""Dropout and normalisation inside the minibatch epoch, against the specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import SGD, Adam, BatchNorm, Dense, Dropout, LayerNorm
from fastmlp.backends import load_compiled
from fastmlp.backends.base import StepOptions

from .conftest import TOLERANCE, Run, framed, make_data, network_of, seeds, sizes
from .test_minibatch import check_against_specification, core_epochs

pytest.importorskip("fastmlp._core.minibatch")

STACKS = {
    "dropout": [Dense(33, "relu"), Dropout(0.5), Dense(5, "softmax")],
    "dropout first": [Dropout(0.2), Dense(20, "tanh"), Dropout(0.3), Dense(5, "softmax")],
    "dropout twice": [Dropout(0.2), Dropout(0.2), Dense(70, "relu"), Dense(5, "softmax")],
    "no dropout": [Dropout(0.0), Dense(20, "tanh"), Dense(5, "softmax")],
    "layer norm": [Dense(33), LayerNorm("relu"), Dense(5, "softmax")],
    "layer norm first": [LayerNorm(), Dense(20, "tanh"), LayerNorm("silu"), Dense(5, "softmax")],
    "layer norm last": [Dense(20, "tanh"), Dense(5), LayerNorm("softmax")],
    "batch norm": [Dense(33), BatchNorm("relu"), Dense(5, "softmax")],
    "batch norm first": [BatchNorm(), Dense(20, "tanh"), Dense(5, "softmax")],
    "batch norm last": [Dense(20, "tanh"), Dense(5), BatchNorm("softmax", momentum=0.5)],
    "batch norms": [
        *(BatchNorm("tanh"), BatchNorm(), Dense(17), BatchNorm("silu", epsilon=0.1)),
        *(Dropout(0.5), Dense(9, "tanh"), LayerNorm(), BatchNorm("tanh"), Dense(5, "softmax")),
    ],
    "all": [
        *(Dropout(0.1), Dense(40), BatchNorm("relu"), Dropout(0.3), Dense(21), LayerNorm("gelu")),
        *(Dropout(0.2), Dense(5, "softmax")),
    ],
}
stack = pytest.mark.parametrize("layers", STACKS.values(), ids=STACKS)


@stack
@pytest.mark.parametrize(("n", "batch_size"), [(50, 16), (150, 70)])
def test_epochs_are_the_specifications(isa, dtype, layers, n, batch_size):
    network = network_of(37, layers, "cross_entropy", dtype)
    data = make_data(network[0], n, batch_size, weighted=True, labels=True, zeros=0.6)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(n) for _ in range(2)]
    check_against_specification(network, Adam(epsilon=0.1), data, orders)
    plain = SGD(momentum=0.5, weight_decay=0.3)
    options = StepOptions(clip_value=0.3, clip_norm=0.2)
    check_against_specification(network, plain, data, orders[:1], options)


@st.composite
def stacks(draw):
    layers = []
    for _ in range(draw(st.integers(0, 3))):
        dense = Dense(draw(sizes), draw(st.sampled_from(["identity", "relu", "softplus"])))
        norms = [LayerNorm("tanh", 0.1), BatchNorm("silu", epsilon=0.1), LayerNorm("relu", 1.0)]
        layers += [draw(st.sampled_from([dense, Dropout(0.3), *norms]))]
    return [*layers, Dense(3, "softmax")]


@given(stacks(), sizes, st.integers(2, 70), seeds)
@settings(max_examples=25)
def test_any_stack(isa, dtype, layers, n_inputs, batch_size, seed):
    network = network_of(n_inputs, layers, "cross_entropy", dtype, seed)
    data = make_data(network[0], 50, batch_size, seed, labels=True)
    order = np.random.default_rng(seed).permutation(50)[: 4 * batch_size]
    check_against_specification(network, SGD(), data, [framed(order)])


@stack
def test_bits_do_not_depend_on_threads(isa, dtype, layers):
    network = network_of(37, layers, "cross_entropy", dtype)
    data = make_data(network[0], 133, 64, weighted=True, labels=True, zeros=0.8)
    options = StepOptions(gradient_norm=True)
    one = core_epochs(network, Adam(), data, 1, options=options)
    for n_threads in (2, 3, 8):
        assert core_epochs(network, Adam(), data, n_threads, options=options) == one, n_threads


@pytest.mark.parametrize("n_units", [1, 15, 16, 17, 63, 64, 65, 200])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.999])
def test_masks_are_the_specifications_to_the_bit(isa, dtype, n_units, rate):
    """A unit with weight 1 on each input and rate 1: the first step's gradient shows the mask."""
    network = network_of(n_units, [Dropout(rate), Dense(1)], "mse", dtype)
    network[1].flat[:] = 0
    data = make_data(network[0], 3, 1)
    data.X[...], data.Y[...] = 1, -1
    masks = []
    for backend in (load_compiled(), _numpy()):
        run = Run(backend, network, SGD(), data, [])
        for sample in range(3):
            before = run.parameters.views[0].copy()
            bias = run.parameters.views[1].copy()
            seeds = np.array([2**64 - 5], np.uint64)
            run.trainer.epochs(np.array([sample]), np.ones(1), seeds, 2**32 - 2 + sample)
            masks.append(run.parameters.views[0] - before)
            run.parameters.views[0][...], run.parameters.views[1][...] = before, bias
    for compiled, specified in zip(masks[:3], masks[3:], strict=True):
        assert compiled.tobytes() == specified.tobytes()
    if n_units == 200 and rate == 0.25:
        dropped = [np.mean(mask == 0) for mask in masks[:3]]
        assert all(0.1 < share < 0.4 for share in dropped)


def _numpy():
    from fastmlp.backends.numpy_backend import NumpyBackend

    return NumpyBackend()


@stack
@pytest.mark.parametrize("n", [1, 57, 200])
def test_predictions_are_the_specifications(isa, dtype, layers, n):
    architecture, parameters = network_of(37, layers, "cross_entropy", dtype)
    X = make_data(architecture, n, 1, labels=True, zeros=0.5).X
    outputs = []
    for backend in (load_compiled(), _numpy()):
        out, Z = np.empty((n, 5), dtype), np.empty((n, 5), dtype)
        backend.predictor(architecture, parameters)(X, out, Z)
        outputs.append((out, Z))
    for one, other in zip(*outputs, strict=True):
        assert np.abs(one - other).max() <= TOLERANCE[dtype] * (1 + np.abs(other).max())
