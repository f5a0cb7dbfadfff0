"""Activations in units in the last place, over all exponents; rows, tails, places, memory."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from fastmlp.activations import ACTIVATIONS

from .conftest import WIDE, Frame, bits, framed, pads, seeds, sizes, ulp_error

activations = pytest.importorskip("fastmlp._core.activations")

CODES = {name: record.code for name, record in ACTIVATIONS.items()}
OF_ROWS = ["softmax", "increasing"]
ELEMENTWISE = [name for name in CODES if name not in OF_ROWS]
DIFFERENTIABLE = [name for name in CODES if name != "step"]
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

# Largest error of A in units in the last place, any dtype and instruction set.
ULPS = {
    "identity": 0,
    "relu": 0,
    "leaky_relu": 1,
    "elu": 2,
    "selu": 3,
    "sigmoid": 3,
    "tanh": 6,  # 4 in float64
    "softplus": 3,
    "gelu": 10,  # and z^2 / 2: e^(-z^2 / 2) makes that of the rounding of z^2
    "silu": 4,
    "step": 0,
    "exp": 2,
}


@np.errstate(all="ignore")
def bound_of(name, z, reference):
    """ULPS, and what of it depends on z: (N,) # IN, (N,) # OUT"""
    size = np.fmin(np.abs(z), 1e3).astype(float)
    bound = ULPS[name] + (size**2 / 2 if name == "gelu" else 0)
    if name in ("gelu", "silu"):
        # z times a number that is itself subnormal, so up to half a unit off
        subnormal = np.abs(reference) < size * float(np.finfo(z.dtype).tiny)
        bound = bound + np.where(subnormal, size, 0)
    return bound


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def normal_cdf(x):
    if x.dtype == np.float64:
        return special.ndtr(x)
    # erfc from its value and its slope at the nearest float64
    t = -x / np.sqrt(np.longdouble(2))
    near = t.astype(np.float64)
    value = np.array([math.erfc(v) for v in near.ravel().tolist()], np.longdouble).reshape(x.shape)
    slope = -2 / np.sqrt(np.longdouble(np.pi)) * np.exp(-(near.astype(np.longdouble) ** 2))
    away = np.where(np.isfinite(t), t - near, 0)
    return (value + slope * away) / 2


def normal_density(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * x.dtype.type(np.pi))


FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, x.dtype.type(0.01) * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0))),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "gelu": lambda x: x * normal_cdf(x),
    "silu": lambda x: x * sigmoid(x),
    "step": lambda x: np.where(np.isnan(x), x, x >= 0),
    "exp": np.exp,
}

# Terms whose sum is the derivative, from z or from the kernel's a, as the kernels have it.
DERIVATIVES = {
    "identity": lambda x, a: (np.ones_like(x),),
    "relu": lambda x, a: (np.where(x > 0, 1, 0),),
    "leaky_relu": lambda x, a: (np.where(x > 0, 1, x.dtype.type(0.01)),),
    "elu": lambda x, a: (np.where(x > 0, 1, a), np.where(x > 0, 0, 1)),
    "selu": lambda x, a: (
        np.where(x > 0, SELU_SCALE, a),
        np.where(x > 0, 0, SELU_SCALE * SELU_ALPHA),
    ),
    "sigmoid": lambda x, a: (a * (1 - a),),
    "tanh": lambda x, a: ((1 - a) * (1 + a),),
    "softplus": lambda x, a: (sigmoid(x),),
    "gelu": lambda x, a: (normal_cdf(x), x * normal_density(x)),
    "silu": lambda x, a: (sigmoid(x), sigmoid(x) * sigmoid(-x) * x),
    "exp": lambda x, a: (a,),
}

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]


@cache
def sample(dtype):
    """Some 2^18 numbers: every exponent of both signs, more in the range of exp, special ones."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    width = 8 * np.dtype(dtype).itemsize
    stride = np.uint64(2 ** (width - 17) - 1)
    patterns = (np.arange(2**17, dtype=np.uint64) * stride).astype(f"u{width // 8}").view(dtype)
    far = {32: 110, 64: 760}[width]
    parts = [(-far, far, 2**16), (-20, 20, 2**15), (-1, 1, 2**15), (-1e-4, 1e-4, 2**13)]
    edges = [info.max, info.min, info.tiny, -info.tiny, info.smallest_subnormal]
    edges += [-info.smallest_subnormal, *SPECIAL]
    values = [rng.uniform(*part).astype(dtype) for part in parts]
    return np.concatenate([patterns, *values, np.array(edges, dtype)])


@np.errstate(all="ignore")
def wide_of(name, z):
    x = z.astype(WIDE[z.dtype.name])
    return FORMULAS[name](x).astype(x.dtype)


@cache
def reference(name, dtype):
    return wide_of(name, sample(dtype))


def forward(name, Z):
    Z = np.atleast_2d(Z)
    A = np.full_like(Z, 7)
    activations.activation_forward(CODES[name], Z, A)
    return A


def backward(name, dA, Z, A):
    dZ = np.full_like(A, 7)
    activations.activation_backward(CODES[name], dA, Z, A, dZ)
    return dZ


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_forward_is_within_its_ulps(isa, dtype, name):
    z, exact = sample(dtype), reference(name, dtype)
    error = ulp_error(forward(name, z)[0], exact)
    excess = error - bound_of(name, z, exact)
    worst = excess.argmax()
    assert excess[worst] <= 0, f"{error[worst]} units at {z[worst]!r}"


@pytest.mark.parametrize("name", [name for name in DIFFERENTIABLE if name not in OF_ROWS])
def test_backward_is_within_its_ulps(isa, dtype, name):
    z = sample(dtype)
    z = z[np.isfinite(z) & (np.abs(z) < (80 if name == "exp" else 1e4))]
    d = np.random.default_rng(1).standard_normal(z.size).astype(dtype)
    A = forward(name, z)
    values = backward(name, d[None], z[None], A)[0]
    x, info = z.astype(WIDE[dtype]), np.finfo(dtype)
    with np.errstate(all="ignore"):
        terms = DERIVATIVES[name](x, A[0].astype(x.dtype))
    error = np.abs(values - d * sum(terms))
    relative = 3
    if name == "gelu":
        relative = 3 + x * x / 2
    elif name == "silu":
        # z (1 - sigmoid(z)) carries the rounding of sigmoid(z) near 1
        relative = 3 + 2 * np.clip(x, 0, 40)
    bound = relative * info.eps * np.abs(d) * sum(np.abs(term) for term in terms)
    # An intermediate product may be subnormal, and is then multiplied.
    bound += info.smallest_subnormal * (1 + np.abs(d)) * (1 + np.abs(x))
    worst = (error - bound).argmax()
    assert error[worst] <= bound[worst], f"{error[worst]} at {z[worst]!r}"


@pytest.mark.parametrize("name", ["elu", "selu", "sigmoid", "tanh"])
def test_a_derivative_from_the_output_is_the_one_from_the_input(isa, dtype, name):
    z = np.linspace(-20, 20, 4001).astype(dtype)
    x = z.astype(float)
    exact = {
        "elu": np.exp(np.minimum(x, 0)),
        "selu": np.where(x > 0, SELU_SCALE, SELU_SCALE * SELU_ALPHA * np.exp(np.minimum(x, 0))),
        "sigmoid": sigmoid(x) * sigmoid(-x),
        "tanh": 1 / np.cosh(x) ** 2,
    }[name]
    values = backward(name, np.ones((1, z.size), dtype), z[None], forward(name, z))[0]
    assert np.abs(values - exact).max() <= 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", CODES)
def test_nan_stays(isa, dtype, name):
    Z = np.linspace(-3, 3, 40, dtype=dtype).reshape(2, 20)
    Z[1, 17] = np.nan
    A = forward(name, Z)
    assert np.isnan(A[1, 17])
    assert np.isfinite(A[0]).all()
    assert np.isnan(A[1]).sum() == {"softmax": 20, "increasing": 3}.get(name, 1)


def test_limits(isa, dtype):
    z = np.array([-np.inf, np.finfo(dtype).min, np.finfo(dtype).max, np.inf], dtype)
    for name, (low, high) in {"sigmoid": (0, 1), "tanh": (-1, 1), "step": (0, 1)}.items():
        assert forward(name, z).tolist() == [[low, low, high, high]]
    assert forward("elu", z)[0, :2].tolist() == [-1, -1]
    for name in ("relu", "softplus", "silu", "gelu", "elu", "leaky_relu"):
        assert forward(name, z)[0, 2:].tolist() == [z[2], np.inf]
    assert forward("softplus", z)[0, :2].tolist() == [0, 0]
    # The largest finite number times a probability of 0.
    assert forward("silu", z)[0, 1] == forward("gelu", z)[0, 1] == 0


def test_odd_monotone_and_complementary(isa, dtype):
    z = sample(dtype)
    z = np.unique(np.abs(z[~np.isnan(z)]))
    assert np.array_equal(bits(forward("tanh", -z)), bits(-forward("tanh", z)))
    total = forward("sigmoid", z) + forward("sigmoid", -z)
    assert np.abs(total - 1).max() <= np.finfo(dtype).eps
    z = np.linspace(-20, 20, 2**18 + 1).astype(dtype)
    for name in ("sigmoid", "elu", "selu", "softplus"):
        assert (np.diff(forward(name, z)[0]) >= 0).all(), name
    # tanh is a quotient: near 1 it wavers, but within its error
    a = forward("tanh", z)[0]
    assert (np.diff(a[np.abs(z) <= 4][::8]) > 0).all()
    assert np.diff(a).min() >= -ULPS["tanh"] * np.finfo(dtype).epsneg
    assert np.abs(a).max() == 1


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_result_does_not_depend_on_its_place(isa, dtype, name):
    rng = np.random.default_rng(0)
    z = rng.choice(sample(dtype), 5040)
    z[:: 5040 // len(SPECIAL)] = SPECIAL
    d = rng.standard_normal(5040).astype(dtype)
    A = forward(name, z)
    dZ = None if name == "step" else backward(name, d[None], z[None], A)
    for n in [n for n in range(1, 320) if 5040 % n == 0]:
        assert np.array_equal(bits(forward(name, z.reshape(-1, n))).ravel(), bits(A[0])), n
        if dZ is not None:
            split = backward(name, *(a.reshape(-1, n) for a in (d, z, A)))
            assert np.array_equal(bits(split).ravel(), bits(dZ[0])), n


@pytest.mark.parametrize("name", CODES)
@given(sizes, sizes, seeds, st.lists(pads, min_size=4, max_size=4), st.integers(0, 15))
@settings(max_examples=15)
def test_memory(isa, dtype, name, n, n_units, seed, gaps, offset):
    """Nothing outside is read or written; in place gives the same bits; inputs stay."""
    rng = np.random.default_rng(seed)
    Z, D = (4 * rng.standard_normal((2, n, n_units))).astype(dtype)
    place = {"offset": offset * np.dtype(dtype).itemsize % 64}
    z, d = framed(Z, gaps[0], **place), framed(D, gaps[1], **place)
    A, dZ = Frame(Z.shape, dtype, gaps[2]), Frame(Z.shape, dtype, gaps[3], **place)
    activations.activation_forward(CODES[name], z, A.array)
    assert np.array_equal(z, Z)
    assert A.intact
    expected = A.array.copy()
    in_place = Frame(Z.shape, dtype, gaps[0])
    in_place.array[...] = Z
    activations.activation_forward(CODES[name], in_place.array, in_place.array)
    assert np.array_equal(in_place.array, expected)
    assert in_place.intact
    if name == "softmax":
        x = Z.astype(WIDE[dtype])
        e = np.exp(x - x.max(axis=1, keepdims=True))
        assert np.abs(expected - e / e.sum(axis=1, keepdims=True)).max() <= 8 * np.finfo(dtype).eps
    elif name == "increasing":
        check_increasing(Z, expected)
    else:
        exact = wide_of(name, Z)
        assert (ulp_error(expected, exact) <= bound_of(name, Z, exact)).all()
    if name == "step":
        return
    activations.activation_backward(CODES[name], d, z, A.array, dZ.array)
    assert (np.array_equal(d, D), np.array_equal(z, Z)) == (True, True)
    assert np.array_equal(A.array, expected)
    assert dZ.intact
    in_place.array[...] = D
    activations.activation_backward(CODES[name], in_place.array, z, A.array, in_place.array)
    assert np.array_equal(in_place.array, dZ.array)
    assert in_place.intact
    if name not in ("softplus", "gelu", "silu", "increasing"):
        # Z may be A: it is not read.
        assert np.array_equal(backward(name, D, expected, expected), dZ.array)


def check_increasing(Z, A):
    x, info = Z.astype(WIDE[Z.dtype.name]), np.finfo(Z.dtype)
    steps = np.concatenate([x[:, :1], FORMULAS["softplus"](x[:, 1:])], axis=1)
    bound = (Z.shape[1] + 3) * info.eps * np.abs(steps).cumsum(axis=1)
    assert (np.abs(A - steps.cumsum(axis=1)) <= bound).all()
    assert (np.diff(A, axis=1) >= 0).all()


@given(sizes, sizes, seeds)
def test_increasing(isa, dtype, n, n_units, seed):
    rng = np.random.default_rng(seed)
    Z = (rng.standard_normal((n, n_units)) * rng.choice([0.1, 5, 60], (n, 1))).astype(dtype)
    D = rng.standard_normal(Z.shape).astype(dtype)
    A = forward("increasing", Z)
    check_increasing(Z, A)
    dZ, x, d = backward("increasing", D, Z, A), Z.astype(WIDE[dtype]), D.astype(WIDE[dtype])
    slope = sigmoid(x)
    slope[:, 0] = 1
    exact, size = (slope * v[:, ::-1].cumsum(axis=1)[:, ::-1] for v in (d, np.abs(d)))
    info = np.finfo(dtype)
    assert (np.abs(dZ - exact) <= (n_units + 3) * info.eps * size + info.tiny).all()
    for r in {0, n // 2, n - 1}:
        row = slice(r, r + 1)
        assert np.array_equal(forward("increasing", Z[row]), A[row])
        assert np.array_equal(backward("increasing", D[row], Z[row], A[row]), dZ[row])


@given(sizes, sizes, seeds)
def test_softmax(isa, dtype, n, n_units, seed):
    rng = np.random.default_rng(seed)
    info, wide = np.finfo(dtype), WIDE[dtype]
    Z = (rng.standard_normal((n, n_units)) * rng.choice([0.1, 5, 60], (n, 1))).astype(dtype)
    D = rng.standard_normal(Z.shape).astype(dtype)
    A = forward("softmax", Z)
    x = Z.astype(wide)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    exact = e / e.sum(axis=1, keepdims=True)
    bound = (n_units / 4 + 6) * info.eps * exact + info.tiny
    # z - max is rounded to its own last place, which e^ turns into that relative error
    bound += info.eps * exact * (x.max(axis=1, keepdims=True) - x)
    assert (np.abs(A - exact) <= bound).all()
    assert np.abs(A.astype(wide).sum(axis=1) - 1).max() <= (n_units / 4 + 6) * info.eps
    dZ, a, d = backward("softmax", D, Z, A), A.astype(wide), D.astype(wide)
    exact = a * (d - (a * d).sum(axis=1, keepdims=True))
    scale = a * (np.abs(d) + (a * np.abs(d)).sum(axis=1, keepdims=True))
    assert (np.abs(dZ - exact) <= (n_units / 4 + 6) * info.eps * scale + info.tiny).all()
    for r in {0, n // 2, n - 1}:
        row = slice(r, r + 1)
        assert np.array_equal(forward("softmax", Z[row]), A[row])
        assert np.array_equal(backward("softmax", D[row], Z[row], A[row]), dZ[row])


@pytest.mark.parametrize("n_units", [1, 3, 4, 5, 8, 16, 17, 33])
@pytest.mark.parametrize("shift", [0, 88, -88, 1000, -1000, 1e4, -1e4, 3e38, -3e38])
def test_softmax_of_extreme_rows(isa, dtype, n_units, shift):
    Z = np.full((1, n_units), shift, dtype)
    assert np.allclose(forward("softmax", Z), 1 / n_units, rtol=4 * np.finfo(dtype).eps, atol=0)
    Z[0, -1] = -Z[0, -1]
    shares = forward("softmax", Z)[0]
    first = n_units - 1 if shift > 0 else 1
    if shift and n_units > 1:
        expected = [*[shift > 0] * (n_units - 1), shift < 0]
        assert np.allclose(shares, np.array(expected) / first, atol=1e-30)
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("wrong", range(4))
@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
def test_arrays_that_do_not_fit_are_refused(dtype, wrong, shape):
    arrays = [np.ones((3, 4), dtype) for _ in range(4)]
    activations.activation_backward(CODES["tanh"], *arrays)
    arrays[wrong] = np.ones(shape, dtype)
    with pytest.raises(ValueError, match="activation_backward: the shapes do not fit"):
        activations.activation_backward(CODES["tanh"], *arrays)
    if wrong < 2:
        with pytest.raises(ValueError, match="activation_forward: the shapes do not fit"):
            activations.activation_forward(CODES["tanh"], *arrays[:2])
    arrays[wrong] = np.ones((3, 8), dtype)[:, ::2]
    with pytest.raises(ValueError, match="expected contiguous rows"):
        activations.activation_backward(CODES["tanh"], *arrays)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_nothing_in_some_dimension(isa, dtype, name, shape):
    empty = np.empty(shape, dtype)
    assert backward(name, empty, empty, forward(name, empty.reshape(shape))).shape == shape


GUARDED = """
from fastmlp._core import activations

rng = np.random.default_rng(0)
shapes = [(1, 1), (1, 3), (3, 5), (2, 8), (2, 15), (3, 16), (2, 17), (1, 70)]
for dtype, at_end, shape, code in cases(shapes, range(14)):
    Z, A, dA, dZ = (guarded(rng.standard_normal(shape).astype(dtype), 3, at_end) for _ in range(4))
    activations.activation_forward(code, Z, A)
    activations.activation_backward(code, dA, Z, A, dZ)
    assert np.isfinite(dZ).all()
"""


def test_pages_behind_and_before_the_arrays_are_not_touched(run_guarded):
    run_guarded(GUARDED)


@np.errstate(all="ignore")
def steps_between(values, exact):
    """How many float32 lie between `values` and the rounded `exact`; 2^31 where one is NaN."""
    rounded = exact.astype(np.float32)
    steps = np.zeros(len(values))
    (off,) = np.nonzero(values.view(np.int32) != rounded.view(np.int32))
    pair = np.stack([values[off], rounded[off]])
    order = pair.view(np.int32).astype(np.int64)
    order = np.where(order < 0, -(2**31) - order, order)
    nan = np.isnan(pair)
    steps[off] = np.abs(order[0] - order[1])
    steps[off[nan.any(axis=0)]] = 2**31
    steps[off[nan.all(axis=0)]] = 0
    return steps


@pytest.mark.sweep
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_float32(name):
    """All 2^32, on every instruction set of this CPU."""
    cpu = pytest.importorskip("fastmlp._core.cpu")
    before, chunk = cpu.current_isa(), 2**18
    try:
        for start in range(0, 2**32, chunk):
            z = np.arange(start, start + chunk, dtype=np.uint32).view(np.float32)
            exact = wide_of(name, z)
            bound = bound_of(name, z, exact)
            for isa in cpu.supported_isas():
                cpu.set_isa(isa)
                steps = steps_between(forward(name, z)[0], exact)
                excess = steps - bound
                worst = excess.argmax()
                assert excess[worst] <= 0, f"{isa}: {steps[worst]} units at {z[worst]!r}"
    finally:
        cpu.set_isa(before)
