"""Learning-rate schedules: one record each, the rate as a function of the step.

``t`` is the number of the step, from 0, over all fits that go on with the same optimizer. An epoch
has ``ceil(n_samples / batch_size)`` steps. What a schedule has to remember (`ReduceOnPlateau` alone
does) is kept beside the optimizer's moments, not in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from fastmlp.monitor import Monitor

__all__ = [
    "SCHEDULES",
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "InverseScaling",
    "LinearDecay",
    "OneCycle",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "WarmUp",
]

Array = np.ndarray
State = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules. One of your own is a frozen dataclass with a method ``values(t)``.

    Raises
    ------
    TypeError, ValueError
        For a parameter that is no number of its range.
    """

    # Parameters with other ranges than [0, inf).
    from_one: ClassVar[tuple[str, ...]] = ()
    up_to_one: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            kinds = getattr(field.type, "__name__", str(field.type)).split(" | ")
            value = getattr(self, field.name)
            if "Schedule" in kinds and isinstance(value, Schedule):
                continue
            if "None" in kinds and value is None:
                continue
            if kinds[0] in ("int", "float"):
                self._check_number(field.name, value, whole=kinds[0] == "int")

    def _check_number(self, name: str, value: Any, whole: bool) -> None:
        kind = "an integer" if whole else "a number"
        numbers = (int, np.integer) if whole else (int, float, np.number)
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise TypeError(f"{name}: expected {kind}, got {type(value).__name__}")
        low, high = int(name in self.from_one), 1 if name in self.up_to_one else np.inf
        if not low <= value <= high or value == np.inf:
            interval = f"[{low}, {'1]' if high == 1 else 'inf)'}"
            raise ValueError(f"{name}: expected {kind} in {interval}, got {value}")

    def values(self, t: Array) -> Array:
        """Rates of the steps `t`, float64 in and out: the formula."""
        raise NotImplementedError(f"{type(self).__name__} does not say its values")

    def rates(self, t: Array, state: State | None) -> Array:
        """Rates of the steps `t`, of a schedule that remembers `state`."""
        return self.values(t)

    def initial_state(self) -> State | None:
        """What has to be remembered from epoch to epoch, as JSON can hold it; None for nothing."""
        return None

    def observe(self, state: State | None, record: Mapping[str, float]) -> State | None:
        """The state after an epoch with that record."""
        return state

    @property
    def observes(self) -> bool:
        """Whether its rates depend on the records of epochs."""
        return type(self).observe is not Schedule.observe

    def __call__(self, step: int) -> float:
        """Rate of one step."""
        return float(self.rates(np.array([step], dtype=np.float64), self.initial_state())[0])

    def describe(self) -> dict[str, Any]:
        """Name and parameters, for logs and files."""
        return describe(self)


def describe(record: Any) -> dict[str, Any]:
    """Name and fields of a record, nested records likewise; NumPy's numbers as Python's."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    for name, value in values.items():
        if isinstance(value, Schedule):
            values[name] = describe(value)
        elif isinstance(value, np.generic):
            values[name] = value.item()
    return {"name": type(record).__name__, **values}


@dataclass(frozen=True)
class Constant(Schedule):
    """``lr``.

    Parameters
    ----------
    lr : float
    """

    lr: float

    def values(self, t: Array) -> Array:
        return np.full(len(t), self.lr, dtype=np.float64)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """``lr factor^floor(t / every)``.

    Parameters
    ----------
    lr : float
    every : int
        Steps between two falls.
    factor : float in [0, 1], default 0.1
    """

    lr: float
    every: int
    factor: float = 0.1
    from_one = ("every",)
    up_to_one = ("factor",)

    def values(self, t: Array) -> Array:
        return self.lr * np.power(float(self.factor), t // self.every)


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """``lr factor^(t / n_steps)``: falls by `factor` in every `n_steps` steps.

    Parameters
    ----------
    lr : float
    n_steps : int
    factor : float in [0, 1], default 0.1
    """

    lr: float
    n_steps: int
    factor: float = 0.1
    from_one = ("n_steps",)
    up_to_one = ("factor",)

    def values(self, t: Array) -> Array:
        return self.lr * np.power(float(self.factor), t / self.n_steps)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """``lr / (1 + t / n_steps)^power``.

    Robbins and Monro 1951, https://doi.org/10.1214/aoms/1177729586.

    Parameters
    ----------
    lr : float
    n_steps : int, default 1
        After so many steps the rate has fallen by ``2^power``.
    power : float, default 0.5
    """

    lr: float
    n_steps: int = 1
    power: float = 0.5
    from_one = ("n_steps",)

    def values(self, t: Array) -> Array:
        return self.lr / np.power(1 + t / self.n_steps, self.power)


@dataclass(frozen=True)
class LinearDecay(Schedule):
    """A straight line from `lr` at step 0 to `end` at step `n_steps`, then `end`.

    Parameters
    ----------
    lr : float
    n_steps : int
    end : float, default 0
    """

    lr: float
    n_steps: int
    end: float = 0.0
    from_one = ("n_steps",)

    def values(self, t: Array) -> Array:
        left = 1 - np.minimum(t / self.n_steps, 1)
        return self.end + (self.lr - self.end) * left


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """``end + (lr - end) (1 + cos(pi s)) / 2``, `s` the share of the current cycle that is over.

    Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, equation 5, with warm restarts.

    Parameters
    ----------
    lr : float
    n_steps : int
        Steps of the first cycle.
    cycles : int or None, default 1
        After the last one the rate is `end`. None: without end.
    growth : int, default 1
        Each cycle is so many times as long as the one before.
    end : float, default 0
    """

    lr: float
    n_steps: int
    cycles: int | None = 1
    growth: int = 1
    end: float = 0.0
    from_one = ("n_steps", "cycles", "growth")

    def values(self, t: Array) -> Array:
        cycle = self._cycle(t)
        length = self.n_steps * np.power(float(self.growth), cycle)
        s = (t - self._start(cycle)) / length
        rates: Array = self.end + (self.lr - self.end) * (1 + np.cos(np.pi * s)) / 2
        if self.cycles is not None:
            rates = np.where(cycle >= self.cycles, float(self.end), rates)
        return rates

    def _start(self, cycle: Array) -> Array:
        """First step of a cycle: the lengths n, n g, n g^2... of those before, added up."""
        if self.growth == 1:
            return self.n_steps * cycle
        return self.n_steps * (np.power(float(self.growth), cycle) - 1) / (self.growth - 1)

    def _cycle(self, t: Array) -> Array:
        if self.growth == 1:
            return t // self.n_steps
        done = t * (self.growth - 1) / self.n_steps + 1
        cycle = np.floor(np.log(done) / np.log(self.growth))
        # The logarithm of a power may be a rounding above or below the whole number.
        cycle += self._start(cycle + 1) <= t
        cycle -= self._start(cycle) > t
        return cycle


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from ``lr / divisor`` to `lr`, down to ``lr / final_divisor``, each along half a cosine.

    Smith and Topin 2018, https://arxiv.org/abs/1708.07120; cosines instead of straight lines as in
    fast.ai. `lr` is the largest rate: `find_learning_rate` helps to choose it.

    Parameters
    ----------
    lr : float
    n_steps : int
        Steps of the whole training; afterwards the rate stays.
    rise : float in [0, 1], default 0.3
        Share of the steps on the way up.
    divisor : float, default 25
    final_divisor : float, default 250_000
    """

    lr: float
    n_steps: int
    rise: float = 0.3
    divisor: float = 25.0
    final_divisor: float = 250_000.0
    from_one = ("n_steps", "divisor", "final_divisor")
    up_to_one = ("rise",)

    def values(self, t: Array) -> Array:
        # The last step has the smallest rate, the step `top` the largest.
        last = max(self.n_steps - 1, 1)
        top = self.rise * last
        low, end = self.lr / self.divisor, self.lr / self.final_divisor
        up = np.minimum(t / (top or 1.0), 1)
        down = np.clip((t - top) / ((last - top) or 1.0), 0, 1)
        rising = low + (self.lr - low) * (1 - np.cos(np.pi * up)) / 2
        falling = end + (self.lr - end) * (1 + np.cos(np.pi * down)) / 2
        return np.where(t < top, rising, falling)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A straight line up in `n_steps` steps, then `schedule` from its own step 0.

    Step ``t < n_steps`` has the rate ``schedule(0) (t + 1) / (n_steps + 1)``: none is 0. Goyal et
    al. 2017, https://arxiv.org/abs/1706.02677, section 2.2.

    Parameters
    ----------
    schedule : float or Schedule
    n_steps : int
    """

    schedule: float | Schedule
    n_steps: int
    from_one = ("n_steps",)

    @property
    def _after(self) -> Schedule:
        return self.schedule if isinstance(self.schedule, Schedule) else Constant(self.schedule)

    def rates(self, t: Array, state: State | None) -> Array:
        share = np.minimum((t + 1) / (self.n_steps + 1), 1)
        return self._after.rates(np.maximum(t - self.n_steps, 0), state) * share

    def initial_state(self) -> State | None:
        return self._after.initial_state()

    def observe(self, state: State | None, record: Mapping[str, float]) -> State | None:
        return self._after.observe(state, record)

    @property
    def observes(self) -> bool:
        return self._after.observes


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """``max(lr factor^k, end)``; `k` grows by 1 where the monitored quantity rests.

    Parameters
    ----------
    lr : float
    factor : float in [0, 1], default 0.1
    patience : int, default 10
        Epochs in a row without an improvement after which the rate falls.
    monitor : str or None, default None
        Key of an epoch's record; None takes ``val_loss`` where it is recorded, else ``loss``.
    mode : {"auto", "min", "max"}, default "auto"
        "auto" wants losses small and scores large.
    min_delta : float, default 1e-4
        Smaller changes are no improvement.
    cooldown : int, default 0
        Epochs after a fall that do not count.
    end : float, default 0
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    monitor: str | None = None
    mode: str = "auto"
    min_delta: float = 1e-4
    cooldown: int = 0
    end: float = 0.0
    from_one = ("patience",)
    up_to_one = ("factor",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._watch()

    def _watch(self) -> Monitor:
        return Monitor(self.monitor, self.mode, self.min_delta)

    def rates(self, t: Array, state: State | None) -> Array:
        falls = 0 if state is None else state["falls"]
        return np.full(len(t), max(self.lr * self.factor**falls, self.end), dtype=np.float64)

    def initial_state(self) -> State | None:
        return {"best": None, "waited": 0, "cooling": 0, "falls": 0}

    def observe(self, state: State | None, record: Mapping[str, float]) -> State | None:
        state = dict(state or self.initial_state() or {})
        watch = self._watch()
        value = watch.value(record)
        improved = watch.better(value, state["best"])
        if improved:
            state["best"] = float(value)
        if state["cooling"]:
            state["cooling"] -= 1
            state["waited"] = 0
        else:
            state["waited"] = 0 if improved else state["waited"] + 1
        if state["waited"] >= self.patience:
            state.update(falls=state["falls"] + 1, waited=0, cooling=self.cooldown)
        return state


SCHEDULES: dict[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        *(Constant, StepDecay, ExponentialDecay, InverseScaling, LinearDecay, CosineDecay),
        *(OneCycle, WarmUp, ReduceOnPlateau),
    )
}
