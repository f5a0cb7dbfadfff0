"""Hooks into a fit: when they are called, with what, and what they can end."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import SGD, Adam, Callback, DivergenceError
from fastmlp.history import History


class Recorder(Callback):
    """Notes every call, in a list that several may share; `epoch_end` acts after an epoch."""

    def __init__(self, name="", calls=None, epoch_end=lambda record: None):
        self.name = name
        self.calls = [] if calls is None else calls
        self.epoch_end = epoch_end

    def on_fit_begin(self, network, *, epochs, n_samples):
        self.calls.append((self.name, "begin", epochs, n_samples))

    def on_epoch_end(self, network, record):
        self.calls.append((self.name, "epoch", record["epoch"]))
        return self.epoch_end(record)

    def on_fit_end(self, network, history):
        self.calls.append((self.name, "end", len(history)))


def stop_at(epoch):
    return lambda record: record["epoch"] == epoch


def raise_at(epoch):
    def act(record):
        if record["epoch"] == epoch:
            raise RuntimeError("enough")

    return act


@pytest.fixture
def net(backend, dtype, make_network):
    return make_network(backend, dtype)


@pytest.fixture
def data(net, make_data):
    return make_data(net, 10)


def test_order_of_the_calls(net, data):
    calls = []
    callbacks = [Recorder("a", calls), Recorder("b", calls)]
    net.fit(*data, epochs=2, callbacks=callbacks)
    assert calls == [
        *(("a", "begin", 2, 10), ("b", "begin", 2, 10)),
        *(("a", "epoch", 1), ("b", "epoch", 1), ("a", "epoch", 2), ("b", "epoch", 2)),
        *(("b", "end", 2), ("a", "end", 2)),
    ]


def test_the_base_class_does_nothing(net, data, backend, dtype, make_network, state_of):
    plain = make_network(backend, dtype)
    net.fit(*data, epochs=2, callbacks=[Callback()])
    plain.fit(*data, epochs=2)
    assert state_of(net) == state_of(plain)


def test_hooks_see_the_network_as_it_is_then(net, data):
    states = []

    class Look(Callback):
        def on_fit_begin(self, network, **_):
            states.append((network is net, network.arena.flat.copy()))

        def on_epoch_end(self, network, record):
            states.append((network is net, network.arena.flat.copy()))

    before = net.arena.flat.copy()
    net.fit(*data, epochs=1, callbacks=[Look()])
    assert [is_net for is_net, _ in states] == [True, True]
    np.testing.assert_array_equal(states[0][1], before)
    np.testing.assert_array_equal(states[1][1], net.arena.flat)
    assert states[0][1].tobytes() != states[1][1].tobytes()


def test_true_stops_after_every_callback_has_seen_the_epoch(
    net, data, backend, dtype, make_network, state_of
):
    calls = []
    callbacks = [Recorder("a", calls, stop_at(2)), Recorder("b", calls)]
    history = net.fit(*data, epochs=5, callbacks=callbacks)
    assert len(history) == 2
    assert calls[-4:] == [("a", "epoch", 2), ("b", "epoch", 2), ("b", "end", 2), ("a", "end", 2)]
    shorter = make_network(backend, dtype)
    shorter.fit(*data, epochs=2)
    assert state_of(net) == state_of(shorter)


@pytest.mark.parametrize("answer", [None, False, 0])
def test_other_answers_go_on(net, data, answer):
    history = net.fit(*data, epochs=3, callbacks=[Recorder(epoch_end=lambda record: answer)])
    assert len(history) == 3


def test_an_exception_leaves_the_last_finished_epoch(
    net, data, backend, dtype, make_network, state_of
):
    calls = []
    callbacks = [Recorder("a", calls), Recorder("b", calls, raise_at(2)), Recorder("c", calls)]
    with pytest.raises(RuntimeError, match="enough"):
        net.fit(*data, optimizer=Adam(), epochs=5, callbacks=callbacks)
    assert calls[-5:] == [
        *(("a", "epoch", 2), ("b", "epoch", 2)),
        *(("c", "end", 2), ("b", "end", 2), ("a", "end", 2)),
    ]
    shorter = make_network(backend, dtype)
    shorter.fit(*data, optimizer=Adam(), epochs=2)
    assert state_of(net) == state_of(shorter)
    net.fit(*data, optimizer=Adam(), epochs=1)
    shorter.fit(*data, optimizer=Adam(), epochs=1)
    assert state_of(net) == state_of(shorter)


def test_an_exception_at_the_beginning_ends_what_has_begun(net, data):
    calls = []

    class Refuse(Recorder):
        def on_fit_begin(self, network, **_):
            raise RuntimeError("no")

    before = net.arena.flat.tobytes()
    with pytest.raises(RuntimeError, match="no"):
        net.fit(*data, epochs=2, callbacks=[Recorder("a", calls), Refuse("b", calls)])
    assert calls == [("a", "begin", 2, 10), ("b", "end", 0), ("a", "end", 0)]
    assert net.arena.flat.tobytes() == before


def test_divergence_ends_the_callbacks(net, data):
    recorder = Recorder()
    with pytest.raises(DivergenceError):
        net.fit(*data, optimizer=SGD(lambda step: np.nan), epochs=3, callbacks=[recorder])
    assert recorder.calls == [("", "begin", 3, 10), ("", "end", 0)]


def test_no_epochs(net, data, state_of):
    recorder = Recorder()
    parameters = net.arena.flat.tobytes()
    random_state = repr(net.rng.bit_generator.state)
    history = net.fit(*data, epochs=0, callbacks=[recorder])
    assert isinstance(history, History)
    assert len(history) == 0
    assert recorder.calls == [("", "begin", 0, 10), ("", "end", 0)]
    assert net.arena.flat.tobytes() == parameters
    assert repr(net.rng.bit_generator.state) == random_state
