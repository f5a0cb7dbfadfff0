"""Dropout, LayerNorm and BatchNorm in networks: gradients, training, files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastmlp import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Dense,
    Dropout,
    LayerNorm,
    Network,
    check_gradient,
)
from fastmlp.layers import TrainingPass

STACKS = {
    "dropout": [Dropout(0.2), Dense(6, "tanh"), Dropout(0.5), Dense(3, "softmax")],
    "layer norm": [LayerNorm(), Dense(6), LayerNorm("silu"), Dense(3, "softmax", l2=0.1)],
    "batch norm": [BatchNorm(), Dense(6), BatchNorm("silu"), Dense(3, "softmax")],
    "norms at the end": [Dense(5, "tanh"), BatchNorm(), Dense(3), LayerNorm(), Dropout(0.1),
                         Dense(3), BatchNorm("softmax")],
}  # fmt: skip
stack = pytest.mark.parametrize("layers", STACKS.values(), ids=STACKS)


def network(layers, backend="auto", dtype="float64", n_inputs=4, loss="cross_entropy", seed=0):
    net = Network(n_inputs, layers, loss=loss, dtype=dtype, seed=seed, backend=backend)
    rng = np.random.default_rng(1)
    for values in net.parameters:
        for array in values:
            array += rng.normal(0, 0.2, array.shape)
    return net


@stack
def test_gradients(backend, make_data, layers):
    net = network(layers, backend)
    X, y = make_data(net, 9)
    weight = np.random.default_rng(0).uniform(0.5, 2, 9)
    assert check_gradient(net, X, y, weight) < 1e-6


@stack
def test_gradients_of_predictions(backend, make_data, layers):
    """Those of `evaluate`'s loss, with running statistics and without masks."""
    net = network(layers, backend)
    X, y = make_data(net, 9)
    net.fit(X, y, optimizer=SGD(0.01), epochs=2, batch_size=4)
    analytic = net.compute_gradient(X, y)
    for values, gradients in zip(net.parameters, analytic, strict=True):
        for w, g in zip(values, gradients, strict=True):
            i = np.unravel_index(np.abs(g).argmax(), g.shape)
            value = w[i]
            w[i] = value + 1e-6
            above = net.cost(X, y)
            w[i] = value - 1e-6
            below = net.cost(X, y)
            w[i] = value
            assert (above - below) / 2e-6 == pytest.approx(g[i], rel=1e-5, abs=1e-9)


@stack
def test_backends_agree(dtype, make_data, layers):
    pytest.importorskip("fastmlp._core.minibatch")
    nets = [network(layers, backend, dtype) for backend in ("numpy", "compiled")]
    X, y = make_data(nets[0], 50)
    histories = [
        net.fit(X, y, optimizer=SGD(0.1, momentum=0.5), epochs=3, batch_size=16) for net in nets
    ]
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10}
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], **tolerance)
    np.testing.assert_allclose(nets[0].arena.flat, nets[1].arena.flat, **tolerance)
    np.testing.assert_allclose(nets[0].predict(X), nets[1].predict(X), **tolerance)


@stack
def test_predictions_are_the_formula(backend, dtype, make_data, layers):
    net = network(layers, backend, dtype)
    X, y = make_data(net, 20)
    net.fit(X, y, optimizer=Adam(), epochs=2, batch_size=8)
    rtol = 1e-4 if dtype == "float32" else 1e-12
    out = net.predict(X)
    np.testing.assert_allclose(out, net.apply(net.parameters, X), rtol=rtol)
    np.testing.assert_allclose(out, net.forward(X), rtol=rtol)
    np.testing.assert_allclose(out[3:5], net.predict(X[3:5]), rtol=rtol)


@stack
def test_files_copies_and_pickles_keep_everything(backend, make_data, tmp_path, layers):
    net = network(layers, backend)
    X, y = make_data(net, 20)
    net.fit(X, y, epochs=2, batch_size=8)
    net.save(tmp_path / "net.safetensors")
    copies = [
        Network.load(tmp_path / "net.safetensors", backend=backend),
        pickle.loads(pickle.dumps(net)),
        net.astype("float64"),
    ]
    for copy in copies:
        assert copy.architecture == net.architecture
        assert copy.predict(X).tobytes() == net.predict(X).tobytes()
        assert len(copy.parameters) == len(layers)
    for layer in layers:
        assert type(layer).__name__ in repr(net)


@stack
def test_three_fits_are_one_also_from_a_file(backend, make_data, tmp_path, state_of, layers):
    net, twin = (network(layers, backend) for _ in range(2))
    X, y = make_data(net, 20)
    net.fit(X, y, optimizer=Adam(), epochs=3, batch_size=8)
    for _ in range(3):
        twin.fit(X, y, optimizer=Adam(), epochs=1, batch_size=8)
        twin.save(tmp_path / "net.safetensors", training=True)
        twin = Network.load(tmp_path / "net.safetensors", backend=backend)
    assert state_of(net) == state_of(twin)


class EveryStep(Callback):
    every_n_steps = 1

    def on_step_end(self, network, record):
        pass


def test_masks_do_not_depend_on_where_an_epoch_is_cut(backend, make_data, tmp_path, state_of):
    layers = STACKS["dropout"]
    nets = [network(layers, backend, "float32") for _ in range(3)]
    X, y = make_data(nets[0], 50)
    np.save(tmp_path / "X.npy", X)
    settings = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 8}
    nets[0].fit(X, y, **settings)
    nets[1].fit(X, y, callbacks=[EveryStep()], **settings)
    nets[2].fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y, **settings)
    assert state_of(nets[0]) == state_of(nets[1]) == state_of(nets[2])


def test_masks_do_not_depend_on_the_batch_size(backend, make_data):
    """With a rate of 0 nothing changes: the loss of an epoch shows the masks alone."""
    losses = []
    for batch_size in (1, 7, 50):
        net = network(STACKS["dropout"], backend)
        X, y = make_data(net, 50)
        history = net.fit(X, y, optimizer=SGD(0.0), epochs=2, batch_size=batch_size)
        losses.append(history["loss"])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-12)
    assert losses[0][0] != losses[0][1]
    assert losses[0][0] != pytest.approx(net.cost(X, y), rel=1e-3)


def test_dropout_keeps_the_mean(backend):
    net = Network(1000, [Dropout(0.4), Dense(1)], loss="mse", dtype="float64", backend=backend)
    W, _ = net.parameters[1]
    W[...] = 1 / 1000
    X = np.ones((200, 1000))
    caches = net._forward(X, TrainingPass(seed=3))
    assert caches[-1].A.mean() == pytest.approx(1, abs=5 * np.sqrt(0.4 / 0.6 / 200000))
    assert net.predict(X) == pytest.approx(1)


def test_running_statistics(backend, dtype):
    """Momentum 1: those of the last batch; a batch of one sample leaves them alone."""
    net = Network(3, [BatchNorm(momentum=1), Dense(1)], loss="mse", dtype=dtype, backend=backend)
    X = np.random.default_rng(0).normal(2, 3, (9, 3)).astype(dtype)
    net.fit(X, np.ones(9), optimizer=SGD(0.1), epochs=1, batch_size=4, shuffle=False)
    _, _, mean, variance = net.arena.groups()[0]
    rtol = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(mean, X[4:8].mean(axis=0), rtol=rtol)
    np.testing.assert_allclose(variance, X[4:8].var(axis=0, ddof=1), rtol=rtol)
    assert len(net.parameters[0]) == 2


def test_normalised_outputs(backend, dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(5, 3, (40, 6)).astype(dtype)
    net = Network(6, [BatchNorm(), LayerNorm(), Dense(1)], loss="mse", dtype=dtype, backend=backend)
    caches = net._forward(X, TrainingPass())
    atol = 1e-4
    np.testing.assert_allclose(caches[0].A.mean(axis=0), 0, atol=atol)
    np.testing.assert_allclose(caches[0].A.std(axis=0), 1, atol=atol)
    np.testing.assert_allclose(caches[1].A.mean(axis=1), 0, atol=atol)
    np.testing.assert_allclose(caches[1].A.std(axis=1), 1, atol=atol)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dropout(1), ValueError, r"rate: expected a number in \[0, 1\), got 1"),
        (lambda: Dropout("0.5"), TypeError, "rate: expected a number, got str"),
        (lambda: LayerNorm("relux"), ValueError, "activation: expected one of"),
        (lambda: LayerNorm(epsilon=0), ValueError, "epsilon: expected a number above 0"),
        (lambda: BatchNorm(momentum=0), ValueError, r"momentum: expected a number in \(0, 1\]"),
        (lambda: BatchNorm(momentum=1.5), ValueError, r"momentum: expected a number in \(0, 1\]"),
        (
            lambda: Network(3, [Dense(2), Dropout(0.1)], loss="mse"),
            ValueError,
            "layers: expected an output layer as the last one, got Dropout",
        ),
    ],
)
def test_options_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()
