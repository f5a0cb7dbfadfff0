"""The flat buffer: layout, alignment, views, padding."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp import SGD, Adam, AdamW
from fastmlp.arena import Arena, aligned_empty, all_finite, huge_pages_empty, leading_dimension

SHAPES = [
    *(("0.W", (5, 16), True), ("0.b", (16,), False)),
    *(("1.W", (16, 3), True), ("1.b", (3,), False)),
    *(("2.W", (3, 1), True), ("2.b", (1,), False)),
]


@pytest.fixture
def arena(dtype):
    return Arena(SHAPES, np.dtype(dtype))


def padding_of(arena):
    """The elements of the buffer that no view shows."""
    marked = arena.like()
    for view in marked.views:
        view[...] = 1
    return arena.flat[marked.flat == 0]


@given(n_cols=st.integers(1, 5000), itemsize=st.sampled_from([4, 8]))
def test_rows_are_whole_cache_lines_off_conflicting_strides(n_cols, itemsize):
    stride = leading_dimension(n_cols, itemsize) * itemsize
    assert stride >= n_cols * itemsize
    assert stride % 64 == 0
    assert stride % 512 != 0
    assert stride - n_cols * itemsize < 128


@given(size=st.integers(0, 300))
def test_buffers_start_at_a_cache_line(dtype, size):
    buffer = aligned_empty(size, np.dtype(dtype))
    assert buffer.shape == (size,)
    assert buffer.dtype == dtype
    assert size == 0 or buffer.ctypes.data % 64 == 0


@pytest.mark.parametrize("n_bytes", [0, 4096, 600_000, 2_200_000, 5_000_000])
def test_large_buffers_are_ordinary_writable_memory(dtype, n_bytes):
    size = n_bytes // np.dtype(dtype).itemsize
    buffer = huge_pages_empty(size, np.dtype(dtype))
    assert buffer.shape == (size,)
    assert buffer.dtype == dtype
    assert buffer.flags.writeable
    assert buffer.flags.c_contiguous
    buffer[:] = 1
    assert buffer.sum() == size
    assert size == 0 or buffer.ctypes.data % 64 == 0


def test_without_huge_pages_buffers_are_aligned_all_the_same(dtype, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no such thing")

    monkeypatch.setattr("fastmlp.arena.mmap.mmap", refuse)
    buffer = huge_pages_empty(1 << 20, np.dtype(dtype))
    assert buffer.shape == (1 << 20,)
    assert buffer.ctypes.data % 64 == 0


def test_views_have_the_shapes_asked_for_and_aligned_rows(arena, dtype):
    assert [view.shape for view in arena.views] == [shape for _, shape, _ in SHAPES]
    for view in arena.views:
        assert view.dtype == dtype
        assert view.flags.writeable
        assert view.ctypes.data % 64 == 0
        assert view.strides[-1] == view.itemsize
        assert view.ndim == 1 or view.strides[0] % 64 == 0


def test_views_do_not_overlap_and_cover_their_segments(arena):
    for number, view in enumerate(arena.views, 1):
        view[...] = number
    for number, (view, segment) in enumerate(zip(arena.views, arena.segments, strict=True), 1):
        assert (view == number).all()
        assert (arena.flat[segment.offset : segment.stop] == number).sum() == view.size
    assert arena.size == sum(view.size for view in arena.views) == 80 + 16 + 48 + 3 + 3 + 1
    assert [segment.stop for segment in arena.segments[:-1]] == [
        segment.offset for segment in arena.segments[1:]
    ]
    assert arena.segments[-1].stop == arena.flat.size


def test_pairs_are_the_views_layer_by_layer(arena):
    pairs = arena.pairs()
    assert [(W.shape, b.shape) for W, b in pairs] == [
        ((5, 16), (16,)),
        ((16, 3), (3,)),
        ((3, 1), (1,)),
    ]
    pairs[1][0][2, 1] = 7
    assert arena.views[2][2, 1] == 7


def test_like_is_zeroed_and_of_the_same_layout(arena):
    arena.flat[:] = 1
    other = arena.like()
    assert other.segments == arena.segments
    assert not other.flat.any()
    assert not np.shares_memory(other.flat, arena.flat)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_keep_values_views_and_alignment(arena, duplicate):
    arena.flat[:] = np.arange(arena.flat.size)
    other = duplicate(arena)
    assert other.flat.tobytes() == arena.flat.tobytes()
    assert other.flat.ctypes.data % 64 == 0
    for mine, theirs in zip(other.views, arena.views, strict=True):
        assert np.shares_memory(mine, other.flat)
        assert not np.shares_memory(mine, theirs)
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, weight_decay=0.1), Adam(), AdamW()])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_padding_stays_zero_through_a_fit(
    backend, dtype, make_network, make_data, optimizer, batch_size
):
    net = make_network(backend, dtype)
    net.fit(*make_data(net, 10), optimizer=optimizer, epochs=2, batch_size=batch_size)
    for arena in (net.arena, *net.optimizer_state.moments):
        assert arena.flat.any()
        assert not padding_of(arena).any()


def test_an_arena_over_given_memory_uses_it_where_it_lies():
    own = Arena([("W", (3, 5), True), ("b", (5,), False)], np.dtype(np.float64))
    flat = np.zeros_like(own.flat)
    other = own.over(flat)
    assert other.flat is flat
    other.views[0][...] = 7
    assert flat.sum() == 7 * 15
    assert own.flat.sum() == 0
    for wrong in (flat[1:], flat.astype(np.float32), np.zeros(2 * len(flat))[::2]):
        with pytest.raises(ValueError, match="flat: expected a contiguous array"):
            own.over(wrong)


@pytest.mark.parametrize("shape", [(), (1,), (37,), (5, 8), (0, 3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(dtype, shape, bad):
    values = np.full(shape, np.finfo(dtype).max, dtype)  # the sum overflows
    assert all_finite(values)
    for flat in range(values.size):
        for one in (np.ones(shape, dtype), values.copy("F")):
            one[np.unravel_index(flat, shape)] = bad
            assert not all_finite(one)


def test_infinities_that_cancel_are_not_finite(dtype):
    assert not all_finite(np.array([np.inf, -np.inf], dtype))
    assert not all_finite(np.array([1, 0, np.inf, 0], dtype)[::2])
    assert all_finite(np.arange(300).astype(np.uint8))
