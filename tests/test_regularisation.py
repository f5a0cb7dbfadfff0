"""Clipping, class weights, decay and norms of a layer's weights, averages: what a fit promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fastmlp import SGD, Adam, AdamW, Averaged, Callback, Dense, Network
from fastmlp.optimizers import OptimizerState


@pytest.fixture
def problem(backend, make_network, make_data):
    net = make_network(backend)
    return net, *make_data(net, 24)


def copy_of(net):
    twin = Network(5, net.architecture.layers, loss="cross_entropy", dtype=net.architecture.dtype,
                   seed=0, backend=net.backend.name)  # fmt: skip
    twin.arena.flat[:] = net.arena.flat
    return twin


def flat(gradients):
    return np.concatenate([g.ravel() for pair in gradients for g in pair])


# --- Clipping -------------------------------------------------------------------------------------


def test_a_clipped_step_is_the_formula(problem):
    """Plain gradient descent: the change of the parameters is -lr times the clipped gradient."""
    net, X, y = problem
    g = flat(net.compute_gradient(X, y))
    norm = np.linalg.norm(g)
    for limits, expected in [
        ({"clip_value": 0.01}, np.clip(g, -0.01, 0.01)),
        ({"clip_norm": norm / 3}, g / 3),
        ({"clip_norm": 2 * norm}, g),
        (
            {"clip_value": 0.01, "clip_norm": 0.01},
            0.01 * np.clip(g, -0.01, 0.01) / np.linalg.norm(np.clip(g, -0.01, 0.01)),
        ),
    ]:
        twin = copy_of(net)
        before = flat(twin.parameters)
        history = twin.fit(X, y, optimizer=SGD(1.0), epochs=1, batch_size=24, **limits)
        np.testing.assert_allclose(before - flat(twin.parameters), expected, rtol=1e-9, atol=1e-13)
        measured = np.linalg.norm(np.clip(g, -0.01, 0.01)) if "clip_value" in limits else norm
        assert (
            history["gradient_norm"] == pytest.approx([measured])
            if "clip_norm" in limits
            else ("gradient_norm" not in history.records[0])
        )


@pytest.mark.parametrize("batch_size", [1, 8])
def test_limits_that_are_not_reached_change_nothing(problem, batch_size):
    net, X, y = problem
    nets = [net, copy_of(net), copy_of(net)]
    settings = [{}, {"clip_value": 1e6, "clip_norm": 1e6}, {"gradient_norm": True}]
    for twin, setting in zip(nets, settings, strict=True):
        twin.fit(
            X, y, optimizer=SGD(0.1), batch_size=batch_size, epochs=2, shuffle=False, **setting
        )
    for twin in nets[1:]:
        np.testing.assert_allclose(twin.arena.flat, net.arena.flat, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["clip_value", "clip_norm"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "expected a number above 0, got 0"),
        (np.nan, ValueError, "expected a number above 0, got nan"),
        ("1", TypeError, "expected a number or None, got str"),
    ],
)
def test_limits_are_checked(problem, name, value, error, message):
    net, X, y = problem
    with pytest.raises(error, match=f"{name}: {message}"):
        net.fit(X, y, **{name: value})


# --- Class weights --------------------------------------------------------------------------------


def test_class_weights_are_sample_weights(problem):
    net, X, y = problem
    y = np.minimum(y, np.arange(24) % 3)
    own = np.random.default_rng(3).uniform(0.5, 2, 24)
    counts = np.bincount(y, minlength=3)
    balanced = (24 / (3 * counts))[y]
    for class_weight, factors in [
        ({0: 0.5, 2: 3}, np.array([0.5, 1, 3])[y]),
        ("balanced", balanced),
    ]:
        for weight in (None, own):
            nets = copy_of(net), copy_of(net), copy_of(net)
            settings = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 8, "shuffle": False}
            product = factors if weight is None else factors * weight
            nets[0].fit(X, y, sample_weight=product, **settings)
            nets[1].fit(X, y, sample_weight=weight, class_weight=class_weight, **settings)
            rows = np.eye(3)[y]
            nets[2].fit(X, rows, sample_weight=weight, class_weight=class_weight, **settings)
            assert nets[0].arena.flat.tobytes() == nets[1].arena.flat.tobytes()
            np.testing.assert_allclose(nets[2].arena.flat, nets[0].arena.flat, rtol=1e-12)


@pytest.mark.parametrize(
    ("class_weight", "error", "message"),
    [
        ("even", ValueError, "class_weight: expected a dict, 'balanced' or None, got 'even'"),
        ([1, 2, 3], TypeError, "class_weight: expected a dict, 'balanced' or None, got list"),
        ({3: 1}, ValueError, "class_weight: expected labels from 0 to 2, got 3"),
        ({"a": 1}, TypeError, "class_weight: expected labels, got 'a'"),
        ({0: -1}, ValueError, r"class_weight\[0\]: expected at least 0, got -1"),
        ({0: "1"}, TypeError, r"class_weight\[0\]: expected a number, got '1'"),
        ({0: 0, 1: 0, 2: 0}, ValueError, "class_weight: expected weights of at least 0, not all 0"),
    ],
)
def test_class_weights_are_checked(problem, state_of, class_weight, error, message):
    net, X, y = problem
    before = state_of(net)
    with pytest.raises(error, match=message):
        net.fit(X, y, class_weight=class_weight)
    assert state_of(net) == before


def test_losses_without_classes_take_no_class_weights(backend, make_network, make_data):
    net = make_network(backend, output="identity", loss="mse")
    with pytest.raises(ValueError, match="class_weight: expected None for mse"):
        net.fit(*make_data(net, 5), class_weight="balanced")
    net = make_network(backend)
    with pytest.raises(ValueError, match="class_weight: expected None, chunks bring"):
        net.fit([make_data(net, 5)], class_weight="balanced")


# --- Decay and norm of a layer --------------------------------------------------------------------


def test_own_decay_is_in_place_of_the_optimizers(backend, make_data):
    def fitted(optimizer, *decays):
        layers = [Dense(6, "tanh", weight_decay=decays[0]),
                  Dense(3, "softmax", weight_decay=decays[1])]  # fmt: skip
        net = Network(4, layers, loss="cross_entropy", dtype="float64", seed=0, backend=backend)
        return net.fit(*make_data(net, 20), optimizer=optimizer, epochs=2, batch_size=8) and net

    def assert_equal(one, other):
        np.testing.assert_allclose(one.arena.flat, other.arena.flat, rtol=1e-11, atol=1e-14)

    assert_equal(fitted(AdamW(0.1, weight_decay=0.2), None, None), fitted(Adam(0.1), 0.2, 0.2))
    assert_equal(fitted(AdamW(0.1, weight_decay=0.2), 0.0, 0.0), fitted(Adam(0.1), None, None))
    assert_equal(fitted(SGD(0.1, weight_decay=0.2), 0.0, 0.3), fitted(SGD(0.1), None, 0.3))
    mixed = fitted(AdamW(0.1, weight_decay=0.2), None, 0.7)
    assert_equal(mixed, fitted(Adam(0.1), 0.2, 0.7))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_units_stay_within_the_largest_norm(backend, dtype, make_data, batch_size):
    layers = [Dense(6, "tanh", max_norm=0.1), Dense(3, "softmax")]
    net = Network(4, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)
    norms = []

    class Look(Callback):
        def on_epoch_end(self, network, record):
            norms.append(np.linalg.norm(network.parameters[0][0], axis=0))

    net.fit(*make_data(net, 40), optimizer=SGD(0.5), epochs=3, batch_size=batch_size,
            callbacks=[Look()])  # fmt: skip
    assert (np.array(norms) <= 0.1 * (1 + 1e-6)).all()
    assert (norms[0] > 0.0999).any()
    assert np.linalg.norm(net.parameters[1][0], axis=0).max() > 0.1


# --- Averages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_average_is_the_formula(problem, batch_size):
    net, X, y = problem
    twin = copy_of(net)
    average, seen = twin.arena.flat.copy(), []

    class Collect(Callback):
        every_n_steps = 1

        def on_step_end(self, network, record):
            average[:] += (1 - 0.9) * (network.arena.flat - average)

        def on_epoch_end(self, network, record):
            seen.append(average.copy())

    settings = {"epochs": 3, "batch_size": batch_size, "shuffle": False}
    twin.fit(X, y, optimizer=SGD(0.1), callbacks=[Collect()], **settings)
    validated = net.fit(X, y, optimizer=Averaged(SGD(0.1), 0.9), validation_data=(X, y), **settings)
    np.testing.assert_allclose(net.arena.flat, seen[-1], rtol=1e-12, atol=1e-14)
    assert validated["val_loss"][-1] == net.cost(X, y)
    np.testing.assert_allclose(net.optimizer_state.average.flat, twin.arena.flat, rtol=1e-12)


def test_three_averaged_fits_are_one(problem, state_of):
    net, X, y = problem
    twin = copy_of(net)
    optimizer = Averaged(Adam(0.01))
    net.fit(X, y, optimizer=optimizer, epochs=3, batch_size=8)
    for _ in range(3):
        twin.fit(X, y, optimizer=Averaged(Adam(0.01)), epochs=1, batch_size=8)
    assert state_of(net) == state_of(twin)


def test_averages_are_in_training_files(problem, tmp_path, state_of):
    net, X, y = problem
    net.fit(X, y, optimizer=Averaged(Adam(0.01), 0.5), epochs=1, batch_size=8)
    net.save(tmp_path / "net.safetensors", training=True)
    loaded = Network.load(tmp_path / "net.safetensors", backend=net.backend.name)
    assert state_of(loaded) == state_of(net)
    for each in (net, loaded):
        each.fit(X, y, optimizer=Averaged(Adam(0.01), 0.5), epochs=1, batch_size=8)
    assert state_of(loaded) == state_of(net)


def test_an_averages_options_are_checked():
    with pytest.raises(TypeError, match="optimizer: expected an optimizer such as Adam"):
        Averaged("adam")
    with pytest.raises(TypeError, match="optimizer: expected an optimizer such as Adam"):
        Averaged(Averaged(Adam()))
    with pytest.raises(ValueError, match=r"decay: expected a number in \[0, 1\), got 1"):
        Averaged(Adam(), 1)
    with pytest.raises(TypeError, match="decay: expected a number, got str"):
        Averaged(Adam(), "0.9")
    assert Averaged(Adam()) == Averaged(Adam())
    assert Averaged(Adam()) != Averaged(Adam(), 0.9)
    assert dataclasses.replace(Averaged(Adam()), decay=0.5).decay == 0.5


def test_an_average_starts_at_the_parameters(make_network):
    net = make_network("numpy")
    state = OptimizerState(Averaged(SGD()), net.arena)
    assert state.average.flat.tobytes() == net.arena.flat.tobytes()
    assert state.rule_moments == []
