"""Penalties inside the minibatch step, against the specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp import SGD, Adam
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
