"""What a minibatch step does besides the optimizer's rule, against the specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import SGD, Adam, AdamW, Averaged
from fastmlp.backends.base import StepOptions

from .conftest import make_data, make_network, seeds, sizes
from .test_minibatch import check_against_specification, core_epochs

pytest.importorskip("fastmlp._core.minibatch")

amounts = st.sampled_from([0.0, 0.01, 0.3])


@given(sizes, sizes, st.integers(1, 40), amounts, amounts, st.booleans(), st.booleans(), seeds)
@settings(max_examples=20)
def test_penalties(isa, dtype, n_inputs, n_units, batch_size, l1, l2, divide, weighted, seed):
    network = make_network(
        [n_inputs, n_units, 3], ["tanh", "softmax"], "cross_entropy", dtype, seed, l1=l1, l2=l2
    )
    network[1].views[0][:, ::3] = 0  # where |w| has no derivative, 0 is taken
    data = make_data(network[0], 50, batch_size, seed, weighted=weighted, labels=True)
    options = StepOptions(divide_penalty=divide)
    order = np.random.default_rng(seed).permutation(50)[: 4 * batch_size]
    check_against_specification(network, SGD(weight_decay=0.1), data, [order], options)


STEPS = {
    "value": ({}, {"clip_value": 0.01}),
    "norm": ({}, {"clip_norm": 0.05}),
    "norm that is never reached": ({}, {"clip_norm": 1e3}),
    "value, norm, penalties": ({"l1": 0.01, "l2": 0.1}, {"clip_value": 0.1, "clip_norm": 0.2}),
    "norm measured": ({}, {"gradient_norm": True}),
    "l2": ({"l2": 0.1}, {"divide_penalty": True}),
    "l2, value": ({"l2": 0.1}, {"clip_value": 0.01}),
    "l2, norm measured": ({"l2": 0.1}, {"gradient_norm": True}),
    "l2, own decay": ({"l2": 0.1, "weight_decay": 0.5}, {}),
    "own decay": ({"weight_decay": 0.5}, {}),
    "no decay": ({"weight_decay": 0.0}, {}),
    "largest norm": ({"max_norm": 0.7}, {}),
    "all": ({"l2": 0.1, "weight_decay": 0.5, "max_norm": 0.7}, {"clip_norm": 0.05}),
}
OPTIMIZERS = {
    "SGD": SGD(weight_decay=0.1),
    "AdamW": AdamW(epsilon=0.1, weight_decay=0.3),
    "averaged": Averaged(Adam(epsilon=0.1), 0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("layer", "step"), STEPS.values(), ids=STEPS)
def test_steps(isa, dtype, layer, step, optimizer):
    network = make_network([37, 20, 5], ["tanh", "softmax"], "cross_entropy", dtype, **layer)
    data = make_data(network[0], 50, 16, weighted=True, labels=True, zeros=0.7)
    options = StepOptions(**step)
    orders = [np.random.default_rng(seed).permutation(50) for seed in (0, 1)]
    check_against_specification(network, optimizer, data, orders, options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("name", ["all", "value, norm, penalties", "l2"])
def test_bits_of_steps_do_not_depend_on_threads(isa, dtype, name, optimizer):
    layer, step = STEPS[name]
    network = make_network(
        [37, 61, 29, 5], ["relu"] * 2 + ["softmax"], "cross_entropy", dtype, **layer
    )
    data = make_data(network[0], 133, 64, weighted=True, labels=True, zeros=0.8)
    options = StepOptions(**step)
    one = core_epochs(network, optimizer, data, 1, options=options)
    for n_threads in (2, 3, 8):
        assert core_epochs(network, optimizer, data, n_threads, options=options) == one, n_threads


@pytest.mark.parametrize("divide", [False, True])
def test_bits_do_not_depend_on_threads(isa, dtype, divide):
    network = make_network(
        [37, 61, 5], ["relu", "softmax"], "cross_entropy", dtype, l1=0.01, l2=0.1
    )
    data = make_data(network[0], 133, 64, weighted=True, labels=True)
    options = StepOptions(divide_penalty=divide)
    one = core_epochs(network, Adam(), data, 1, options=options)
    for n_threads in (2, 3, 8):
        assert core_epochs(network, Adam(), data, n_threads, options=options) == one, n_threads
