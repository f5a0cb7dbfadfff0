"""What a user may pass in: every form of the same numbers gives the same bits, and what cannot be
right is refused before anything changes.
"""

from __future__ import annotations

import copy
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from fastmlp import SGD, Adam, Dense, Network
from fastmlp.validation import check_inputs

N, N_INPUTS, N_OUTPUTS = 24, 6, 3
LABELS = np.random.default_rng(1).integers(0, N_OUTPUTS, N)


def quarters(shape, seed=0):
    """Multiples of 1/4 between -8 and 8, which every float type holds; many zeros."""
    rng = np.random.default_rng(seed)
    return rng.integers(-32, 33, shape) / 4 * rng.integers(0, 2, shape)


def results(net, X, y, weight=None):
    """Bytes of everything that is computed from the data; the network is not changed."""
    gradients = net.compute_gradient(X, y, weight)
    arrays = [net.predict(X), net.forward(X), *(array for pair in gradients for array in pair)]
    numbers = [net.cost(X, y, weight), *net.evaluate(X, y, weight).values()]
    for optimizer, batch_size in [(SGD(0.01), 1), (Adam(), 7)]:
        twin = copy.deepcopy(net)
        history = twin.fit(
            X,
            y,
            optimizer=optimizer,
            epochs=2,
            batch_size=batch_size,
            shuffle=False,
            sample_weight=weight,
            validation_data=(X, y),
        )
        arrays.append(twin.arena.flat)
        numbers += history["loss"] + history["val_loss"]
    assert np.isfinite(numbers).all()
    return [array.tobytes() for array in arrays], numbers


# --- Forms of inputs ------------------------------------------------------------------------------


def strided(values):
    big = np.full((2 * values.shape[0], 3 * values.shape[1]), np.nan, values.dtype)
    big[::2, ::3] = values
    return big[::2, ::3]


def every_other_row(values):
    return np.repeat(values, 2, axis=0)[::2]


def reversed_view(values):
    return np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


class Wrapper:
    """A container of some other library."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def objects(kind):
    def make(values):
        array = np.empty(values.shape, object)
        array[...] = np.vectorize(kind, otypes=[object])(values)
        return array

    return make


# Name: quarters -> X of the same values.
FORMS = {
    "strided": strided,
    "one column of two": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "fortran": np.asfortranarray,
    "negative strides": reversed_view,
    "negative row stride": lambda X: np.ascontiguousarray(X[::-1])[::-1],
    "read-only": read_only,
    "read-only fortran": lambda X: read_only(np.asfortranarray(X)),
    "transposed 3-D slice": lambda X: np.stack([X.T, X.T])[1].T,
    "float16": lambda X: X.astype(np.float16),
    "float32": lambda X: X.astype(np.float32),
    "longdouble": lambda X: X.astype(np.longdouble),
    "byte-swapped float32": lambda X: X.astype(">f4"),
    "byte-swapped float64": lambda X: X.astype(">f8"),
    "byte-swapped float16, strided": lambda X: strided(X.astype(">f2")),
    "objects: float": objects(float),
    "objects: Decimal": objects(Decimal),
    "objects: Fraction": objects(Fraction),
    "objects: numpy.float32": objects(np.float32),
    "list of lists": lambda X: X.tolist(),
    "tuple of arrays": tuple,
    "list of read-only arrays": lambda X: [read_only(row) for row in X],
    "array interface": Wrapper,
    "CSR matrix": sparse.csr_matrix,
    "CSC matrix": sparse.csc_matrix,
    "CSR array": sparse.csr_array,
    "CSC array": sparse.csc_array,
    "COO array": sparse.coo_array,
    "float32 CSR array": lambda X: sparse.csr_array(X.astype(np.float32)),
}
INTEGERS = [
    *(np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64),
    *(">i2", ">i4", ">u8"),
]


def snapshot(X):
    """The bytes behind a form of X, and its flags."""
    if sparse.issparse(X):
        parts = [X.row, X.col] if X.format == "coo" else [X.indices, X.indptr]
        return [array.tobytes() for array in (X.data, *parts)]
    if isinstance(X, Wrapper):
        return X.values.tobytes()
    if isinstance(X, np.ndarray):
        base = X if X.base is None or not isinstance(X.base, np.ndarray) else X.base
        values = base.tolist() if base.dtype == object else base.tobytes()
        return values, str(X.flags), X.dtype.str, X.strides
    return repr(X)


@pytest.fixture
def net(backend, dtype, make_network):
    return make_network(backend, dtype, widths=(N_INPUTS, 20, N_OUTPUTS), hidden="tanh")


def assert_equal_to_contiguous(net, X, values, y=LABELS):
    before = snapshot(X)
    contiguous = np.array(values, net.architecture.dtype, order="C")
    assert results(net, X, y) == results(net, contiguous, y)
    assert snapshot(X) == before


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_inputs(net, form):
    values = quarters((N, N_INPUTS))
    assert_equal_to_contiguous(net, FORMS[form](values), values)


@pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: np.dtype(kind).str)
def test_integer_inputs(net, kind):
    values = np.random.default_rng(0).integers(0, 7, (N, N_INPUTS)).astype(kind)
    assert_equal_to_contiguous(net, values, values)
    assert_equal_to_contiguous(net, every_other_row(values), values)


def test_bool_inputs(net):
    values = np.random.default_rng(0).integers(0, 2, (N, N_INPUTS)).astype(bool)
    assert_equal_to_contiguous(net, values, values)
    assert_equal_to_contiguous(net, sparse.csr_array(values), values)


@pytest.mark.parametrize("axis", [0, 1])
def test_broadcast_inputs(net, axis):
    """Strides of 0."""
    values = np.broadcast_to(quarters((1, N_INPUTS) if axis == 0 else (N, 1)), (N, N_INPUTS))
    assert 0 in values.strides
    assert_equal_to_contiguous(net, values, values)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memory_mapped_inputs(net, tmp_path, mode):
    values = quarters((N, N_INPUTS)).astype(net.architecture.dtype)
    path = tmp_path / "X.dat"
    path.write_bytes(b"head" + values.tobytes())
    X = np.memmap(path, values.dtype, mode, offset=4, shape=values.shape)
    assert_equal_to_contiguous(net, X, values)
    del X
    assert path.read_bytes() == b"head" + values.tobytes()


@pytest.mark.parametrize("offset", range(64))
def test_unaligned_inputs(net, dtype, offset):
    values = quarters((N, N_INPUTS)).astype(dtype)
    raw = np.zeros(values.nbytes + 64, np.uint8)
    buffer = raw[offset : offset + values.nbytes]
    buffer[...] = np.frombuffer(values.tobytes(), np.uint8)
    X = buffer.view(dtype).reshape(values.shape)
    before = raw.tobytes()
    assert net.predict(X).tobytes() == net.predict(values).tobytes()
    if offset in (0, 1, 7, 31, 60):
        assert_equal_to_contiguous(net, X, values)
    assert raw.tobytes() == before


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        np.asfortranarray,
        read_only,
        reversed_view,
        every_other_row,
        sparse.csr_array,
    ],
    ids=["contiguous", "fortran", "read-only", "negative strides", "strided", "CSR"],
)
def test_uint8_inputs_are_pixels(net, dtype, form):
    """Divided by 255; every other type keeps its values."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, N_INPUTS)).astype(np.uint8)
    X = form(pixels)
    before = snapshot(X)
    assert results(net, X, LABELS) == results(net, pixels, LABELS)
    assert snapshot(X) == before
    scaled = (pixels / 255).astype(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-11}
    for from_pixels, from_floats in zip(
        (np.frombuffer(b, dtype) for b in results(net, X, LABELS)[0]),
        (np.frombuffer(b, dtype) for b in results(net, scaled, LABELS)[0]),
        strict=True,
    ):
        np.testing.assert_allclose(from_pixels, from_floats, **tolerance)
    assert not np.allclose(net.predict(X), net.predict(pixels.astype(np.int16)))


def test_inputs_of_the_right_kind_are_not_copied(net, dtype):
    for X in (quarters((N, N_INPUTS)).astype(dtype), np.zeros((N, N_INPUTS), np.uint8)):
        assert check_inputs(X, net.architecture) is X


def test_finite_numbers_whose_sum_is_not_are_taken(net, dtype):
    X = np.full((4, N_INPUTS), np.finfo(dtype).max, dtype)
    X[::2] *= -1
    assert check_inputs(X, net.architecture) is X
    assert check_inputs(np.full_like(X, np.finfo(dtype).max), net.architecture).shape == X.shape


@given(
    start=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    step=st.tuples(st.sampled_from([-3, -2, -1, 1, 2, 3]), st.sampled_from([-2, -1, 1, 2])),
    order=st.sampled_from("CF"),
)
def test_any_view(backend, dtype, make_network, start, step, order):
    net = make_network(backend, dtype, widths=(N_INPUTS, 20, N_OUTPUTS))
    base = np.array(quarters((40, 20)), dtype, order=order)
    X = base[:: step[0], :: step[1]][start[0] : start[0] + 9, start[1] : start[1] + N_INPUTS]
    assert net.predict(X).tobytes() == net.predict(np.array(X, order="C")).tobytes()


# --- Forms of targets and weights -----------------------------------------------------------------

LABEL_FORMS = {
    "list": lambda y: y.tolist(),
    "strided": lambda y: np.repeat(y, 3)[::3],
    "reversed": lambda y: y[::-1].copy()[::-1],
    "read-only": read_only,
    "objects: int": objects(int),
    "objects: numpy.int32": objects(np.int32),
    "array interface": Wrapper,
    **{np.dtype(kind).str: lambda y, kind=kind: y.astype(kind) for kind in [np.uint8, *INTEGERS]},
}


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_forms_of_labels(net, form):
    X = quarters((N, N_INPUTS))
    y = LABEL_FORMS[form](LABELS)
    before = snapshot(y)
    assert results(net, X, y) == results(net, X, LABELS)
    assert snapshot(y) == before


def test_labels_of_two_classes_may_be_bool(backend, dtype, make_network):
    net = make_network(backend, dtype, widths=(N_INPUTS, 2))
    X, y = quarters((N, N_INPUTS)), LABELS == 1
    assert results(net, X, y) == results(net, X, y.astype(np.int64))


@pytest.mark.parametrize("form", [name for name in FORMS if name != "float16"])
def test_forms_of_target_rows(backend, dtype, make_network, form):
    net = make_network(
        backend, dtype, widths=(N_INPUTS, 20, N_OUTPUTS), output="identity", loss="mse"
    )
    X, values = quarters((N, N_INPUTS)), quarters((N, N_OUTPUTS), seed=3)
    Y = FORMS[form](values)
    before = snapshot(Y)
    assert results(net, X, Y) == results(net, X, np.array(values, dtype, order="C"))
    assert snapshot(Y) == before


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int16, bool, np.float16], ids=lambda kind: kind.__name__
)
def test_target_rows_keep_their_values(backend, dtype, make_network, kind):
    """No target is a pixel."""
    net = make_network(backend, dtype, widths=(N_INPUTS, 2), output="identity", loss="huber")
    Y = np.random.default_rng(0).integers(0, 9, (N, 2)).astype(kind)
    X = quarters((N, N_INPUTS))
    assert results(net, X, Y) == results(net, X, Y.astype(dtype))


def test_one_output_takes_targets_in_one_dimension(backend, dtype, make_network):
    net = make_network(backend, dtype, widths=(N_INPUTS, 1), output="sigmoid", loss="mse")
    X, y = quarters((N, N_INPUTS)), quarters(N)
    assert results(net, X, y) == results(net, X, y[:, None])


WEIGHTS = np.random.default_rng(2).integers(0, 4, N)


@pytest.mark.parametrize(
    "form",
    [
        lambda w: w.tolist(),
        read_only,
        lambda w: np.repeat(w, 2)[::2],
        lambda w: w.astype(np.float16),
        lambda w: w.astype(">f4"),
        lambda w: w.astype(np.uint8),
        objects(Fraction),
        lambda w: np.broadcast_to(w[:1], w.shape),
    ],
    ids=["list", "read-only", "strided", "float16", ">f4", "uint8", "objects", "broadcast"],
)
def test_forms_of_weights(net, form):
    X, weight = quarters((N, N_INPUTS)), form(WEIGHTS)
    before = snapshot(weight)
    plain = np.array(weight, np.float64)
    assert results(net, X, LABELS, weight) == results(net, X, LABELS, plain)
    assert snapshot(weight) == before


# --- What is refused ------------------------------------------------------------------------------


def with_element(value, dtype=np.float64, shape=(N, N_INPUTS)):
    X = np.ones(shape, dtype)
    X[2, 1] = value
    return X


BAD_INPUTS = [
    (np.ones((N, 5)), ValueError, r"X: expected 6 columns, got shape \(24, 5\)"),
    (np.ones((N, 7)), ValueError, r"X: expected 6 columns, got shape \(24, 7\)"),
    (np.ones((N, 0)), ValueError, r"X: expected 6 columns, got shape \(24, 0\)"),
    (np.ones(6), ValueError, r"X: expected 2 dimensions .*got shape \(6,\).*X.reshape\(1, -1\)"),
    (np.ones((N, 6, 1)), ValueError, r"X: expected 2 dimensions .*, got shape \(24, 6, 1\)"),
    (3.0, ValueError, r"X: expected 2 dimensions .*, got shape \(\)"),
    (None, ValueError, r"X: expected 2 dimensions .*, got shape \(\)"),
    ([], ValueError, r"X: expected 2 dimensions .*, got shape \(0,\)"),
    (np.ones((0, 6)), ValueError, r"X: expected at least 1 sample, got shape \(0, 6\)"),
    (with_element(np.nan), ValueError, r"X: expected finite numbers, got nan at \(2, 1\) \(1 in"),
    (with_element(np.inf), ValueError, r"X: expected finite numbers, got inf at \(2, 1\)"),
    (with_element(-np.inf), ValueError, r"X: expected finite numbers, got -inf at \(2, 1\)"),
    (with_element(np.nan, np.float16), ValueError, "X: expected finite numbers, got nan"),
    (with_element(np.inf, ">f4"), ValueError, "X: expected finite numbers, got inf"),
    (with_element(None, object), ValueError, "X: expected finite numbers, got nan"),
    (sparse.csr_array(with_element(np.nan)), ValueError, "X: expected finite numbers, got nan"),
    (
        np.where(np.arange(6) % 2, np.inf, -np.inf) * np.ones((N, 1)),
        ValueError,
        r"X: expected finite numbers, got -inf at \(0, 0\) \(144 in all\)",
    ),
    (np.full((N, 6), "1.5"), TypeError, "X: expected real numbers, got <U3"),
    (np.full((N, 6), b"1"), TypeError, r"X: expected real numbers, got \|S1"),
    (with_element("1.5", object), TypeError, "X: expected real numbers, got <U"),
    (with_element({}, object), TypeError, "X: expected numbers, got objects"),
    (with_element(10**400, object), TypeError, "X: expected numbers, got objects"),
    (np.ones((N, 6), complex), TypeError, "X: expected real numbers, got complex128"),
    (with_element(1j, object), TypeError, "X: expected real numbers, got complex128"),
    (np.ones((N, 6), "datetime64[s]"), TypeError, "X: expected real numbers, got datetime64"),
    (np.ones((N, 6), "f4,f4"), TypeError, "X: expected real numbers"),
    ([[1] * 6] * (N - 1) + [[1] * 5], ValueError, "X: expected rows of equal length"),
    ("pixels", TypeError, "X: expected real numbers, got <U6"),
    ({"X": 1}, TypeError, "X: expected numbers, got objects"),
]

BAD_TARGETS = [
    (LABELS[:-1], ValueError, r"y: expected 24 targets, one a sample; got shape \(23,\)"),
    (np.append(LABELS, 0), ValueError, r"y: expected 24 targets, one a sample; got shape \(25,\)"),
    ([], ValueError, r"y: expected 24 targets, one a sample; got shape \(0,\)"),
    (1, ValueError, r"y: expected 24 targets, one a sample; got shape \(\)"),
    (None, ValueError, r"y: expected 24 targets, one a sample; got shape \(\)"),
    (LABELS + 1, ValueError, "y: expected labels from 0 to 2 for 3 outputs, got 1 to 3"),
    (LABELS - 1, ValueError, "y: expected labels from 0 to 2 for 3 outputs, got -1 to 1"),
    (
        np.full(N, 2**64 - 1, np.uint64),
        ValueError,
        "y: expected labels from 0 to 2 .*got 18446744073709551615 to",
    ),
    (LABELS.astype(float), TypeError, "y: expected integer class labels or rows .*got float64"),
    (LABELS.astype(str), TypeError, "y: expected real numbers, got <U"),
    (LABELS.astype(complex), TypeError, "y: expected real numbers, got complex128"),
    (LABELS[:, None], ValueError, r"y: expected \(24,\) integer labels or shape \(24, 3\)"),
    (np.ones((N, 4)), ValueError, r"y: expected .*shape \(24, 3\) .*, got shape \(24, 4\)"),
    (np.ones((N, 3, 1)), ValueError, r"y: expected .*shape \(24, 3\) .*, got shape \(24, 3, 1\)"),
    (np.ones((N, 3)), ValueError, "y: expected rows .*that sum to 1 .*row 0 sums to 3"),
    (np.zeros((N, 3)), ValueError, "y: expected rows .*that sum to 1 .*row 0 sums to 0"),
    (np.tile([2, -1, 0], (N, 1)), ValueError, r"y: expected values in \[0, 1\] .*got -1 to 2"),
    (
        with_element(np.nan, shape=(N, 3)),
        ValueError,
        r"y: expected finite numbers, got nan at \(2, 1\)",
    ),
    ([[1, 0, 0]] * (N - 1) + [[1, 0]], ValueError, "y: expected rows of equal length"),
]

BAD_WEIGHTS = [
    (np.ones(N - 1), ValueError, r"sample_weight: expected shape \(24,\), got shape \(23,\)"),
    (np.ones((N, 1)), ValueError, r"sample_weight: expected shape \(24,\), got shape \(24, 1\)"),
    (2.0, ValueError, r"sample_weight: expected shape \(24,\), got shape \(\)"),
    (
        np.zeros(N),
        ValueError,
        "sample_weight: expected weights of at least 0, not all 0; got 0 to 0",
    ),
    (np.arange(N) - 1.0, ValueError, "sample_weight: expected weights of at least 0.*got -1 to 22"),
    (np.full(N, np.nan), ValueError, "sample_weight: expected finite numbers, got nan"),
    (np.full(N, np.inf), ValueError, "sample_weight: expected finite numbers, got inf"),
    (["heavy"] * N, TypeError, "sample_weight: expected real numbers, got <U5"),
    (np.ones(N, complex), TypeError, "sample_weight: expected real numbers, got complex128"),
]

X_GOOD = quarters((N, N_INPUTS))

BAD_DATA = [
    *((bad, LABELS, None, error, message) for bad, error, message in BAD_INPUTS),
    *((X_GOOD, bad, None, error, message) for bad, error, message in BAD_TARGETS),
    *((X_GOOD, LABELS, bad, error, message) for bad, error, message in BAD_WEIGHTS),
]

BAD_OPTIONS = [
    ({"epochs": -1}, ValueError, "epochs: expected at least 0, got -1"),
    ({"epochs": 1.5}, TypeError, "epochs: expected an integer, got float"),
    ({"epochs": True}, TypeError, "epochs: expected an integer, got bool"),
    ({"batch_size": 0}, ValueError, "batch_size: expected at least 1, got 0"),
    ({"batch_size": -4}, ValueError, "batch_size: expected at least 1, got -4"),
    ({"batch_size": "all"}, TypeError, "batch_size: expected an integer, got str"),
    ({"optimizer": "adam"}, TypeError, "optimizer: expected an optimizer .*, got str"),
    ({"optimizer": Adam}, TypeError, "optimizer: expected an optimizer .*, got type"),
    ({"verbose": 3}, ValueError, "verbose: expected 0, 1 or 2, got 3"),
    ({"verbose": "yes"}, ValueError, "verbose: expected 0, 1 or 2, got 'yes'"),
    ({"validation_data": X_GOOD}, TypeError, r"validation_data: expected a pair \(X, y\)"),
    ({"validation_data": (X_GOOD,)}, TypeError, r"validation_data: expected a pair \(X, y\)"),
    (
        {"validation_data": (X_GOOD[:, 1:], LABELS)},
        ValueError,
        r"validation_data\[0\]: expected 6 columns, got shape \(24, 5\)",
    ),
    (
        {"validation_data": (X_GOOD, LABELS + 1)},
        ValueError,
        r"validation_data\[1\]: expected labels from 0 to 2",
    ),
]


@pytest.fixture(scope="module")
def trained(backend, dtype, make_network):
    """A network that has been trained, so that there is a state to lose."""
    net = make_network(backend, dtype, widths=(N_INPUTS, 5, N_OUTPUTS))
    net.fit(X_GOOD, LABELS, optimizer=Adam(), epochs=2, batch_size=5)
    return net


def assert_refused(call, error, message, net, state_of):
    before = state_of(net)
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error
    assert state_of(net) == before


@pytest.mark.parametrize("method", ["fit", "fit afresh", "cost", "evaluate", "compute_gradient"])
@pytest.mark.parametrize(("X", "y", "weight", "error", "message"), BAD_DATA)
def test_bad_data_are_refused(trained, state_of, method, X, y, weight, error, message):
    def call():
        if method.startswith("fit"):
            optimizer = Adam() if method == "fit" else SGD()
            trained.fit(X, y, optimizer=optimizer, epochs=1, sample_weight=weight)
        else:
            getattr(trained, method)(X, y, weight)

    assert_refused(call, error, message, trained, state_of)


@pytest.mark.parametrize("method", ["predict", "forward"])
@pytest.mark.parametrize(("X", "error", "message"), BAD_INPUTS)
def test_bad_inputs_are_refused(trained, state_of, method, X, error, message):
    assert_refused(lambda: getattr(trained, method)(X), error, message, trained, state_of)


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options_are_refused(trained, state_of, options, error, message):
    options = {"optimizer": SGD(), "epochs": 1, **options}
    assert_refused(
        lambda: trained.fit(X_GOOD, LABELS, **options), error, message, trained, state_of
    )


@pytest.mark.parametrize("large", [[1e39], [-1e39], [1e39, -1e39]], ids=str)
def test_numbers_too_large_for_float32_are_named(backend, make_network, large):
    X = quarters((N, N_INPUTS))
    X[3, : len(large)] = large
    message = "X: expected numbers that float32 can hold, got 1e[+]39; use dtype='float64'"
    narrow = make_network(backend, "float32", widths=(N_INPUTS, 3))
    for form in (np.array, sparse.csr_array, np.ndarray.tolist):
        with pytest.raises(ValueError, match=message):
            narrow.predict(form(X))
    wide = make_network(backend, "float64", widths=(N_INPUTS, 3))
    assert np.isfinite(wide.predict(X)).all()


def test_targets_too_large_for_float32_are_named(backend, make_network):
    net = make_network(backend, "float32", widths=(N_INPUTS, 1), output="identity", loss="mse")
    with pytest.raises(ValueError, match=r"y: expected numbers that float32 can hold, got 1e\+300"):
        net.fit(X_GOOD, np.full(N, 1e300))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(N, 2), r"y: expected values in \[0, 1\] for binary_cross_entropy, got 2 to 2"),
        (np.full(N, -1), r"y: expected values in \[0, 1\] for binary_cross_entropy, got -1 to -1"),
        (np.ones((N, 2)), r"y: expected shape \(24, 1\) for 1 outputs, got shape \(24, 2\)"),
    ],
)
def test_targets_of_binary_cross_entropy(backend, dtype, make_network, y, message):
    net = make_network(
        backend, dtype, widths=(N_INPUTS, 1), output="sigmoid", loss="binary_cross_entropy"
    )
    with pytest.raises(ValueError, match=message):
        net.fit(X_GOOD, y)


def test_several_outputs_need_rows(backend, make_network):
    net = make_network(backend, widths=(N_INPUTS, 2), output="identity", loss="mse")
    with pytest.raises(ValueError, match=r"y: expected shape \(24, 2\) .*, got shape \(24,\)"):
        net.fit(X_GOOD, np.ones(N))


def test_one_sample_is_not_a_batch(backend):
    net = Network(2, [Dense(1)], loss="mse", backend=backend)
    with pytest.raises(ValueError, match=r"X: .*one sample: X.reshape\(1, -1\)"):
        net.predict([1, 2])
