"""Hooks into a fit: when they are called, with what, and what they can end."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import (
    SGD,
    Adam,
    BatchNorm,
    Callback,
    Dense,
    DivergenceError,
    Dropout,
    Network,
    callbacks,
    training,
)
from fastmlp.callbacks import EarlyStopping, LambdaCallback, TimeBudget
from fastmlp.history import History
from fastmlp.schedules import LinearDecay


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


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Callback(), Callback], r"callbacks\[1\]: expected an instance of Callback, got Callback"),
        ([None], r"callbacks\[0\]: expected an instance of Callback, got NoneType"),
    ],
)
def test_other_objects_are_refused(net, data, state_of, callbacks, message):
    before = state_of(net)
    with pytest.raises(TypeError, match=message):
        net.fit(*data, callbacks=callbacks)
    assert state_of(net) == before


# --- Epochs' beginnings, steps --------------------------------------------------------------------


def test_epochs_begin():
    calls = []
    net = Network(2, [Dense(1)], loss="mse", seed=0)
    hooks = LambdaCallback(
        on_fit_begin=lambda network, epochs, n_samples: calls.append(("fit", epochs, n_samples)),
        on_epoch_begin=lambda network, epoch: calls.append(("begin", epoch)),
        on_epoch_end=lambda network, record: calls.append(("end", record["epoch"])),
        on_fit_end=lambda network, history: calls.append(("fit ends", len(history))),
    )
    for _ in range(2):
        net.fit(np.ones((3, 2)), np.ones(3), epochs=1, callbacks=[hooks])
    assert calls == [
        *(("fit", 1, 3), ("begin", 1), ("end", 1), ("fit ends", 1)),
        *(("fit", 1, 3), ("begin", 2), ("end", 2), ("fit ends", 1)),
    ]


def test_an_end_before_an_epoch(net, data, backend, dtype, make_network, state_of):
    calls = []
    stop = LambdaCallback(on_epoch_begin=lambda network, epoch: epoch == 3)
    history = net.fit(*data, epochs=5, callbacks=[stop, Recorder("a", calls)])
    assert history["epoch"] == [1, 2]
    assert history.stop_reason == "LambdaCallback"
    assert calls[-2:] == [("a", "epoch", 2), ("a", "end", 2)]
    shorter = make_network(backend, dtype)
    shorter.fit(*data, epochs=2)
    assert state_of(net) == state_of(shorter)


def test_divergence_goes_back_to_what_the_epochs_beginning_made(net, data):
    def set_to_one(network, epoch):
        network.arena.views[0][...] = 1

    with pytest.raises(DivergenceError):
        net.fit(
            *data,
            optimizer=SGD(lambda step: np.nan),
            callbacks=[LambdaCallback(on_epoch_begin=set_to_one)],
        )
    assert (net.arena.views[0] == 1).all()


class Steps(Callback):
    """Notes what it is told every `n` steps, and the parameters."""

    def __init__(self, n, act=lambda record: None):
        self.every_n_steps, self.act = n, act
        self.records, self.parameters = [], []

    def on_step_end(self, network, record):
        self.records.append(record)
        self.parameters.append(network.arena.flat.tobytes())
        return self.act(record)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_steps_are_told_and_change_no_bits(
    backend, dtype, make_network, make_data, state_of, kind, batch_size
):
    """Ragged last batch; two callbacks at different steps; a second fit in between two calls.

    Sample by sample, the compiled core takes up several together.
    """
    plain, told = make_network(backend, dtype), make_network(backend, dtype)
    data = make_data(plain, 10)
    settings = {"optimizer": kind(LinearDecay(0.1, 100)), "batch_size": batch_size}
    every = [Steps(2), Callback(), Steps(7), Steps(1)]
    histories = []
    for epochs in (2, 1):
        without = plain.fit(*data, epochs=epochs, **settings)
        histories.append((without, told.fit(*data, epochs=epochs, callbacks=every, **settings)))
    tolerance = 1e-13
    if (backend, kind, batch_size) == ("compiled", SGD, 1):
        tolerance = 1e-13 if dtype == "float64" else 1e-6
        np.testing.assert_allclose(plain.arena.flat, told.arena.flat, tolerance, tolerance)
    else:
        assert state_of(plain) == state_of(told)
    n = -(-10 // batch_size)
    for steps in (every[0], every[2], every[3]):
        expected = [step for step in range(1, 3 * n + 1) if step % steps.every_n_steps == 0]
        assert [record["step"] for record in steps.records] == expected
        assert [record["epoch"] for record in steps.records] == [
            (step - 1) // n + 1 for step in expected
        ]
        assert [r["lr"] for r in steps.records] == [LinearDecay(0.1, 100)(s - 1) for s in expected]
    assert every[3].parameters[-1] == told.arena.flat.tobytes()
    assert every[0].parameters == every[3].parameters[1::2]
    for without, with_steps in histories:
        for name in ("loss", "accuracy", "lr"):
            np.testing.assert_allclose(without[name], with_steps[name], tolerance)


def test_steps_do_not_move_the_masks(backend, dtype, make_data, state_of):
    layers = [Dropout(0.3), Dense(6, "relu"), BatchNorm(), Dropout(0.5), Dense(3, "softmax")]
    nets = [
        Network(5, layers, loss="cross_entropy", seed=0, dtype=dtype, backend=backend)
        for _ in range(2)
    ]
    data = make_data(nets[0], 10)
    for net, hooks in zip(nets, ([], [Steps(2)]), strict=True):
        net.fit(*data, epochs=3, batch_size=3, callbacks=hooks)
    assert state_of(nets[0]) == state_of(nets[1])


def test_the_loss_since_the_last_call(backend, make_network, make_data):
    """Each sample's own loss, as nothing moves: the batches of three epochs, two at a time."""
    net = make_network(backend)
    X, y = make_data(net, 7)
    steps = Steps(2)
    settings = {"optimizer": SGD(0.0), "batch_size": 3, "shuffle": False}
    net.fit(X, y, epochs=2, callbacks=[steps], **settings)
    batches = [(0, 3), (3, 6), (6, 7)] * 2
    for i, record in enumerate(steps.records):
        rows = np.r_[tuple(slice(*batch) for batch in batches[2 * i : 2 * i + 2])]
        assert record["loss"] == pytest.approx(net.cost(X[rows], y[rows]), rel=1e-6)


@pytest.mark.parametrize("stop", [True, False])
def test_an_end_in_the_middle_of_an_epoch(net, data, backend, dtype, make_network, stop):
    """Asked for, or by an exception: the steps until then stay, and the network goes on."""

    def act(record):
        if record["step"] < 5:
            return None
        if stop:
            return True
        raise RuntimeError("enough")

    steps = Steps(1, act)
    settings = {"optimizer": Adam(), "batch_size": 3, "shuffle": False}
    if stop:
        history = net.fit(*data, epochs=9, callbacks=[steps], **settings)
        assert history.stop_reason == "Steps"
        assert history["epoch"] == [1, 2]
        record = history.records[1]
        assert record["samples_per_second"] == 3 / record["seconds"]
        assert record["accuracy"] in (0, 1 / 3, 2 / 3, 1)
    else:
        with pytest.raises(RuntimeError, match="enough"):
            net.fit(*data, epochs=9, callbacks=[steps], **settings)
        assert net.history["epoch"] == [1]
    assert net.arena.flat.tobytes() == steps.parameters[-1]
    assert net.optimizer_state.step == 5
    twin = make_network(backend, dtype)
    X, y = data
    twin.fit(X, y, epochs=1, **settings)
    twin.fit(X[:3], y[:3], epochs=1, **settings)
    assert twin.arena.flat.tobytes() == net.arena.flat.tobytes()
    for each in (net, twin):
        each.fit(*data, epochs=1, **settings)
    assert twin.arena.flat.tobytes() == net.arena.flat.tobytes()


def test_divergence_in_the_middle_of_an_epoch(net, data, state_of):
    settings = {"epochs": 2, "batch_size": 1, "callbacks": [Steps(2)]}
    states = []
    begin = LambdaCallback(on_epoch_begin=lambda network, epoch: states.append(state_of(network)))
    settings["callbacks"].append(begin)
    with pytest.raises(DivergenceError, match="in epoch 2"):
        net.fit(*data, optimizer=SGD(lambda step: np.inf if step == 13 else 0.1), **settings)
    assert state_of(net) == states[1]


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)])
def test_bad_numbers_of_steps_are_refused(net, data, n, error):
    with pytest.raises(error, match=r"callbacks\[1\].every_n_steps: expected"):
        net.fit(*data, callbacks=[Callback(), Steps(n)])


def test_callbacks_of_a_later_order(net, data):
    calls = []

    class Last(Recorder):
        order = 1

    net.fit(*data, epochs=1, callbacks=[Last("last", calls), Recorder("a", calls)])
    assert [name for name, what, *_ in calls if what == "epoch"] == ["a", "last"]


# --- Epochs at once -------------------------------------------------------------------------------


class Patient(Recorder):
    """Needs no look for some epochs."""

    def __init__(self, n, *arguments):
        super().__init__(*arguments)
        self.n = n

    def epochs_at_once(self):
        return self.n

    def on_epoch_begin(self, network, epoch):
        self.calls.append((self.name, "before", epoch))


def test_a_callback_that_need_not_look(net, data, calls_of_the_loop):
    calls = []
    net.fit(*data, epochs=5, callbacks=[Patient(3, "a", calls), Patient(9, "b", calls)])
    assert calls_of_the_loop == [3, 2]
    both = [
        *(("before", 1), ("epoch", 1), ("epoch", 2), ("epoch", 3)),
        *(("before", 4), ("epoch", 4), ("epoch", 5)),
    ]
    assert calls[2:-2] == [(name, *call) for call in both for name in "ab"]
    calls_of_the_loop.clear()
    net.fit(*data, epochs=2, callbacks=[Patient(3), Recorder()])
    hooked = Patient(3)
    hooked.every_n_steps = 1
    net.fit(*data, epochs=2, callbacks=[hooked])
    assert set(calls_of_the_loop) == {1}


def test_it_ends_the_fit_behind_its_epochs(net, data):
    history = net.fit(*data, epochs=9, callbacks=[Patient(3, "", None, stop_at(2))])
    assert (len(history), history.stop_reason) == (3, "Patient")


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (2.5, TypeError)])
def test_no_number_of_epochs_at_once(net, data, n, error):
    with pytest.raises(error, match=r"Patient\.epochs_at_once\(\): expected"):
        net.fit(*data, epochs=5, callbacks=[Patient(n)])
    assert len(net.history) == 0


def test_it_is_told_of_the_epochs_before_an_exception(net, data, monkeypatch):
    """Of those that were finished, behind the steps."""

    def interrupted(run, done, *arguments):
        stretch(run, done, *arguments)
        run.state.step -= 1  # as if the last step had not been
        raise KeyboardInterrupt

    stretch = training._Run._stretch
    monkeypatch.setattr(training._Run, "_stretch", interrupted)
    patient = Patient(3)
    with pytest.raises(KeyboardInterrupt):
        net.fit(*data, epochs=9, callbacks=[patient])
    assert patient.calls[1:] == [
        ("", "before", 1),
        ("", "epoch", 1),
        ("", "epoch", 2),
        ("", "end", 2),
    ]
    assert len(net.history) == 2


# --- Early stopping -------------------------------------------------------------------------------


class Losses(Callback):
    """Writes losses of its own choice into the records, and keeps each epoch's state."""

    def __init__(self, losses, state_of=lambda network: None, name="val_loss"):
        self.losses, self.state_of, self.name = losses, state_of, name
        self.states = []

    def on_epoch_end(self, network, record):
        record[self.name] = self.losses[len(self.states)]
        self.states.append(self.state_of(network))


@pytest.mark.parametrize(
    ("losses", "settings", "n_epochs", "best"),
    [
        ([3, 2, 1, 2, 2, 0, 0, 0], {"patience": 2}, 5, 3),
        ([3, 2, 1, 2, 0, 2, 2, 2], {"patience": 2}, 7, 5),
        ([3, 2.9, 2.8, 2.7, 2.6, 1], {"patience": 3, "min_delta": 0.5}, 4, 1),
        ([np.nan, np.nan, 1, 1, 1, 1], {"patience": 3}, 6, 3),
        ([np.nan] * 6, {"patience": 3}, 3, None),
        ([1, 2, 3, 3, 3, 9], {"patience": 2, "mode": "max"}, 5, 3),
        ([1, 2, 3, 3, 3, 9], {"patience": 2, "monitor": "val_f1"}, 5, 3),
        ([3, 2, 1, 0], {"patience": 1}, 4, 4),
    ],
)
@pytest.mark.parametrize("restore_best", [True, False])
def test_early_stopping(net, data, state_of, losses, settings, n_epochs, best, restore_best):
    record = Losses(losses, state_of, settings.get("monitor", "val_loss"))
    stopping = EarlyStopping(restore_best=restore_best, **settings)
    history = net.fit(*data, epochs=len(losses), callbacks=[record, stopping])
    assert len(history) == n_epochs
    assert stopping.best_epoch == best
    assert stopping.best is None if best is None else stopping.best == losses[best - 1]
    stops = n_epochs < len(losses) or losses[-1:] == [1] or best is None
    assert history.stop_reason == ("EarlyStopping" if stops else "epochs")
    kept = best if restore_best and best is not None else n_epochs
    parameters, random_state, *optimizer = state_of(net)
    assert [parameters, *optimizer] == [record.states[kept - 1][i] for i in (0, 2, 3)]
    assert random_state == record.states[-1][1]
    assert np.isfinite(net.fit(*data, epochs=1)["loss"]).all()


def test_the_best_epoch_is_kept_whoever_ends_the_fit(net, data, state_of):
    for kind in ("epochs", "other"):
        record = Losses([3, 1, 2, 2], state_of)
        others = [Recorder(epoch_end=stop_at(net.history.last_epoch + 3))] * (kind == "other")
        history = net.fit(*data, epochs=4, callbacks=[record, EarlyStopping(), *others])
        assert history.stop_reason == ("Recorder" if others else "epochs")
        assert net.arena.flat.tobytes() == record.states[1][0]


def test_an_exception_keeps_the_last_epoch(net, data, state_of):
    record = Losses([1, 2, 2], state_of)
    with pytest.raises(RuntimeError):
        net.fit(*data, callbacks=[EarlyStopping(), record, Recorder(epoch_end=raise_at(3))])
    assert state_of(net) == record.states[2]


def test_early_stopping_begins_anew_with_each_fit(net, data):
    stopping = EarlyStopping(patience=2)
    for _ in range(2):
        assert len(net.fit(*data, epochs=9, callbacks=[Losses([1, 1, 1]), stopping])) == 3


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience: expected at least 1, got 0"),
        ({"patience": 1.5}, TypeError, "patience: expected an integer, got float"),
        ({"min_delta": -1}, ValueError, "min_delta: expected"),
        ({"mode": "up"}, ValueError, "mode: expected"),
    ],
)
def test_bad_settings_of_early_stopping(settings, error, message):
    with pytest.raises(error, match=message):
        EarlyStopping(**settings)


def test_early_stopping_says_what_it_misses(net, data):
    with pytest.raises(ValueError, match="monitor: 'val_accuracy' was not recorded; recorded: epo"):
        net.fit(*data, callbacks=[EarlyStopping("val_accuracy")])
    assert net.history.last_epoch == 1


# --- Time -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where the test says so."""
    now = [100.0]
    monkeypatch.setattr(callbacks, "perf_counter", lambda: now[0])
    return now


def pass_time(clock, **hook):
    (name,) = hook

    def tick(*_):
        clock[0] += hook[name]

    return LambdaCallback(**{name: tick}, every_n_steps=1 if name == "on_step_end" else None)


def test_time_budget(net, data, clock):
    slow = pass_time(clock, on_epoch_end=10)
    history = net.fit(*data, epochs=9, callbacks=[slow, TimeBudget(25)])
    assert (len(history), history.stop_reason) == (3, "TimeBudget")
    assert len(net.fit(*data, epochs=9, callbacks=[slow, TimeBudget(25)])) == 3
    assert len(net.fit(*data, epochs=2, callbacks=[slow, TimeBudget(25)])) == 2


def test_time_budget_within_an_epoch(net, data, clock):
    slow = pass_time(clock, on_step_end=10)
    budget = TimeBudget(65, every_n_steps=2)
    net.fit(*data, epochs=9, batch_size=1, callbacks=[slow, budget])
    assert net.optimizer_state.step == 8
    assert net.history["epoch"] == [1]


@pytest.mark.parametrize("seconds", [-1, np.nan, np.inf])
def test_bad_budgets(seconds):
    with pytest.raises(ValueError, match="seconds: expected a number in"):
        TimeBudget(seconds)
