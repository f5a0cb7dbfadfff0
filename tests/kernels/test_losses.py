"""Losses: each sample's value and its gradient, for labels and rows, behind every activation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmlp.activations import ACTIVATIONS
from fastmlp.losses import LOSSES

from .conftest import WIDE, Frame, framed, pads, seeds, sizes, ulp_error

losses = pytest.importorskip("fastmlp._core.losses")
activations = pytest.importorskip("fastmlp._core.activations")

CODES = {name: record.code for name, record in ACTIVATIONS.items()}
DIFFERENTIABLE = [name for name in CODES if name != "step"]
# Loss, output activation: fused, and not.
FUSED = [(name, record.fused_with) for name, record in LOSSES.items() if record.fused_with]
PLAIN = [(name, "identity") for name in LOSSES]
CASES = [*FUSED, *PLAIN]
PROBABILITIES = [name for name, record in LOSSES.items() if record.probabilities]
case = pytest.mark.parametrize(("loss", "activation"), CASES)
# Options that are not the default; of each output, where they are several.
OPTIONS = {"huber": 0.75, "quantile": (0.1, 0.5, 0.7), "focal": 1.5, "binary_focal": 2.5}


def option_of(loss, n_outputs):
    return np.resize(np.asarray(OPTIONS.get(loss, 0.0)), n_outputs)


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
        if LOSSES[loss].positive:
            self.Z = np.clip(self.Z, -9, 9)
        if activation != "identity":
            self.A = np.empty_like(self.Z)
            activations.activation_forward(CODES[activation], self.Z, self.A)
        elif loss in PROBABILITIES:
            self.A = rng.uniform(0, 1, self.Z.shape).astype(dtype)
        elif LOSSES[loss].positive:
            self.A = rng.uniform(0.01, 9, self.Z.shape).astype(dtype)
        else:
            self.A = self.Z.copy()
        self.labels = rng.integers(0, n_outputs, n)
        self.one_hot = np.eye(n_outputs, dtype=dtype)[self.labels]
        if loss in PROBABILITIES:
            self.rows = rng.uniform(0, 1, self.Z.shape).astype(dtype)
            self.rows[rng.random(self.Z.shape) < 0.2] = 0
        elif LOSSES[loss].targets != "real":
            self.rows = rng.gamma(2, 2, self.Z.shape).astype(dtype)
            if loss == "poisson":
                self.rows[rng.random(self.Z.shape) < 0.2] = 0
        elif loss == "hinge":
            self.rows = rng.dirichlet(np.ones(n_outputs), n).astype(dtype)
        else:
            # On the target, at both kinks of huber, and anywhere
            distance = rng.choice([0, 0.75, -0.75, 0.25, np.nan], self.Z.shape)
            anywhere = rng.standard_normal(self.Z.shape)
            distance = np.where(np.isnan(distance), anywhere, distance)
            self.rows = self.A + distance.astype(dtype)
        self.scale = rng.choice([0, 1, 1 / 3, 7], n)

    @property
    def codes(self):
        option = option_of(self.loss, self.A.shape[1]).astype(self.dtype)
        fused = (self.loss, self.activation) in FUSED
        return LOSSES[self.loss].code, CODES[self.activation], fused, option

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
    n, loss, fused = a.shape[1], problem.loss, (problem.loss, problem.activation) in FUSED
    o = option_of(loss, n).astype(problem.dtype).astype(wide)
    shifted = z - z.max(axis=1, keepdims=True)
    log_a = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    yes, no = (np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s))) for s in (-z, z))
    if not fused:
        log_a = np.log(np.maximum(a, tiny))
        yes, no = -log_a, -np.log(np.maximum(1 - a, tiny))
    r = a - y
    log_y = np.log(np.maximum(y, tiny))
    if loss == "cross_entropy":
        return np.array([y * (shifted - log_a), -y * shifted] if fused else [-y * log_a]), 1
    if loss == "binary_cross_entropy":
        if fused:
            return np.array([np.maximum(z, 0), -z * y, np.log1p(np.exp(-np.abs(z)))]), n
        return np.array([y * yes, (1 - y) * no]), n
    if loss == "focal":
        return np.array([-y * (-np.expm1(log_a) if fused else 1 - a) ** o * log_a]), 1
    if loss == "binary_focal":
        return np.array([y * np.exp(-o * no) * yes, (1 - y) * np.exp(-o * yes) * no]), n
    if loss == "poisson":
        return np.array([y * log_y, -y * (z if fused else log_a), -y, a]), 1
    if loss == "gamma":
        one = np.ones_like(y)
        if fused:
            return np.array([z, -log_y, y * np.exp(-z), -one]), 1
        return np.array([log_a, -log_y, y / a, -one]), 1
    if loss == "hinge":
        scores = np.zeros_like(a)
        scores[:, 0] = (a + 1 - y).max(axis=1)
        return np.array([scores, -a * y]), 1
    if loss == "huber":
        return np.array([np.where(np.abs(r) <= o, r * r / 2, o * (np.abs(r) - o / 2))]), n
    if loss == "quantile":
        return np.array([np.maximum(r, 0), -o * r]), n
    return np.array([r * r if loss == "mse" else np.abs(r)]), n


def gradient_terms(problem, rows):
    """Terms whose sum is the derivative of the loss by A (fused: by Z), in wide arithmetic."""
    wide, tiny = WIDE[problem.dtype.name], np.finfo(problem.dtype).tiny
    a, z, y = (array.astype(wide) for array in (problem.A, problem.Z, rows))
    n, loss, fused = a.shape[1], problem.loss, (problem.loss, problem.activation) in FUSED
    o = option_of(loss, n).astype(problem.dtype).astype(wide)
    r = a - y
    over, rest_over = (1 / np.maximum(p, tiny) for p in (a, 1 - a))
    if loss in ("cross_entropy", "poisson") and fused:
        terms = a, -y
    elif loss == "binary_cross_entropy" and fused:
        terms = (r,)
    elif loss == "cross_entropy":
        terms = (-y * over,)
    elif loss == "binary_cross_entropy":
        terms = (1 - y) * rest_over, -y * over
    elif loss == "focal" and fused:
        shifted = z - z.max(axis=1, keepdims=True)
        log_a = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        rest = -np.expm1(log_a)
        ratio = np.where(rest > 0, log_a / np.maximum(rest, tiny), -1)
        pull = y * rest**o * (o * np.exp(log_a) * ratio - 1)
        terms = pull, -a * pull.sum(axis=1, keepdims=True)
    elif loss == "focal":
        terms = y * (1 - a) ** o * o * np.log(1 / over) * rest_over, -y * (1 - a) ** o * over
    elif loss == "binary_focal" and fused:
        yes, no = (np.maximum(s, 0) + np.log1p(np.exp(-np.abs(s))) for s in (-z, z))
        down, up = np.exp(-o * yes), np.exp(-o * no)
        terms = (
            *((1 - y) * down * o * np.exp(-no) * no, (1 - y) * down * a),
            *(-y * up * o * a * yes, -y * up * np.exp(-no)),
        )
    elif loss == "binary_focal":
        terms = (
            *(y * (1 - a) ** o * o * np.log(1 / over) * rest_over, -y * (1 - a) ** o * over),
            *(-(1 - y) * a**o * o * np.log(1 / rest_over) * over, (1 - y) * a**o * rest_over),
        )
    elif loss == "poisson":
        terms = np.ones_like(y), -y * over
    elif loss == "gamma":
        terms = (np.ones_like(y), -y * np.exp(-z)) if fused else (over, -y * over * over)
    elif loss == "hinge":
        best = np.zeros_like(y)
        scores = problem.A + 1 - rows  # as the kernel rounds them
        best[np.arange(len(y)), scores.argmax(axis=1)] = 1
        terms = best, -y
    elif loss == "quantile":
        terms = (np.where(r > 0, 1 - o, np.where(r < 0, -o, 0)),)
    else:
        terms = ({"mse": 2 * r, "mae": np.sign(r), "huber": np.clip(r, -o, o)}[loss],)
    return problem.scale[:, None] / value_terms(problem, rows)[1] * np.array(terms)


def rounding(problem):
    """By how much the rounding of logarithms and of 1 - a is made larger by the power of focal."""
    if "focal" not in problem.loss:
        return 1.0
    return 8 * (1 + np.abs(problem.Z).max(axis=1, initial=0))


def check_values(problem, rows, values):
    terms, divisor = value_terms(problem, rows)
    n, eps = terms.shape[-1], np.finfo(problem.dtype).eps
    # 1 an output: 1 - a, and the logarithm of a sum, are rounded in the last place of 1.
    rest = n if problem.loss in PROBABILITIES or problem.loss == "hinge" else 0
    bound = (n + 8) * eps * (np.abs(terms).sum(axis=(0, 2)) + rest) / divisor * rounding(problem)
    assert (np.abs(values - terms.sum(axis=(0, 2)) / divisor) <= bound).all()


def check_gradient(problem, rows, gradient):
    info, terms = np.finfo(problem.dtype), gradient_terms(problem, rows)
    size = np.abs(terms).sum(axis=0)
    bound = 4 * info.eps * size + info.smallest_subnormal
    if "focal" in problem.loss:
        size = size + np.abs(problem.scale)[:, None]
        bound = bound + 16 * info.eps * (size * rounding(problem)[:, None])
    assert (np.abs(gradient - terms.sum(axis=0)) <= bound).all()


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


@pytest.mark.parametrize(("loss", "activation"), [pair for pair in CASES if LOSSES[pair[0]].labels])
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
    for Y in [problem.rows, *([problem.labels] if LOSSES[loss].labels else [])]:
        values, gradient = problem.values(Y), problem.gradient(Y)
        for r in {0, n // 2, n - 1}:
            for row in (slice(r, r + 1), slice(r, r + 4)):
                assert problem.values(Y, row)[0] == values[r]
                assert np.array_equal(problem.gradient(Y, row)[0], gradient[r])


@pytest.mark.parametrize("n_outputs", [1, 3, 8, 16, 40])
def test_logarithm_is_within_its_ulps(isa, dtype, n_outputs):
    """Where all z are 0 the fused cross-entropy is -log of the largest output."""
    rng = np.random.default_rng(0)
    near_1 = 1 - np.geomspace(np.finfo(dtype).eps, 0.5, 1000)
    A = np.concatenate([near_1, 10.0 ** rng.uniform(-30, 0, 3000), 2.0 ** -np.arange(50), [1]])
    A = np.repeat(A.astype(dtype)[:, None], n_outputs, axis=1)
    A[:, 1:] *= np.dtype(dtype).type(0.5)
    codes = Problem("cross_entropy", "softmax", dtype, 1, n_outputs, 0).codes
    values = np.empty(len(A))
    losses.loss_forward(*codes, A, np.zeros_like(A), np.zeros(len(A), np.int64), None, values)
    exact = -np.log(A[:, 0].astype(np.longdouble))
    assert ulp_error(values.astype(dtype), exact).max() <= 2


@pytest.mark.parametrize("activation", DIFFERENTIABLE)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_goes_through_the_activation(isa, dtype, loss, activation):
    """The bits of the two kernels one after the other, where the pair is not fused."""
    for n_outputs in (1, 3, 10, 16, 33):
        problem = Problem(loss, "identity", dtype, 5, n_outputs, 0)
        code = CODES[activation]
        if LOSSES[loss].takes(ACTIVATIONS[activation]):
            activations.activation_forward(code, problem.Z, problem.A)
        dA = problem.gradient(problem.rows)
        expected = np.empty_like(dA)
        activations.activation_backward(code, dA, problem.Z, problem.A, expected)
        gradient = problem.gradient(
            problem.rows, codes=(*problem.codes[:1], code, False, problem.codes[3])
        )
        assert np.array_equal(gradient, expected)


@pytest.mark.parametrize("n_outputs", [1, 2, 5, 10, 16, 19])
@pytest.mark.parametrize("size", [88, 104, 746, 1000, 1e4, 1e30])
def test_extreme_logits(isa, dtype, size, n_outputs):
    rng = np.random.default_rng(0)
    for loss, activation in [*FUSED[:2], ("focal", "softmax"), ("binary_focal", "sigmoid")]:
        problem = Problem(loss, activation, dtype, 40, n_outputs, 0)
        problem.Z = (size * rng.choice([-1, 0, 1], (40, n_outputs))).astype(dtype)
        activations.activation_forward(CODES[activation], problem.Z, problem.A)
        for Y in [problem.rows, *([problem.labels] if LOSSES[loss].labels else [])]:
            rows = problem.one_hot if Y.ndim == 1 else Y
            values, gradient = problem.values(Y), problem.gradient(Y)
            assert np.isfinite(values).all()
            assert np.isfinite(gradient).all()
            if "focal" not in loss:
                check_values(problem, rows, values)
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
    codes = 0, CODES["softmax"], True, np.zeros(5, dtype)

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
    codes = 0, CODES["softmax"], True, np.zeros(5, dtype)
    for dZ in (np.ones((3, 5), dtype), np.ones((4, 6), dtype)):
        with pytest.raises(ValueError, match="loss_backward: the shapes do not fit"):
            losses.loss_backward(*codes, A, A, None, A, scale, dZ)


@case
@pytest.mark.parametrize("of_labels", [True, False])
def test_no_samples(isa, dtype, loss, activation, of_labels):
    empty, nothing = np.empty((0, 3), dtype), np.empty(0)
    fused, option = (loss, activation) in FUSED, np.zeros(3, dtype)
    codes = LOSSES[loss].code, CODES[activation], fused, option
    Y = targets(np.empty(0, np.int64) if of_labels else empty)
    losses.loss_forward(*codes, empty, empty, *Y, nothing)
    losses.loss_backward(*codes, empty, empty, *Y, nothing, empty)


GUARDED = """
from fastmlp._core import losses

rng = np.random.default_rng(0)
shapes = [(1, 1), (1, 3), (3, 5), (2, 8), (2, 15), (3, 16), (2, 17), (1, 70)]
# code, activation (softmax 10, sigmoid 5, exp 12, identity 0), fused
kinds = [(0, 10, True), (1, 5, True), (6, 12, True), (7, 12, True), (9, 10, True), (10, 5, True)]
kinds += [(code, 0, False) for code in range(11)]
for dtype, at_end, shape, kind, of_labels in cases(shapes, kinds, (True, False)):
    n = shape[0]
    A, Z, Y, dZ = (guarded(rng.random(shape).astype(dtype), 3, at_end) for _ in range(4))
    values, scale = guarded(np.ones(n), at_end=at_end), guarded(np.ones(n), at_end=at_end)
    of_labels = of_labels and kind[0] in (0, 8, 9)
    Y = (guarded(np.full(n, shape[1] - 1), at_end=at_end), None) if of_labels else (None, Y)
    option = guarded(np.full(shape[1], 0.5, dtype), at_end=at_end)
    losses.loss_forward(*kind, option, A, Z, *Y, values)
    losses.loss_backward(*kind, option, A, Z, *Y, scale, dZ)
    assert np.isfinite(values).all() and np.isfinite(dZ).all()
"""


def test_pages_behind_and_before_the_arrays_are_not_touched(run_guarded):
    run_guarded(GUARDED)
