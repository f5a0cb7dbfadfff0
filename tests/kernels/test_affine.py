"""Z = X W + b and back, on shapes, strides, offsets and threads of all kinds."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import GUARD_PAGES, THREADS, WIDE, Frame, framed, pads, seeds, sizes

affine = pytest.importorskip("fastmlp._core.affine")

# Exact sums: whole numbers, and whole numbers of the smallest subnormal, which flushing would lose.
UNITS = ["one", "subnormal"]


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def whole(rng, shape, dtype):
    return rng.integers(-8, 9, shape).astype(dtype)


def forward(X, W, b, n_threads=1):
    Z = np.full((len(X), W.shape[1]), np.nan, X.dtype)
    affine.affine_forward(X, W, b, Z, n_threads)
    return Z


def backward(X, dZ, n_threads=1):
    dW = np.full((X.shape[1], dZ.shape[1]), np.nan, X.dtype)
    db = np.full(dZ.shape[1], np.nan, X.dtype)
    affine.affine_backward(X, dZ, dW, db, n_threads)
    return dW, db


def check_product(product, left, right, start):
    """Componentwise: |product - (left right + start)| <= (k + 2) eps (|left| |right| + |start|)."""
    wide = WIDE[product.dtype.name]
    exact = left.astype(wide) @ right.astype(wide) + start.astype(wide)
    scale = np.abs(left).astype(float) @ np.abs(right).astype(float) + np.abs(start)
    bound = (left.shape[1] + 2) * np.finfo(product.dtype).eps * scale
    assert (np.abs(product - exact) <= bound).all()


@st.composite
def layouts(draw, n_arrays):
    """A shape (m, k, n), a seed, threads, and for each array padding and offset in elements."""
    shape = draw(sizes), draw(sizes), draw(sizes)
    places = [(draw(pads), draw(st.integers(0, 15))) for _ in range(n_arrays)]
    return shape, draw(seeds), draw(st.sampled_from(THREADS)), places


def places_of(places, dtype):
    """Keyword arguments of `Frame`; offsets in bytes, 0 to 63."""
    itemsize = np.dtype(dtype).itemsize
    return [{"pad": pad, "offset": offset * itemsize % 64} for pad, offset in places]


@given(layouts(4), st.booleans())
def test_forward(isa, dtype, layout, biased):
    (m, k, n), seed, n_threads, places = layout
    rng = np.random.default_rng(seed)
    x, w, b, z = places_of(places, dtype)
    X, W = framed(normal(rng, (m, k), dtype), **x), framed(normal(rng, (k, n), dtype), **w)
    bias = framed(normal(rng, n, dtype), **b) if biased else None
    Z = Frame((m, n), dtype, **z)
    affine.affine_forward(X, W, bias, Z.array, n_threads)
    check_product(Z.array, X, W, bias if biased else np.zeros(n, dtype))
    assert Z.intact


@given(layouts(4))
def test_backward(isa, dtype, layout):
    (m, k, n), seed, n_threads, places = layout
    rng = np.random.default_rng(seed)
    x, d, w, b = places_of(places, dtype)
    X, dZ = framed(normal(rng, (m, k), dtype), **x), framed(normal(rng, (m, n), dtype), **d)
    dW, db = Frame((k, n), dtype, **w), Frame((n,), dtype, **b)
    affine.affine_backward(X, dZ, dW.array, db.array, n_threads)
    check_product(dW.array, X.T, dZ, np.zeros(n, dtype))
    check_product(db.array[None], np.ones((1, m), dtype), dZ, np.zeros(n, dtype))
    assert dW.intact
    assert db.intact


@given(layouts(2))
def test_transpose(isa, dtype, layout):
    (k, n, _), seed, _, places = layout
    w, t = places_of(places, dtype)
    W = framed(normal(np.random.default_rng(seed), (k, n), dtype), **w)
    WT = Frame((n, k), dtype, **t)
    affine.transpose(W, WT.array)
    assert np.array_equal(WT.array, W.T)
    assert WT.intact


@pytest.mark.parametrize("shape", [(130, 784, 256), (1, 784, 257), (67, 300, 1000)])
def test_large_shapes(isa, dtype, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    X, W, b = (normal(rng, s, dtype) for s in ((m, k), (k, n), (n,)))
    check_product(forward(X, W, b, 2), X, W, b)
    D = normal(rng, (m, n), dtype)
    dW, db = backward(X, D, 2)
    check_product(dW, X.T, D, np.zeros(n, dtype))
    check_product(db[None], np.ones((1, m), dtype), D, np.zeros(n, dtype))


@pytest.mark.parametrize("unit", UNITS)
@given(layouts(0))
@settings(max_examples=25)
def test_small_whole_numbers_are_exact(isa, dtype, unit, layout):
    (m, k, n), seed, n_threads, _ = layout
    rng = np.random.default_rng(seed)
    scale = np.finfo(dtype).smallest_subnormal if unit == "subnormal" else np.ones((), dtype)[()]
    X, W = whole(rng, (m, k), dtype), whole(rng, (k, n), dtype)
    b, D = whole(rng, n, dtype), whole(rng, (m, n), dtype)
    assert np.array_equal(forward(X * scale, W, b * scale, n_threads), (X @ W + b) * scale)
    dW, db = backward(X, D * scale, n_threads)
    assert np.array_equal(dW, (X.T @ D) * scale)
    assert np.array_equal(db, D.sum(axis=0) * scale)


@given(layouts(0), st.data())
@settings(max_examples=25)
def test_bits_do_not_depend_on_the_division_of_rows(isa, dtype, layout, data):
    (m, k, n), seed, _, _ = layout
    rng = np.random.default_rng(seed)
    X, W, b, D = (normal(rng, s, dtype) for s in ((m, k), (k, n), (n,), (m, n)))
    Z, (dW, db) = forward(X, W, b), backward(X, D)
    for n_threads in (2, 3, 8):
        assert np.array_equal(forward(X, W, b, n_threads), Z)
        for ours, one in zip(backward(X, D, n_threads), (dW, db), strict=True):
            assert np.array_equal(ours, one)
    start = data.draw(st.integers(0, m - 1))
    rows = slice(start, data.draw(st.integers(start + 1, m)))
    assert np.array_equal(forward(X[rows], W, b), Z[rows])
    for r in {0, start, m - 1}:
        assert np.array_equal(forward(X[r : r + 1], W, b)[0], Z[r])
    start = data.draw(st.integers(0, k - 1))
    columns = slice(start, data.draw(st.integers(start + 1, k)))
    assert np.array_equal(backward(X[:, columns], D)[0], dW[columns])


@pytest.mark.parametrize("shape", [(5, 9, 37), (1, 9, 300)])
def test_bits_do_not_depend_on_alignment(isa, dtype, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    values = [normal(rng, s, dtype) for s in ((m, k), (k, n), (n,), (m, n))]
    expected = [forward(*values[:3]), *backward(values[0], values[3])]
    itemsize = np.dtype(dtype).itemsize
    for offset, moved in itertools.product(range(0, 64, itemsize), range(5)):
        offsets = [offset if moved in (i, 4) else 0 for i in range(4)]
        X, W, b, D = (framed(v, 1, o) for v, o in zip(values, offsets, strict=True))
        Z, dW = Frame((m, n), dtype, 1, offsets[3]), Frame((k, n), dtype, 1, offsets[3])
        db = Frame((n,), dtype, 0, offsets[2])
        affine.affine_forward(X, W, b, Z.array, 1)
        affine.affine_backward(X, D, dW.array, db.array, 1)
        for frame, values_expected in zip((Z, dW, db), expected, strict=True):
            assert frame.intact
            assert np.array_equal(frame.array, values_expected)


VIEWS = {
    "every second row": lambda a: a[::2],
    "rows backwards": lambda a: a[::-1],
    "one row many times": lambda a: np.broadcast_to(a[:1], a.shape),
    "inner columns": lambda a: a[:, 3:-2],
    "read only": lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_are_read_where_they_lie(isa, dtype, view):
    rng = np.random.default_rng(0)
    X, D = view(normal(rng, (12, 45), dtype)), view(normal(rng, (12, 40), dtype))
    W = view(normal(rng, (90, 40), dtype))[: X.shape[1]]
    b = normal(rng, W.shape[1], dtype)
    before = [a.tobytes() for a in (X, W, D)]
    copies = [np.ascontiguousarray(a) for a in (X, W, D)]
    assert np.array_equal(forward(X, W, b, 2), forward(*copies[:2], b, 2))
    for ours, copied in zip(backward(X, D, 2), backward(copies[0], copies[2], 2), strict=True):
        assert np.array_equal(ours, copied)
    assert [a.tobytes() for a in (X, W, D)] == before


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_nothing_in_some_dimension(isa, dtype, shape, n_threads):
    m, k, n = shape
    b, Z = np.arange(n, dtype=dtype), Frame((m, n), dtype)
    affine.affine_forward(np.ones((m, k), dtype), np.ones((k, n), dtype), b, Z.array, n_threads)
    assert np.array_equal(Z.array, np.zeros((m, n)) + b + k)
    dW, db = Frame((k, n), dtype), Frame((n,), dtype)
    affine.affine_backward(
        np.ones((m, k), dtype), np.ones((m, n), dtype), dW.array, db.array, n_threads
    )
    assert np.array_equal(dW.array, np.full((k, n), m))
    assert np.array_equal(db.array, np.full(n, m))
    assert all(frame.intact for frame in (Z, dW, db))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_zero_times_infinity_is_nan(isa, dtype, value):
    X, W = np.ones((5, 9), dtype), np.ones((9, 37), dtype)
    X[1:, 4] = 0
    W[4, 20] = value
    Z = forward(X, W, None, 2)
    assert np.array_equal(Z[0, 20], value, equal_nan=True)
    assert np.isnan(Z[1:, 20]).all()
    assert np.isfinite(np.delete(Z, 20, axis=1)).all()


SHAPES = {"X": (4, 3), "W": (3, 5), "b": (5,), "Z": (4, 5), "dW": (3, 5), "db": (5,), "WT": (5, 3)}
CALLS = {
    "affine_forward": (lambda *arrays: affine.affine_forward(*arrays, 2), ["X", "W", "b", "Z"]),
    "affine_backward": (lambda *arrays: affine.affine_backward(*arrays, 2), ["X", "Z", "dW", "db"]),
    "transpose": (affine.transpose, ["W", "WT"]),
}


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, i) for name in CALLS for i in range(len(CALLS[name][1]))]
)
def test_arrays_that_do_not_fit_are_refused(dtype, name, wrong):
    call, names = CALLS[name]
    shapes = [SHAPES[array] for array in names]

    def arrays(replacement):
        return [replacement if i == wrong else np.ones(s, dtype) for i, s in enumerate(shapes)]

    call(*arrays(np.ones(shapes[wrong], dtype)))
    for axis in range(len(shapes[wrong])):
        longer = [size + (i == axis) for i, size in enumerate(shapes[wrong])]
        with pytest.raises(ValueError, match=f"{name}: the shapes do not fit"):
            call(*arrays(np.ones(longer, dtype)))
    apart = np.ones([*shapes[wrong], 2], dtype)[..., 0]
    with pytest.raises(ValueError, match=r"expected (contiguous rows|a contiguous array)"):
        call(*arrays(apart))


GUARDED = """
from fastmlp._core import affine

rng = np.random.default_rng(0)
shapes = [(1, 1, 1), (1, 5, 3), (3, 2, 17), (15, 3, 31), (2, 7, 33), (1, 3, 129), (29, 16, 70)]
shapes += [(7, 70, 33)]  # several spans of rows
for dtype, at_end, (m, k, n), pad, n_threads in cases(shapes, (0, 7), (1, 2)):
    def array(*shape):
        return guarded(rng.standard_normal(shape).astype(dtype), pad, at_end)

    X, W, b, Z, WT, dW, db = (
        array(*shape) for shape in [(m, k), (k, n), (n,), (m, n), (n, k), (k, n), (n,)]
    )
    affine.affine_forward(X, W, b, Z, n_threads)
    np.testing.assert_allclose(Z, X @ W + b, 1e-4, 1e-4)
    affine.affine_backward(X, Z, dW, db, n_threads)
    np.testing.assert_allclose(dW, X.T @ Z, 1e-4, 1e-4)
    affine.transpose(W, WT)
"""


def test_pages_behind_and_before_the_arrays_are_not_touched(run_guarded):
    run_guarded(GUARDED)


@pytest.mark.parametrize("at_end", [True, False])
def test_a_touched_guard_page_ends_the_process(start_python, at_end):
    code = f"""
array = guarded(np.ones(3), at_end={at_end})
print("ready", flush=True)
ctypes.string_at(array.ctypes.data + ({at_end} and 24 or -8), 8)
"""
    with start_python(GUARD_PAGES + code) as process:
        out, _ = process.communicate(timeout=120)
    assert out == "ready\n"
    assert process.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_every_small_shape(isa, dtype):
    """1..64 rows, 1..40 terms, 1..48 columns, forward and back, exact in whole numbers."""
    rng = np.random.default_rng(0)
    X, W, b = whole(rng, (64, 40), dtype), whole(rng, (40, 48), dtype), whole(rng, 48, dtype)
    XT = np.ascontiguousarray(X.T)
    for k, n in itertools.product(range(1, 41), range(1, 49)):
        product = X[:, :k] @ W[:k, :n]
        for m in range(1, 65):
            assert np.array_equal(forward(X[:m, :k], W[:k, :n], b[:n]), product[:m] + b[:n])
            dW, db = backward(XT[:k, :m], W[:k, :n])
            assert np.array_equal(dW, product[:m])
        assert np.array_equal(db, W[:k, :n].sum(axis=0))
