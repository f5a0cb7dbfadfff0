"""One update of flat arrays, against the formulas of the optimizers' records in wide arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.backends import load_compiled
from fastmlp.optimizers import SGD, Adagrad, Adam, AdamW, Nadam, RMSprop

from .conftest import WIDE, Frame, framed, seeds

optimizers = pytest.importorskip("fastmlp._core.optimizers")

OPTIMIZERS = [
    SGD(0.1),
    SGD(0.1, weight_decay=0.01),
    SGD(0.1, momentum=0.9),
    SGD(0.1, momentum=0.9, weight_decay=0.01),
    SGD(0.1, momentum=0.5, nesterov=True),
    SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.01),
    RMSprop(0.01),
    RMSprop(0.01, rho=0.5, epsilon=0.1),
    Adagrad(0.01),
    Adagrad(0.01, epsilon=0.1),
    Adam(0.001),
    Adam(0.001, beta1=0.0, beta2=0.5, epsilon=0.1),
    AdamW(0.001),
    AdamW(0.1, weight_decay=0.5),
    Nadam(0.001),
    Nadam(0.001, beta1=0.5, beta2=0.9, epsilon=0.1),
]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)


def problem(optimizer, dtype, n, seed):
    """w, g, [states], each (n,); second moments are at least 0."""
    rng = np.random.default_rng(seed)
    w, g, *states = rng.standard_normal((2 + optimizer.rule.n_states, n))
    g *= rng.choice([1e-6, 1, 30], n)
    if not isinstance(optimizer, SGD):
        states[-1] **= 2
    return w.astype(dtype), g.astype(dtype), [s.astype(dtype) for s in states]


def update(optimizer, w, g, states, lr, t, decay):
    """The kernel's, in place."""
    load_compiled().optimizer_update(optimizer, w, g, states, lr, t, decay)


def exact_update(optimizer, w, g, states, lr, t, decay):
    """[w, *states] after the record's formula in wide arithmetic, and the size of their terms."""
    wide = WIDE[w.dtype.name]
    values = [array.astype(wide) for array in (w, *states)]
    sizes = [np.abs(value) for value in values]
    optimizer.update(values[0], g.astype(wide), values[1:], lr, t, decay)
    optimizer.update(sizes[0], np.abs(g.astype(wide)), sizes[1:], -lr, t, decay)
    return values, sizes


@each_optimizer
@given(
    st.integers(1, 200),
    seeds,
    st.lists(st.integers(0, 15), min_size=4, max_size=4),
    st.sampled_from([1, 2, 3, 10, 1000, 10**6]),
    st.booleans(),
)
@settings(max_examples=15)
def test_update(isa, dtype, optimizer, n, seed, offsets, t, decay):
    w, g, states = problem(optimizer, dtype, n, seed)
    lr = 0.3 * optimizer.lr
    itemsize, eps = np.dtype(dtype).itemsize, np.finfo(dtype).eps
    frames = []
    for array, offset in zip([w, *states], offsets, strict=False):
        frames.append(Frame((n,), dtype, offset=offset * itemsize % 64))
        frames[-1].array[...] = array
    gradient = framed(g, offset=offsets[3] * itemsize % 64)
    moments = [frame.array for frame in frames[1:]]
    update(optimizer, frames[0].array, gradient, moments, lr, t, decay)
    exact, sizes = exact_update(optimizer, w, g, states, lr, t, decay)
    for frame, value, size in zip(frames, exact, sizes, strict=True):
        assert (np.abs(frame.array - value) <= 8 * eps * size).all()
        assert frame.intact
    assert np.array_equal(gradient, g)


@each_optimizer
def test_twenty_steps(isa, dtype, optimizer):
    w, g, states = problem(optimizer, dtype, 67, 0)
    states = [np.zeros_like(state) for state in states]
    wide = [array.astype(WIDE[dtype]) for array in (w, *states)]
    for t in range(1, 21):
        g = np.random.default_rng(t).standard_normal(67).astype(dtype)
        update(optimizer, w, g, states, optimizer.lr / t, t, True)
        optimizer.update(wide[0], g.astype(WIDE[dtype]), wide[1:], optimizer.lr / t, t, True)
    for ours, exact in zip([w, *states], wide, strict=True):
        assert np.abs(ours - exact).max() <= 100 * np.finfo(dtype).eps * (1 + np.abs(exact).max())


@each_optimizer
def test_bits_do_not_depend_on_the_place(isa, dtype, optimizer):
    w, g, states = problem(optimizer, dtype, 200, 0)
    whole = [w.copy(), *(state.copy() for state in states)]
    update(optimizer, whole[0], g, whole[1:], 0.01, 3, True)
    for n in (1, 3, 7, 8, 16, 23, 199):
        pieces = [w.copy(), *(state.copy() for state in states)]
        for start in range(0, 200, n):
            part = slice(start, start + n)
            update(
                optimizer, pieces[0][part], g[part], [p[part] for p in pieces[1:]], 0.01, 3, True
            )
        for one, other in zip(pieces, whole, strict=True):
            assert np.array_equal(one, other), n


@each_optimizer
def test_moments_that_a_rule_does_not_have_are_left_alone(isa, dtype, optimizer):
    w, g, states = problem(optimizer, dtype, 37, 0)
    rule = optimizer.rule
    scalars = optimizer.scalars(np.array([0.01]), np.array([1]))[0]
    hyperparameters = rule.code, rule.beta1, rule.beta2, rule.l2, scalars
    missing = 2 - len(states)
    first = [w.copy(), *(state.copy() for state in states)]
    optimizers.optimizer_update(*hyperparameters, first[0], g, *first[1:], *[None] * missing)
    second = [w.copy(), *(state.copy() for state in states)]
    strangers = [np.full(37, np.nan, dtype) for _ in range(missing)]
    optimizers.optimizer_update(*hyperparameters, second[0], g, *second[1:], *strangers)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
        assert np.isfinite(one).all()
    assert all(np.isnan(stranger).all() for stranger in strangers)


@each_optimizer
@pytest.mark.parametrize("decay", [True, False])
def test_learning_rate_0_changes_moments_only(isa, dtype, optimizer, decay):
    w, g, states = problem(optimizer, dtype, 37, 0)
    if isinstance(optimizer, SGD):
        states = [np.zeros_like(state) for state in states]
    exact, sizes = exact_update(optimizer, w, g, states, 0.0, 1, decay)
    before = w.copy()
    update(optimizer, w, g, states, 0.0, 1, decay)
    assert np.array_equal(w, before)
    for state, value, size in zip(states, exact[1:], sizes[1:], strict=True):
        assert (np.abs(state - value) <= 4 * np.finfo(dtype).eps * size).all()


@each_optimizer
def test_nothing_to_update(isa, dtype, optimizer):
    w, g, states = problem(optimizer, dtype, 0, 0)
    update(optimizer, w, g, states, 0.01, 1, True)
    assert w.shape == (0,)


def test_subnormal_moments_are_kept(isa, dtype):
    """A flush to zero would lose them."""
    small = np.finfo(dtype).smallest_subnormal
    v = np.full(37, 64 * small, dtype)
    w, g = np.zeros(37, dtype), np.zeros(37, dtype)
    update(SGD(1.0, momentum=0.5), w, g, [v], 1.0, 1, True)
    assert (v == 32 * small).all()
    assert (w == 32 * small).all()


@pytest.mark.parametrize("wrong", ["g", "s0", "s1", "scalars"])
def test_arrays_that_do_not_fit_are_refused(dtype, wrong):
    def run(**changes):
        arrays = {name: np.ones(9, dtype) for name in ("w", "g", "s0", "s1")}
        scalars = changes.pop("scalars", np.ones(4))
        optimizers.optimizer_update(5, 0.9, 0.9, 0.0, scalars, **(arrays | changes))

    run()
    for n in (8, 10) if wrong != "scalars" else (3, 5):
        array = np.ones(n) if wrong == "scalars" else np.ones(n, dtype)
        with pytest.raises(ValueError, match="optimizer_update: the shapes do not fit"):
            run(**{wrong: array})
    if wrong != "scalars":
        with pytest.raises(ValueError, match="expected a contiguous array"):
            run(**{wrong: np.ones((9, 2), dtype)[:, 0]})


GUARDED = """
from fastmlp._core import optimizers

rng = np.random.default_rng(0)
for dtype, at_end, n, rule in cases((1, 3, 4, 7, 8, 15, 16, 17, 33), range(6)):
    w, g, s0, s1 = (guarded(rng.random(n).astype(dtype), at_end=at_end) for _ in range(4))
    optimizers.optimizer_update(rule, 0.9, 0.9, 0.1, np.full(4, 0.1), w, g, s0, s1)
    assert np.isfinite(w).all()
"""


def test_pages_behind_and_before_the_arrays_are_not_touched(run_guarded):
    run_guarded(GUARDED)
