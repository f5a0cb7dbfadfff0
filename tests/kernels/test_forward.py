"""All layers in one pass: the bits of the layers one by one, for any block, thread and memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fastmlp import Dense, Dropout, LayerNorm, propagation
from fastmlp.activations import ACTIVATIONS
from fastmlp.architecture import Architecture
from fastmlp.backends import load_compiled
from fastmlp.backends.numpy_backend import NumpyBackend
from fastmlp.validation import scale_pixels

from .conftest import THREADS, TOLERANCE, Frame, framed, make_network

forward = pytest.importorskip("fastmlp._core.forward")
compiled_backend = pytest.importorskip("fastmlp.backends.compiled_backend")

# Around the 56 rows of a block.
ROWS = [1, 2, 55, 56, 57, 111, 112, 113, 200]
NETWORK = [37, 29, 16, 7], ["relu", "gelu", "softmax"], "cross_entropy"


def inputs(n, n_inputs, dtype, pixels, **place):
    rng = np.random.default_rng(0)
    if pixels:
        return framed(rng.integers(0, 256, (n, n_inputs)).astype(np.uint8), **place)
    return framed(rng.standard_normal((n, n_inputs)).astype(dtype), **place)


def core_of(network):
    """The core's forward pass, on the parameters themselves."""
    return load_compiled().predictor(*network).core


def layers_of(network, X, backend=None):
    """A and Z of the last layer, layer by layer."""
    caches = propagation.forward(backend or load_compiled(), *network, X)
    return caches[-1].A, caches[-1].Z


def run(core, X, n_outputs, dtype, n_threads=1, pad=0, wanted=True):
    """A and Z, (n, n_outputs); nothing beside them is written."""
    A, Z = (Frame((len(X), n_outputs), dtype, pad, 4 * pad // 8 * 8 % 64) for _ in range(2))
    core.run(X, A.array, Z.array if wanted else None, n_threads)
    assert (A.intact, Z.intact) == (True, True)
    return A.array, Z.array


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("n", ROWS)
def test_bits_are_those_of_layer_after_layer(isa, dtype, n, pixels):
    network = make_network(*NETWORK, dtype)
    core, X = core_of(network), inputs(n, 37, dtype, pixels, pad=5, offset=24)
    before = X.tobytes()
    expected_A, expected_Z = layers_of(network, scale_pixels(X, np.dtype(dtype)))
    for n_threads in [*THREADS, 8, 20]:
        for pad in (0, 1, 7):
            A, Z = run(core, X, 7, dtype, n_threads, pad)
            assert np.array_equal(A, expected_A)
            assert np.array_equal(Z, expected_Z)
            A, Z = run(core, X, 7, dtype, n_threads, pad, wanted=False)
            assert np.array_equal(A, expected_A)
            assert np.isnan(Z).all() or not Z.any()
    assert X.tobytes() == before


@pytest.mark.parametrize("widths", [[1, 1], [1, 70, 1], [70, 1, 70], [9, 3, 4, 5, 6, 7, 8]])
def test_specification(isa, dtype, widths):
    activations = [*["tanh", "silu", "elu", "softplus", "sigmoid"][: len(widths) - 2], "identity"]
    network = make_network(widths, activations, "mse", dtype)
    X = inputs(113, widths[0], dtype, False)
    A, Z = run(core_of(network), X, widths[-1], dtype, 2)
    wide = make_network(widths, activations, "mse", "float64")
    for view, values in zip(wide[1].views, network[1].views, strict=True):
        view[...] = values
    for ours, exact in zip((A, Z), layers_of(wide, X.astype(float), NumpyBackend()), strict=True):
        assert np.abs(ours - exact).max() <= TOLERANCE[dtype] * (1 + np.abs(exact).max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(isa, dtype, activation):
    """Within, where a pre-activation is overwritten by its output, and last."""
    for names in ([activation, "identity"], ["tanh", activation]):
        network = make_network([9, 50, 41], names, "mse", dtype)
        for n, n_threads in ((60, 1), (3, 2), (1, 3)):
            X = inputs(n, 9, dtype, False)
            expected = layers_of(network, X)
            ours = run(core_of(network), X, 41, dtype, n_threads)
            for values, layers in zip(ours, expected, strict=True):
                assert np.array_equal(values, layers)


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("pixels", [False, True])
def test_no_rows(isa, dtype, pixels, n_threads):
    network = make_network(*NETWORK, dtype)
    A, Z = run(core_of(network), inputs(0, 37, dtype, pixels), 7, dtype, n_threads)
    assert A.shape == Z.shape == (0, 7)


def test_a_row_does_not_see_the_others(isa, dtype):
    network = make_network(*NETWORK, dtype)
    core, X = core_of(network), inputs(113, 37, dtype, False)
    A, Z = run(core, X, 7, dtype)
    for rows in [slice(0, 1), slice(55, 57), slice(112, 113), slice(None, None, 3)]:
        part_A, part_Z = run(core, X[rows], 7, dtype)
        assert np.array_equal(part_A, A[rows])
        assert np.array_equal(part_Z, Z[rows])


@pytest.mark.parametrize("dead", [False, True])
def test_one_row_leaves_out_units_that_are_zero(isa, dtype, dead):
    """Among others nearly no unit is 0 in all rows of a block; alone half of them are."""
    layers = [
        *(Dense(300, "relu"), Dropout(0.5), LayerNorm(), Dense(170, "relu"), Dense(33, "relu")),
        Dense(5, "softmax"),
    ]
    architecture = Architecture.checked(9, layers, "cross_entropy", dtype)
    parameters = architecture.new_parameters()
    for group in parameters.groups():
        for view in group:
            view[...] = np.random.default_rng(view.size).standard_normal(view.shape) / 8
    if dead:
        parameters.groups()[3][1][...] = -1000
    X = inputs(20, 9, dtype, False)
    core = core_of((architecture, parameters))
    A, Z = run(core, X, 5, dtype)
    assert len(np.unique(Z, axis=0)) == (1 if dead else 20)
    for n_threads in THREADS:
        for r in range(20):
            part_A, part_Z = run(core, X[r : r + 1], 5, dtype, n_threads)
            assert np.array_equal(part_A[0], A[r])
            assert np.array_equal(part_Z[0], Z[r])


@pytest.mark.parametrize("n_threads", THREADS)
@pytest.mark.parametrize("n", [1, 3, 60])
def test_says_whether_inputs_are_finite(isa, dtype, n, n_threads):
    core, X = core_of(make_network(*NETWORK, dtype)), inputs(n, 37, dtype, False)
    out = np.zeros((n, 7), dtype)
    assert core.run(X, out, None, n_threads)
    for value in (np.nan, np.inf, -np.inf):
        X[-1, -1] = value
        assert not core.run(X, out, None, n_threads)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("n", [1, 2, 56, 57, 200])
def test_few_rows_at_once_have_the_same_bits(isa, dtype, n, pixels):
    core, X = core_of(make_network(*NETWORK, dtype)), inputs(n, 37, dtype, pixels)
    A = core.predict_few(X)
    assert (A.shape, A.dtype) == ((n, 7), dtype)
    assert np.array_equal(A, run(core, X, 7, dtype)[0])
    X.setflags(write=False)
    assert np.array_equal(core.predict_few(X), A)


class Subclass(np.ndarray):
    pass


def unaligned(X):
    memory = np.empty(X.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(X.tobytes(), np.uint8)
    return memory.view(X.dtype).reshape(X.shape)


def with_value(X, value):
    X = X.copy()
    X[-1, -1] = value
    return X


OTHERS = {
    "list": lambda X: X.tolist(),
    "None": lambda X: None,
    "subclass": lambda X: X.view(Subclass),
    "1-D": lambda X: X[0],
    "3-D": lambda X: X[None],
    "columns": lambda X: X[:, :-1].copy(),
    "no rows": lambda X: X[:0],
    "column by column": lambda X: np.asfortranarray(X),
    "every second": lambda X: np.repeat(X, 2, axis=0)[::2],
    "other bytes": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": unaligned,
    "the other float": lambda X: X.astype("float32" if X.dtype == "float64" else "float64"),
    "int8": lambda X: X.astype(np.int8),
    "bool": lambda X: X > 0,
    "object": lambda X: X.astype(object),
    "record": lambda X: X.view([("x", X.dtype)]),
    "dates": lambda X: X.astype("datetime64[s]"),
    "NaN": lambda X: with_value(X, np.nan),
    "infinity": lambda X: with_value(X, -np.inf),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_plain_is_left_to_the_checks(dtype, kind):
    core, X = core_of(make_network(*NETWORK, dtype)), inputs(3, 37, dtype, False)
    assert core.predict_few(X) is not None
    assert core.predict_few(OTHERS[kind](X)) is None


def test_more_rows_than_one_threads_work_are_left_to_others(dtype):
    network = make_network(*NETWORK, dtype)
    most = (2 * compiled_backend.MULTIPLY_ADDS_PER_THREAD - 1) // network[0].multiply_adds
    X = np.zeros((most + 1, 37), dtype)
    assert core_of(network).predict_few(X[1:]) is not None
    assert core_of(network).predict_few(X) is None


def test_bits_do_not_depend_on_alignment(isa, dtype):
    network = make_network(*NETWORK, dtype)
    core = core_of(network)
    for pixels in (False, True):
        expected = run(core, inputs(9, 37, dtype, pixels), 7, dtype)
        itemsize = 1 if pixels else np.dtype(dtype).itemsize
        for offset in range(0, 64, itemsize):
            ours = run(core, inputs(9, 37, dtype, pixels, pad=1, offset=offset), 7, dtype)
            assert np.array_equal(ours, expected), offset


def test_parameters_are_those_at_the_call(isa, dtype):
    network = make_network(*NETWORK, dtype)
    core, X = core_of(network), inputs(3, 37, dtype, False)
    before, _ = run(core, X, 7, dtype)
    for view in network[1].views:
        view *= 2
    after, _ = run(core, X, 7, dtype)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, layers_of(network, X)[0])


def test_python_threads_at_once(isa, dtype):
    """Four of them share one core; each starts threads of its own."""
    network = make_network(*NETWORK, dtype)
    core, X = core_of(network), inputs(200, 37, dtype, False)
    expected, _ = run(core, X, 7, dtype)
    results = [[] for _ in range(4)]

    def predict(mine):
        for _ in range(10):
            mine.append(run(core, X, 7, dtype, 2)[0])

    threads = [threading.Thread(target=predict, args=(mine,)) for mine in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(mine) for mine in results] == [10] * 4
    assert all(np.array_equal(A, expected) for mine in results for A in mine)


@pytest.mark.parametrize("shapes", [((5, 36), (5, 7)), ((5, 37), (4, 7)), ((5, 37), (5, 6))])
def test_arrays_that_do_not_fit_are_refused(dtype, shapes):
    core = core_of(make_network(*NETWORK, dtype))
    X, A = (np.zeros(shape, dtype) for shape in shapes)
    with pytest.raises(ValueError, match="predict: the shapes do not fit"):
        core.run(X, A, None, 1)


@pytest.mark.parametrize("shape", [(4, 7), (6, 7), (5, 6)])
def test_a_pre_activation_that_does_not_fit_is_refused(dtype, shape):
    core = core_of(make_network(*NETWORK, dtype))
    with pytest.raises(ValueError, match="predict: the shapes do not fit"):
        core.run(np.zeros((5, 37), dtype), np.zeros((5, 7), dtype), np.zeros(shape, dtype), 1)


GUARDED = """
from fastmlp import Dense
from fastmlp.architecture import Architecture
from fastmlp.backends import load_compiled

rng = np.random.default_rng(0)
axes = (1, 57), (1, 7, 16, 33), (1, 2, 10, 17), (True, False), (1, 3)
for dtype, at_end, n, n_in, n_out, pixels, n_threads in cases(*axes):
    layers = [Dense(n_out, "relu"), Dense(n_out, "softmax")]
    architecture = Architecture.checked(n_in, layers, "cross_entropy", dtype)
    core = load_compiled().predictor(architecture, architecture.new_parameters()).core
    X = guarded(rng.integers(0, 9, (n, n_in)).astype(np.uint8 if pixels else dtype), 2, at_end)
    A, Z = (guarded(np.zeros((n, n_out), dtype), 3, at_end) for _ in range(2))
    core.run(X, A, Z, n_threads)
    np.testing.assert_allclose(A, 1 / n_out, 1e-6)
    np.testing.assert_array_equal(core.predict_few(guarded(X, 0, at_end)), A)
"""


def test_pages_behind_and_before_the_data_are_not_touched(run_guarded):
    run_guarded(GUARDED)
