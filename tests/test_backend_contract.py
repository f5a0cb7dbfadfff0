"""Every backend is the protocol of backends/base.py: the same functions, the same meaning."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp import SGD, Adam
from fastmlp.backends import base, get_backend
from fastmlp.backends.base import EpochResults, TrainingData
from fastmlp.optimizers import OptimizerState

# What a backend has beside the protocol.
EXTRAS = {"numpy": set(), "compiled": {"describe"}}


def public_functions(cls):
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


PROTOCOL = public_functions(base.Backend)


def shape_of(function):
    """Names, order, kinds and defaults of the parameters."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def test_the_protocol_is_small():
    assert 0 < len(PROTOCOL) <= 12


def test_functions_and_signatures(backend):
    functions = public_functions(type(get_backend(backend)))
    assert set(functions) - set(PROTOCOL) == EXTRAS[backend]
    for name, function in PROTOCOL.items():
        assert shape_of(functions[name]) == shape_of(function), name
    assert get_backend(backend).name == backend


def test_a_backend_is_made_once(backend):
    assert get_backend(backend) is get_backend(backend)


@pytest.fixture
def trainer_and_network(backend, dtype, make_network, make_data):
    """``trainer_and_network(optimizer, batch_size)`` over 20 samples, and their X and y."""

    def make(optimizer, batch_size, weight=None):
        net = make_network(backend, dtype)
        X, y = make_data(net, 20)
        state = OptimizerState(optimizer, net.arena)
        data = TrainingData(X, y, weight, batch_size)
        return net.backend.trainer(net.architecture, net.arena, state, data), net, state, X, y

    return make


def test_trainers_and_predictors_have_the_protocols_signatures(trainer_and_network):
    trainer, net, *_ = trainer_and_network(SGD(), 4)
    assert shape_of(trainer.epochs) == shape_of(base.Trainer.epochs)[1:]
    assert shape_of(trainer.bind) == shape_of(base.Trainer.bind)[1:]
    assert set(public_functions(type(trainer))) == {"bind", "epochs"}
    assert shape_of(type(net.predictor).__call__) == shape_of(base.Predictor.__call__)
    assert shape_of(net.predictor.predict_few) == shape_of(base.Predictor.predict_few)[1:]
    assert set(public_functions(type(net.predictor))) <= {"predict_few"}


# --- The same meaning -----------------------------------------------------------------------------


def padded(shape, pad, dtype, rng=None):
    """A matrix whose rows lie `pad` elements apart, and the buffer around it, NaN elsewhere."""
    buffer = np.full((shape[0], shape[1] + pad), np.nan, dtype)
    view = buffer[:, : shape[1]]
    if rng is not None:
        view[...] = rng.standard_normal(shape)
    return view, buffer


def assert_close(actual, buffer, expected, magnitude, n_terms):
    """Within the rounding of a sum of n_terms products; nothing written between the rows."""
    bound = (n_terms + 2) * np.finfo(actual.dtype).eps * magnitude
    assert (np.abs(actual.astype(np.float64) - expected) <= bound).all()
    assert np.isnan(buffer[:, actual.shape[1] :]).all()


@given(
    n=st.integers(1, 30),
    n_in=st.integers(1, 40),
    n_out=st.integers(1, 40),
    pad=st.sampled_from([0, 1, 7]),
    want_dX=st.booleans(),
)
def test_affine(backend, dtype, n, n_in, n_out, pad, want_dX):
    rng = np.random.default_rng(0)
    kernels = get_backend(backend)
    X, W, dZ = (padded(s, pad, dtype, rng)[0] for s in [(n, n_in), (n_in, n_out), (n, n_out)])
    b = rng.standard_normal(n_out).astype(dtype)
    inputs = [array.tobytes() for array in (X, W, b, dZ)]
    X64, W64, dZ64 = (array.astype(np.float64) for array in (X, W, dZ))

    Z, around_Z = padded((n, n_out), pad, dtype)
    kernels.affine_forward(X, W, b, Z)
    magnitude = np.abs(X64) @ np.abs(W64) + np.abs(b)
    assert_close(Z, around_Z, X64 @ W64 + b, magnitude, n_in)

    dW, around_dW = padded((n_in, n_out), pad, dtype)
    dX, around_dX = padded((n, n_in), pad, dtype)
    db = np.full(n_out, np.nan, dtype)
    kernels.affine_backward(X, W, dZ, dW, db, dX if want_dX else None)
    assert_close(dW, around_dW, X64.T @ dZ64, np.abs(X64).T @ np.abs(dZ64), n)
    assert_close(db[None], db[None], dZ64.sum(axis=0), np.abs(dZ64).sum(axis=0), n)
    if want_dX:
        assert_close(dX, around_dX, dZ64 @ W64.T, np.abs(dZ64) @ np.abs(W64).T, n_out)
    assert [array.tobytes() for array in (X, W, b, dZ)] == inputs


def test_matrices_beyond_one_block(backend, dtype):
    rng = np.random.default_rng(0)
    X, W = (
        rng.standard_normal((130, 700)).astype(dtype),
        rng.standard_normal((700, 300)).astype(dtype),
    )
    b, dZ = np.zeros(300, dtype), rng.standard_normal((130, 300)).astype(dtype)
    Z, dW, db, dX = np.empty_like(dZ), np.empty_like(W), np.empty_like(b), np.empty_like(X)
    get_backend(backend).affine_forward(X, W, b, Z)
    get_backend(backend).affine_backward(X, W, dZ, dW, db, dX)
    tolerance = {"rtol": 0, "atol": 1e-3 if dtype == "float32" else 1e-11}
    np.testing.assert_allclose(Z, X.astype("f8") @ W.astype("f8"), **tolerance)
    np.testing.assert_allclose(dW, X.T.astype("f8") @ dZ.astype("f8"), **tolerance)
    np.testing.assert_allclose(dX, dZ.astype("f8") @ W.T.astype("f8"), **tolerance)


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_epoch_takes_the_samples_in_the_order_given(
    trainer_and_network, make_network, backend, dtype, optimizer, batch_size
):
    """Some of them, some twice; and one rate a step."""
    trainer, net, state, X, y = trainer_and_network(optimizer, batch_size)
    order = np.array([7, 3, 3, 19, 0, 7, 11])
    n_steps = -(-len(order) // batch_size)
    rates = np.linspace(0.01, 0.1, n_steps)
    result = trainer.epochs(order, rates)
    assert type(result) is EpochResults
    assert state.step == n_steps

    fitted = make_network(backend, dtype)
    scheduled = type(optimizer)(lambda step: rates[step])
    history = fitted.fit(
        X[order], y[order], optimizer=scheduled, epochs=1, batch_size=batch_size, shuffle=False
    )
    assert net.arena.flat.tobytes() == fitted.arena.flat.tobytes()
    assert result.loss == history["loss"][0]
    assert result.correct / len(order) == history["accuracy"][0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_epoch_returns_the_weighted_loss_and_the_hits(trainer_and_network, batch_size):
    weight = np.random.default_rng(1).uniform(0, 2, 20)
    trainer, net, _, X, y = trainer_and_network(SGD(), batch_size, weight)
    result = trainer.epochs(np.arange(20), np.zeros(-(-20 // batch_size)))
    np.testing.assert_allclose(result.loss, net.cost(X, y, weight), rtol=1e-6)
    assert result.correct == (net.predict(X).argmax(axis=1) == y).sum()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_epoch_stops_where_the_loss_is_not_finite(trainer_and_network, batch_size):
    """At that batch; whether it has still moved the weights is left open."""
    trainer, _, state, X, _ = trainer_and_network(SGD(), batch_size)
    X[6] = np.nan
    result = trainer.epochs(np.arange(20), np.full(-(-20 // batch_size), 0.1))
    assert not np.isfinite(result.loss)
    assert 6 // batch_size <= state.step <= 6 // batch_size + 1


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize("want_Z", [True, False])
def test_predictor(backend, dtype, make_network, make_data, pad, want_Z):
    net = make_network(backend, dtype)
    X, _ = make_data(net, 33)
    predictor = net.backend.predictor(net.architecture, net.arena)
    out, around_out = padded((33, 3), pad, dtype)
    Z, around_Z = padded((33, 3), pad, dtype)
    predictor(X, out, Z if want_Z else None)
    A, cache = net.forward(X, return_cache=True)
    tolerance = {"rtol": 1e-5 if dtype == "float32" else 1e-13, "atol": 0}
    np.testing.assert_allclose(out, A, **tolerance)
    assert np.isnan(around_out[:, 3:]).all()
    if want_Z:
        np.testing.assert_allclose(Z, cache[-1].Z, rtol=tolerance["rtol"], atol=1e-6)
        assert np.isnan(around_Z[:, 3:]).all()
    net.arena.flat[:] = 0
    predictor(X, out)
    np.testing.assert_allclose(out, np.full((33, 3), 1 / 3), rtol=1e-6)


def test_few_rows_are_predicted_or_left_to_others(backend, dtype, make_network, make_data):
    net = make_network(backend, dtype)
    X, _ = make_data(net, 5)
    few = net.predictor.predict_few(X)
    if few is not None:
        np.testing.assert_array_equal(few, net.forward(X))
        assert few.dtype == dtype
    assert net.predictor.predict_few(X.tolist()) is None
    np.testing.assert_array_equal(net.predict(X), net.predict(X.tolist()))


def test_at_least_one_thread(backend):
    assert get_backend(backend).thread_limit() >= 1


@given(n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_a_shuffle_has_the_draws_of_random_state(backend, n, seed):
    expected, drawn = np.random.RandomState(seed), np.random.RandomState(seed)
    order, shuffled = np.arange(n), np.arange(n, dtype=np.intp)
    for _ in range(3):
        expected.shuffle(order)
        get_backend(backend).shuffle(drawn, shuffled)
    np.testing.assert_array_equal(shuffled, order)
    assert drawn.randint(1 << 31) == expected.randint(1 << 31)


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64, np.random.SFC64])
def test_a_shuffle_of_every_bit_generator(backend, generator):
    expected, drawn = (np.random.RandomState(generator(5)) for _ in range(2))
    order, shuffled = np.arange(1000), np.arange(1000, dtype=np.intp)
    expected.shuffle(order)
    get_backend(backend).shuffle(drawn, shuffled)
    np.testing.assert_array_equal(shuffled, order)
    assert drawn.randint(1 << 31) == expected.randint(1 << 31)


def test_an_order_of_nothing_is_refused():
    orders = pytest.importorskip("fastmlp._core.orders")
    with pytest.raises(ValueError, match=r"order: expected 1 to 2\^32 - 1 numbers"):
        orders.shuffle(np.random.MT19937(), np.zeros(0, np.intp))
