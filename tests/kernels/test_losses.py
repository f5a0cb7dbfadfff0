"""Losses: each sample's value and its gradient, for labels and rows, behind every activation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.activations import ACTIVATIONS
from fastmlp.losses import LOSSES

from .conftest import WIDE, Frame, framed, pads, seeds, sizes

losses = pytest.importorskip("fastmlp._core.losses")
activations = pytest.importorskip("fastmlp._core.activations")

CODES = {name: record.code for name, record in ACTIVATIONS.items()}
DIFFERENTIABLE = [name for name in CODES if name != "step"]
# Loss, output activation; the first two are fused with it.
FUSED = [("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid")]
PLAIN = [(name, "identity") for name in LOSSES]
CASES = [*FUSED, *PLAIN]
PROBABILITIES = ["cross_entropy", "binary_cross_entropy"]
case = pytest.mark.parametrize(("loss", "activation"), CASES)


class Problem:
    """Outputs and targets of `n` samples.

    Attributes: A, Z, rows (n, n_outputs); labels (n,), of which `one_hot` are the rows; scale (n,)
    """

    def __init__(self, loss, activation, dtype, n, n_outputs, seed):
        rng = np.random.default_rng(seed)
        self.loss, self.activation, self.dtype = loss, activation, np.dtype(dtype)
        self.Z = (rng.choice([0.1, 2, 20], (n, 1)) * rng.standard_normal((n, n_outputs))).astype(
            dtype
        )
        if activation != "identity":
            self.A = np.empty_like(self.Z)
            activations.activation_forward(CODES[activation], self.Z, self.A)
        elif loss in PROBABILITIES:
            self.A = rng.uniform(0, 1, self.Z.shape).astype(dtype)
        else:
            self.A = self.Z.copy()
        self.labels = rng.integers(0, n_outputs, n)
        self.one_hot = np.eye(n_outputs, dtype=dtype)[self.labels]
        if loss in PROBABILITIES:
            self.rows = rng.uniform(0, 1, self.Z.shape).astype(dtype)
            self.rows[rng.random(self.Z.shape) < 0.2] = 0
        else:
            # On the target, at both kinks of huber, and anywhere
            distance = rng.choice([0, 1, -1, 0.25, np.nan], self.Z.shape)
            anywhere = rng.standard_normal(self.Z.shape)
            distance = np.where(np.isnan(distance), anywhere, distance)
            self.rows = self.A + distance.astype(dtype)
        self.scale = rng.choice([0, 1, 1 / 3, 7], n)

    @property
    def codes(self):
        fused = (self.loss, self.activation) in FUSED
        return LOSSES[self.loss].code, CODES[self.activation], fused

    def values(self, Y, rows=slice(None)):
        values = np.full(len(self.A[rows]), np.nan)
        losses.loss_forward(*self.codes, self.A[rows], self.Z[rows], *targets(Y, rows), values)
        return values

    def gradient(self, Y, rows=slice(None), codes=None):
        dZ = np.full_like(self.A[rows], np.nan)
        codes = codes or self.codes
        arrays = self.A[rows], self.Z[rows], *targets(Y, rows), self.scale[rows]
        losses.loss_backward(*codes, *arrays, dZ)
        return dZ


def targets(Y, rows=slice(None)):
    return (Y[rows], None) if Y.ndim == 1 else (None, Y[rows])


def value_terms(problem, rows):
    """Terms (., n, n_outputs) whose sum is the loss, in wide arithmetic, and its divisor."""
    wide, tiny = WIDE[problem.dtype.name], np.finfo(problem.dtype).tiny
    a, z, y = (array.astype(wide) for array in (problem.A, problem.Z, rows))
    n = a.shape[1]
    if (problem.loss, problem.activation) == FUSED[0]:
        shifted = z - z.max(axis=1, keepdims=True)
        return np.array([y * np.log(np.exp(shifted).sum(axis=1, keepdims=True)), -y * shifted]), 1
    if (problem.loss, problem.activation) == FUSED[1]:
        return np.array([np.maximum(z, 0), -z * y, np.log1p(np.exp(-np.abs(z)))]), n
    if problem.loss == "cross_entropy":
        return np.array([-y * np.log(np.maximum(a, tiny))]), 1
    if problem.loss == "binary_cross_entropy":
        right, wrong = (np.log(np.maximum(p, tiny)) for p in (a, 1 - a))
        return np.array([-y * right, (y - 1) * wrong]), n
    r = np.abs(a - y)
    if problem.loss == "huber":
        return np.array([np.where(r <= 1, r * r / 2, r - 0.5)]), n
    return np.array([r * r if problem.loss == "mse" else r]), n


def gradient_terms(problem, rows):
    """Two terms whose sum is the derivative of the loss by A (fused: by Z), in wide arithmetic."""
    wide, tiny = WIDE[problem.dtype.name], np.finfo(problem.dtype).tiny
    a, y = (array.astype(wide) for array in (problem.A, rows))
    scale = problem.scale[:, None]
    if problem.loss != "cross_entropy":
        scale = scale / a.shape[1]
    if (problem.loss, problem.activation) in FUSED:
        return scale * (a - y), 0
    if problem.loss == "cross_entropy":
        return scale * -y / np.maximum(a, tiny), 0
    if problem.loss == "binary_cross_entropy":
        return scale * (1 - y) / np.maximum(1 - a, tiny), scale * -y / np.maximum(a, tiny)
    r = a - y
    return scale * {"mse": 2 * r, "mae": np.sign(r), "huber": np.clip(r, -1, 1)}[problem.loss], 0


def check_values(problem, rows, values):
    terms, divisor = value_terms(problem, rows)
    n, eps = terms.shape[-1], np.finfo(problem.dtype).eps
    # 1 an output: 1 - a, and the logarithm of a sum, are rounded in the last place of 1.
    rest = n if problem.loss in PROBABILITIES else 0
    bound = (n + 8) * eps * (np.abs(terms).sum(axis=(0, 2)) + rest) / divisor
    assert (np.abs(values - terms.sum(axis=(0, 2)) / divisor) <= bound).all()


def check_gradient(problem, rows, gradient):
    info, (one, other) = np.finfo(problem.dtype), gradient_terms(problem, rows)
    bound = 4 * info.eps * (np.abs(one) + np.abs(other)) + info.smallest_subnormal
    assert (np.abs(gradient - (one + other)) <= bound).all()


@case
@given(sizes, sizes, seeds, st.lists(pads, min_size=4, max_size=4), st.integers(0, 15))
@settings(max_examples=30)
def test_rows(isa, dtype, loss, activation, n, n_outputs, seed, gaps, offset):
    """Values and gradients, among canaries."""
    problem = Problem(loss, activation, dtype, n, n_outputs, seed)
    offset = offset * np.dtype(dtype).itemsize % 64
    arrays = [problem.A, problem.Z, problem.rows]
    A, Z, Y = (framed(array, pad, offset) for array, pad in zip(arrays, gaps, strict=False))
    values, dZ = Frame((n,), float), Frame((n, n_outputs), dtype, gaps[3], offset)
    losses.loss_forward(*problem.codes, A, Z, None, Y, values.array)
    check_values(problem, problem.rows, values.array)
    losses.loss_backward(*problem.codes, A, Z, None, Y, framed(problem.scale), dZ.array)
    check_gradient(problem, problem.rows, dZ.array)
    assert (values.intact, dZ.intact) == (True, True)
    for array, copy in zip(arrays, (A, Z, Y), strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize(("loss", "activation"), [FUSED[0], PLAIN[0]])
@given(sizes, sizes, seeds)
@settings(max_examples=30)
def test_labels_are_one_hot_rows(isa, dtype, loss, activation, n, n_outputs, seed):
    problem = Problem(loss, activation, dtype, n, n_outputs, seed)
    labels = framed(problem.labels)
    check_values(problem, problem.one_hot, problem.values(labels))
    gradient = problem.gradient(labels)
    check_gradient(problem, problem.one_hot, gradient)
    assert np.array_equal(gradient, problem.gradient(problem.one_hot))


@case
@given(sizes, sizes, seeds)
@settings(max_examples=10)
def test_a_sample_does_not_see_the_others(isa, dtype, loss, activation, n, n_outputs, seed):
    problem = Problem(loss, activation, dtype, n, n_outputs, seed)
    values, gradient = problem.values(problem.rows), problem.gradient(problem.rows)
    for r in {0, n // 2, n - 1}:
        row = slice(r, r + 1)
        assert problem.values(problem.rows, row)[0] == values[r]
        assert np.array_equal(problem.gradient(problem.rows, row)[0], gradient[r])


@pytest.mark.parametrize("activation", DIFFERENTIABLE)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_goes_through_the_activation(isa, dtype, loss, activation):
    """The bits of the two kernels one after the other, where the pair is not fused."""
    for n_outputs in (1, 3, 10, 16, 33):
        problem = Problem(loss, "identity", dtype, 5, n_outputs, 0)
        code = CODES[activation]
        if loss not in PROBABILITIES or ACTIVATIONS[activation].probabilities:
            activations.activation_forward(code, problem.Z, problem.A)
        dA = problem.gradient(problem.rows)
        expected = np.empty_like(dA)
        activations.activation_backward(code, dA, problem.Z, problem.A, expected)
        gradient = problem.gradient(problem.rows, codes=(LOSSES[loss].code, code, False))
        assert np.array_equal(gradient, expected)


@pytest.mark.parametrize("n_outputs", [1, 2, 5, 10, 16, 19])
@pytest.mark.parametrize("size", [88, 104, 746, 1000, 1e4, 1e30])
def test_extreme_logits(isa, dtype, size, n_outputs):
    rng = np.random.default_rng(0)
    for loss, activation in FUSED:
        problem = Problem(loss, activation, dtype, 40, n_outputs, 0)
        problem.Z = (size * rng.choice([-1, 0, 1], (40, n_outputs))).astype(dtype)
        activations.activation_forward(CODES[activation], problem.Z, problem.A)
        for Y in [problem.rows, *([problem.labels] if loss == "cross_entropy" else [])]:
            rows = problem.one_hot if Y.ndim == 1 else Y
            values, gradient = problem.values(Y), problem.gradient(Y)
            assert np.isfinite(values).all()
            check_values(problem, rows, values)
            assert np.isfinite(gradient).all()
            check_gradient(problem, rows, gradient)


@pytest.mark.parametrize("n_outputs", [1, 2, 5, 10, 16, 19])
@pytest.mark.parametrize("loss", PROBABILITIES)
def test_probabilities_0_and_1(isa, dtype, loss, n_outputs):
    problem = Problem(loss, "identity", dtype, 40, n_outputs, 0)
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    edges = [0, 1, info.tiny, info.smallest_subnormal, 1 - info.epsneg]
    problem.A = rng.choice(np.array(edges, dtype), (40, n_outputs))
    problem.scale = np.full(40, 0.5)
    values, gradient = problem.values(problem.rows), problem.gradient(problem.rows)
    assert np.isfinite(values).all()
    check_values(problem, problem.rows, values)
    assert np.isfinite(gradient).all()
    check_gradient(problem, problem.rows, gradient)


@case
@pytest.mark.parametrize("n_outputs", [1, 4, 8, 19])
def test_nan_stays(isa, dtype, loss, activation, n_outputs):
    """A diverged network is noticed, whatever output it is that went first."""
    problem = Problem(loss, activation, dtype, n_outputs + 1, n_outputs, 0)
    for array in (problem.A, problem.Z):
        array[range(n_outputs), range(n_outputs)] = np.nan
    values = problem.values(problem.rows)
    assert np.isnan(values[:-1]).all()
    assert np.isfinite(values[-1])


def refused(message, **changes):
    return pytest.param(changes, message, id=",".join(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        refused("shapes do not fit", Z=(3, 5)),
        refused("shapes do not fit", Z=(4, 6)),
        refused("shapes do not fit|shape of the outputs", A=(5, 5)),
        refused("shapes do not fit|label a sample|shape of the outputs", A=(4, 6), Z=(4, 6)),
        refused("shape of the outputs", Y=(4, 6)),
        refused("shape of the outputs", Y=(3, 5)),
        refused("shapes do not fit", per_sample=(3,)),
        refused("label a sample", Y=(3,)),
        refused("labels below the number of outputs", label=5),
        refused("labels below the number of outputs", label=-1),
    ],
)
def test_arrays_that_do_not_fit_are_refused(dtype, changes, message):
    shapes = {"A": (4, 5), "Z": (4, 5), "Y": (4, 5), "per_sample": (4,), "dZ": (4, 5)}
    codes = 0, CODES["softmax"], True

    def run(label=None, **other):
        arrays = {name: np.ones(shape, dtype) for name, shape in (shapes | other).items()}
        Y, per_sample = arrays["Y"], arrays["per_sample"].astype(float)
        if label is not None:
            Y = np.full(4, label)
        A, Z, Y = arrays["A"], arrays["Z"], targets(Y.astype(np.int64) if Y.ndim == 1 else Y)
        losses.loss_forward(*codes, A, Z, *Y, per_sample)
        losses.loss_backward(*codes, A, Z, *Y, per_sample, arrays["dZ"])

    run()
    run(label=4)
    with pytest.raises(ValueError, match=message):
        run(**changes)


def test_a_gradient_of_another_shape_is_refused(dtype):
    A, scale = np.ones((4, 5), dtype), np.ones(4)
    for dZ in (np.ones((3, 5), dtype), np.ones((4, 6), dtype)):
        with pytest.raises(ValueError, match="loss_backward: the shapes do not fit"):
            losses.loss_backward(0, CODES["softmax"], True, A, A, None, A, scale, dZ)


@case
@pytest.mark.parametrize("of_labels", [True, False])
def test_no_samples(isa, dtype, loss, activation, of_labels):
    empty, nothing = np.empty((0, 3), dtype), np.empty(0)
    codes = LOSSES[loss].code, CODES[activation], (loss, activation) in FUSED
    Y = targets(np.empty(0, np.int64) if of_labels else empty)
    losses.loss_forward(*codes, empty, empty, *Y, nothing)
    losses.loss_backward(*codes, empty, empty, *Y, nothing, empty)


GUARDED = """
from fastmlp._core import losses

rng = np.random.default_rng(0)
shapes = [(1, 1), (1, 3), (3, 5), (2, 8), (2, 15), (3, 16), (2, 17), (1, 70)]
# code, activation (softmax 10, sigmoid 5, identity 0), fused
kinds = [(0, 10, True), (1, 5, True), *((code, 0, False) for code in range(5))]
for dtype, at_end, shape, kind, of_labels in cases(shapes, kinds, (True, False)):
    n = shape[0]
    A, Z, Y, dZ = (guarded(rng.random(shape).astype(dtype), 3, at_end) for _ in range(4))
    values, scale = guarded(np.ones(n), at_end=at_end), guarded(np.ones(n), at_end=at_end)
    Y = (guarded(np.full(n, shape[1] - 1), at_end=at_end), None) if of_labels else (None, Y)
    losses.loss_forward(*kind, A, Z, *Y, values)
    losses.loss_backward(*kind, A, Z, *Y, scale, dZ)
    assert np.isfinite(values).all() and np.isfinite(dZ).all()
"""


def test_pages_behind_and_before_the_arrays_are_not_touched(run_guarded):
    run_guarded(GUARDED)
