"""Learning-rate schedules: each against its formula in plain Python, alone and in a fit."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmlp import SGD, Adagrad, Adam, AdamW, Nadam, RMSprop
from fastmlp.schedules import (
    SCHEDULES,
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    LinearDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)


def cosine(s, top, t):
    """Walks through the cycles one by one."""
    start, length, cycle = 0, s.n_steps, 0
    while t >= start + length:
        start, length, cycle = start + length, length * s.growth, cycle + 1
    if s.cycles is not None and cycle >= s.cycles:
        return s.end
    return s.end + (top - s.end) * (1 + math.cos(math.pi * (t - start) / length)) / 2


def one_cycle(s, t):
    last = max(s.n_steps - 1, 1)
    top = s.rise * last
    low, end = s.lr / s.divisor, s.lr / s.final_divisor
    if t < top:
        return low + (s.lr - low) * (1 - math.cos(math.pi * t / top)) / 2
    share = min((t - top) / (last - top), 1) if last > top else float(t > top)
    return end + (s.lr - end) * (1 + math.cos(math.pi * share)) / 2


def warm_up(s, t):
    target = s.schedule if isinstance(s.schedule, float) else s.schedule(max(t - s.n_steps, 0))
    return target * (t + 1) / (s.n_steps + 1) if t < s.n_steps else target


EXAMPLES = [
    (Constant(0.3), lambda s, t: 0.3),
    (StepDecay(0.8, 7, 0.5), lambda s, t: 0.8 * 0.5 ** (t // 7)),
    (ExponentialDecay(0.8, 9, 0.3), lambda s, t: 0.8 * 0.3 ** (t / 9)),
    (InverseScaling(0.8, 5, 0.7), lambda s, t: 0.8 / (1 + t / 5) ** 0.7),
    (InverseScaling(0.8), lambda s, t: 0.8 / math.sqrt(1 + t)),
    (LinearDecay(0.8, 40), lambda s, t: max(0.8 * (1 - t / 40), 0)),
    (LinearDecay(0.2, 40, 0.8), lambda s, t: min(0.2 + 0.6 * t / 40, 0.8)),
    (CosineDecay(0.8, 40), lambda s, t: cosine(s, 0.8, t)),
    (CosineDecay(0.8, 10, cycles=None, end=0.1), lambda s, t: cosine(s, 0.8, t)),
    (CosineDecay(0.8, 3, cycles=4, growth=2), lambda s, t: cosine(s, 0.8, t)),
    (CosineDecay(0.8, 5, cycles=None, growth=3), lambda s, t: cosine(s, 0.8, t)),
    (OneCycle(0.8, 50), one_cycle),
    (OneCycle(0.8, 50, rise=0.0), one_cycle),
    (OneCycle(0.8, 50, rise=1.0, divisor=10, final_divisor=2), one_cycle),
    (OneCycle(0.8, 1), one_cycle),
    (WarmUp(0.8, 6), warm_up),
    (WarmUp(CosineDecay(0.8, 30), 6), warm_up),
    (WarmUp(WarmUp(OneCycle(0.8, 30), 3), 4), warm_up),
    (ReduceOnPlateau(0.8), lambda s, t: 0.8),
]
every_schedule = pytest.mark.parametrize(
    ("schedule", "formula"), EXAMPLES, ids=lambda value: getattr(value, "__name__", str(value))
)


def test_every_schedule_has_an_example():
    assert {type(schedule).__name__ for schedule, _ in EXAMPLES} == set(SCHEDULES)


@every_schedule
def test_formula(schedule, formula):
    expected = [formula(schedule, t) for t in range(200)]
    np.testing.assert_allclose(SGD(schedule).rates(0, 200), expected, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("growth", [2, 3, 7])
@pytest.mark.parametrize("n_steps", [1, 3, 10, 1000])
def test_cosine_restarts_at_the_very_step(n_steps, growth):
    """Where logarithms of powers are a rounding off, too."""
    schedule = CosineDecay(0.8, n_steps, cycles=None, growth=growth)
    start, length = 0, n_steps
    while start < 10**12:
        assert schedule(start) == 0.8
        if length > 1:
            assert schedule(start + length - 1) < 0.8
        start, length = start + length, length * growth


@every_schedule
@given(first=st.integers(0, 300), n=st.integers(1, 70), cut=st.integers(0, 70))
def test_a_rate_is_the_same_bits_however_the_steps_are_asked_for(schedule, formula, first, n, cut):
    """A fit asks an epoch at a time, or a part of one."""
    optimizer, cut = SGD(schedule), min(cut, n)
    whole = optimizer.rates(first, n)
    parts = [optimizer.rates(first, cut), optimizer.rates(first + cut, n - cut)]
    assert whole.dtype == np.float64
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert whole.tolist() == [schedule(first + i) for i in range(n)]


@every_schedule
def test_descriptions_are_json(schedule, formula):
    description = json.loads(json.dumps(schedule.describe()))
    assert description.pop("name") == type(schedule).__name__
    if isinstance(description.get("schedule"), dict):
        assert description["schedule"] == schedule.schedule.describe()
        description["schedule"] = schedule.schedule
    assert type(schedule)(**description) == schedule
    assert json.dumps(Adam(StepDecay(np.float32(0.5), np.int64(3))).describe())


@pytest.mark.parametrize("kind", [SGD, RMSprop, Adagrad, Adam, AdamW, Nadam])
def test_every_optimizer_takes_them(backend, dtype, make_network, make_data, state_of, kind):
    """The rates of the schedule are those of a function that gives the same numbers."""
    schedule = WarmUp(CosineDecay(0.1, 5), 2)
    nets = [make_network(backend, dtype) for _ in range(2)]
    X, y = make_data(nets[0], 10)
    rates = []
    for net, lr in zip(nets, (schedule, lambda step: schedule(step)), strict=True):
        history = net.fit(X, y, optimizer=kind(lr), epochs=3, batch_size=4)
        rates.append(history["lr"])
    assert state_of(nets[0]) == state_of(nets[1])
    assert rates[0] == rates[1] == [schedule(step) for step in (2, 5, 8)]


def test_repeated_fits_go_on_with_the_steps(backend, make_network, make_data, state_of):
    once, thrice = make_network(backend), make_network(backend)
    X, y = make_data(once, 10)
    settings = {"optimizer": SGD(OneCycle(0.5, 9)), "batch_size": 4}
    once.fit(X, y, epochs=3, **settings)
    for _ in range(3):
        thrice.fit(X, y, epochs=1, **settings)
    assert state_of(once) == state_of(thrice)


def falls_of(schedule, losses):
    """Epoch by epoch: the rate, as often as the schedule was shown a loss."""
    state, rates = schedule.initial_state(), []
    for loss in losses:
        json.dumps(state)
        rates.append(float(schedule.rates(np.zeros(1), state)[0]))
        state = schedule.observe(state, {"loss": loss})
    return rates


def test_plateau():
    schedule = ReduceOnPlateau(1.0, factor=0.5, patience=2, min_delta=0.1)
    assert falls_of(schedule, [5, 4, 3.95, 3.92, 4, 4, 3, 3, 3, 0]) == [
        *(1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125)
    ]
    assert falls_of(schedule, [1, np.nan, np.nan, 0.5]) == [1, 1, 1, 0.5]


def test_plateau_cools_down_and_has_an_end():
    schedule = ReduceOnPlateau(1.0, factor=0.5, patience=1, cooldown=2, end=0.3)
    assert falls_of(schedule, [1] * 9) == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


def test_plateau_watches_what_it_is_told():
    schedule = ReduceOnPlateau(1.0, patience=1, monitor="val_accuracy")
    state = schedule.observe(schedule.initial_state(), {"loss": 1.0, "val_accuracy": 0.5})
    assert schedule.observe(state, {"loss": 2.0, "val_accuracy": 0.6})["falls"] == 0
    assert schedule.observe(state, {"loss": 0.5, "val_accuracy": 0.5})["falls"] == 1
    with pytest.raises(ValueError, match="monitor: 'val_accuracy' was not recorded"):
        schedule.observe(state, {"loss": 1.0})


@pytest.mark.parametrize("warm", [False, True])
def test_plateau_in_fits(backend, make_network, make_data, warm):
    """Nothing improves by 100; a second fit goes on where the first ended."""
    net = make_network(backend)
    X, y = make_data(net, 8)
    schedule = ReduceOnPlateau(0.5, factor=0.5, patience=2, min_delta=100)
    optimizer = SGD(WarmUp(schedule, 2) if warm else schedule)
    rates = []
    for _ in range(3):
        rates += net.fit(X, y, optimizer=optimizer, epochs=2, batch_size=4)["lr"]
    assert rates == pytest.approx([0.5 * 2 / 3 if warm else 0.5, 0.5, 0.5, 0.25, 0.25, 0.125])


@dataclass(frozen=True)
class Halving(Schedule):
    lr: float
    names: tuple = ("of no interest",)

    def values(self, t):
        return self.lr / 2**t


def test_one_of_your_own():
    assert Adam(WarmUp(Halving(1.0), 1)).rates(0, 4).tolist() == [0.5, 1, 0.5, 0.25]
    with pytest.raises(NotImplementedError, match="Schedule does not say its values"):
        Schedule()(0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Constant("0.1"), TypeError, "lr: expected a number, got str"),
        (lambda: Constant(None), TypeError, "lr: expected a number, got NoneType"),
        (lambda: Constant(True), TypeError, "lr: expected a number, got bool"),
        (lambda: Constant(-1), ValueError, r"lr: expected a number in \[0, inf\), got -1"),
        (lambda: Constant(np.nan), ValueError, "lr: expected a number in"),
        (lambda: Constant(np.inf), ValueError, "lr: expected a number in"),
        (lambda: StepDecay(1.0, 2.5), TypeError, "every: expected an integer, got float"),
        (lambda: StepDecay(1.0, 0), ValueError, r"every: expected an integer in \[1, inf\), got 0"),
        (lambda: StepDecay(1, 1, 1.5), ValueError, r"factor: expected a number in \[0, 1\]"),
        (lambda: CosineDecay(1, None), TypeError, "n_steps: expected an integer, got NoneType"),
        (lambda: CosineDecay(1, 1, cycles=0), ValueError, "cycles: expected an integer in"),
        (lambda: CosineDecay(1, 1, growth=0), ValueError, "growth: expected an integer in"),
        (lambda: OneCycle(1, 9, divisor=0.5), ValueError, r"divisor: expected a number in \[1"),
        (lambda: WarmUp("cosine", 3), TypeError, "schedule: expected a number, got str"),
        (lambda: WarmUp(-0.1, 3), ValueError, "schedule: expected a number in"),
        (lambda: ReduceOnPlateau(1, mode="down"), ValueError, "mode: expected 'auto', 'min' or"),
        (lambda: ReduceOnPlateau(1, patience=0), ValueError, "patience: expected an integer"),
    ],
)
def test_bad_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
