"""Optimizers: one record each, the textbook's update rule.

A record holds hyperparameters only; moments live in an `OptimizerState`. ``update`` is the
formula on NumPy arrays, the specification. The compiled core runs the same formulas with what
depends on the step number alone pulled out in front: ``scalars`` gives those.

Symbols: ``w`` parameters, ``g`` gradient, ``lr`` learning rate, ``t`` step number from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from fastmlp.arena import Arena
from fastmlp.schedules import Schedule, describe

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Averaged",
    "Nadam",
    "Optimizer",
    "OptimizerState",
    "RMSprop",
    "Rule",
]

LearningRate = float | Callable[[int], float]  # a Schedule is such a function
Array = np.ndarray


@dataclass(frozen=True)
class Rule:
    """What the compiled core needs of an optimizer.

    Attributes
    ----------
    code : int
        As in `enum fm_rule` of csrc/fastmlp.h.
    n_states : int
        Moments a parameter.
    l2 : float
        Weight decay that is added to the gradient of weights.
    beta1, beta2 : float
        Decay of the first and the second moment.
    average : float or None
        Decay of the parameters' moving average, which is the last moment; None: there is none.
    """

    code: int
    n_states: int = 0
    l2: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    average: float | None = None


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers.

    Parameters
    ----------
    lr : float, Schedule or callable
        Learning rate, at least 0; or one of `fastmlp.schedules`; or a function ``lr(step)`` of the
        step number from 0.
    """

    lr: LearningRate
    epsilon = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type == "bool" or (each.name == "lr" and callable(value)):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{each.name}: expected a number, got {type(value).__name__}")
            if each.name == "momentum":
                inside, interval = 0 <= value <= 1, "[0, 1]"
            elif each.name in ("beta1", "beta2", "rho"):
                inside, interval = 0 <= value < 1, "[0, 1)"
            else:
                inside, interval = 0 <= value < np.inf, "[0, inf)"
            if not inside:
                raise ValueError(f"{each.name}: expected a number in {interval}, got {value}")

    def rates(self, first_step: int, n_steps: int, state: dict[str, Any] | None = None) -> Array:
        """Learning rates of the steps `first_step` (counted from 0) and following, float64.

        `state` is what the schedule remembers, where it does.
        """
        if isinstance(self.lr, Schedule):
            return self.lr.rates(first_step + np.arange(n_steps, dtype=np.float64), state)
        if callable(self.lr):
            return np.array([self.lr(first_step + i) for i in range(n_steps)], dtype=np.float64)
        return np.full(n_steps, self.lr, dtype=np.float64)

    @property
    def rule(self) -> Rule:
        raise NotImplementedError(f"{type(self).__name__} does not say its rule")

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        """Change `w` and `states` in place, element by element; weight decay only where `decay` is
        true. Called part by part.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its update")

    def scalars(self, lr: Array, t: Array) -> Array:
        """Columns (step_m, step_g, epsilon, shrink) for learning rates `lr` and steps `t`.

        Returns
        -------
        ndarray of shape (n_steps, 4), float64
        """
        columns = np.zeros((len(lr), 4))  # filled: stacking takes as long as an epoch of Iris
        columns[:, 1], columns[:, 2] = lr, self.epsilon
        return columns

    def describe(self) -> dict[str, Any]:
        """Name and hyperparameters, for logs and files."""
        return describe(self)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    ``w -= lr g``; with momentum ``v = momentum v - lr g``, ``w += v``, and with Nesterov's
    ``w += momentum v - lr g`` (Polyak 1964; Sutskever et al. 2013,
    https://proceedings.mlr.press/v28/sutskever13.html, equations 1 to 4). Weight decay adds
    ``weight_decay w`` to the gradient of weights (not of biases).

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.01
    momentum : float in [0, 1], default 0
    nesterov : bool, default False
    weight_decay : float, default 0
    """

    lr: LearningRate = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: expected momentum above 0 beside it, got momentum=0")

    @property
    def rule(self) -> Rule:
        if not self.momentum:
            return Rule(0, l2=self.weight_decay)
        return Rule(2 if self.nesterov else 1, 1, l2=self.weight_decay, beta1=self.momentum)

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        if decay and self.weight_decay:
            g = g + self.weight_decay * w
        if not self.momentum:
            w -= lr * g
            return
        (v,) = states
        v *= self.momentum
        v -= lr * g
        w += self.momentum * v - lr * g if self.nesterov else v


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """``s = rho s + (1 - rho) g^2``; ``w -= lr g / (sqrt(s) + epsilon)``.

    Tieleman and Hinton 2012, Coursera lecture 6.5,
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.001
    rho : float in [0, 1), default 0.9
    epsilon : float, default 1e-8
    """

    lr: LearningRate = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8

    @property
    def rule(self) -> Rule:
        return Rule(3, 1, beta2=self.rho)

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        (s,) = states
        s *= self.rho
        s += (1 - self.rho) * g * g
        w -= lr * g / (np.sqrt(s) + self.epsilon)


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """``s += g^2``; ``w -= lr g / (sqrt(s) + epsilon)``.

    Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, diagonal form.

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.01
    epsilon : float, default 1e-10
    """

    lr: LearningRate = 0.01
    epsilon: float = 1e-10

    @property
    def rule(self) -> Rule:
        return Rule(4, 1)

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        (s,) = states
        s += g * g
        w -= lr * g / (np.sqrt(s) + self.epsilon)


@dataclass(frozen=True)
class Adam(Optimizer):
    """``m = beta1 m + (1 - beta1) g``; ``v = beta2 v + (1 - beta2) g^2``;
    ``w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)``.

    Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1.

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.001
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float, default 1e-8
    epsilon_hat : bool, default False
        Add `epsilon` to ``sqrt(v)``, before the correction of its bias, as TensorFlow and
        scikit-learn do: the end of section 2 of the paper.
    """

    lr: LearningRate = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = field(default=False, kw_only=True)

    @property
    def rule(self) -> Rule:
        return Rule(5, 2, beta1=self.beta1, beta2=self.beta2)

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        m, v = states
        m *= self.beta1
        m += (1 - self.beta1) * g
        v *= self.beta2
        v += (1 - self.beta2) * g * g
        m_hat = self._first_moment(m, g, t)
        c = np.sqrt(1 - self.beta2**t)
        epsilon = self.epsilon / c if self.epsilon_hat else self.epsilon
        w -= lr * m_hat / (np.sqrt(v) / c + epsilon)

    def _first_moment(self, m: Array, g: Array, t: int) -> Array:
        return m / (1 - self.beta1**t)

    def scalars(self, lr: Array, t: Array) -> Array:
        """With c = sqrt(1 - beta2^t), lr m_hat / (sqrt(v) / c + eps) is c lr m_hat / (sqrt(v) + c
        eps).
        """
        c = np.sqrt(1 - self.beta2**t)
        columns = np.zeros((len(lr), 4))
        columns[:, 0] = c * lr / (1 - self.beta1**t)
        columns[:, 2] = self.epsilon if self.epsilon_hat else c * self.epsilon
        return columns


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: ``w -= lr weight_decay w`` in front of Adam's step, for
    weights (not for biases).

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, algorithm 2.

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.001
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float, default 1e-8
    weight_decay : float, default 0.01
    """

    weight_decay: float = 0.01

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        if decay:
            w -= lr * self.weight_decay * w
        super().update(w, g, states, lr, t, decay)

    def scalars(self, lr: Array, t: Array) -> Array:
        columns = super().scalars(lr, t)
        columns[:, 3] = lr * self.weight_decay
        return columns


@dataclass(frozen=True)
class Nadam(Adam):
    """Adam with Nesterov momentum:
    ``m_hat = beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)``.

    Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ, algorithm 2, with constant
    momentum.

    Parameters
    ----------
    lr : float, Schedule or callable, default 0.001
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
    epsilon : float, default 1e-8
    """

    def _first_moment(self, m: Array, g: Array, t: int) -> Array:
        return self.beta1 * m / (1 - self.beta1 ** (t + 1)) + (1 - self.beta1) * g / (
            1 - self.beta1**t
        )

    def scalars(self, lr: Array, t: Array) -> Array:
        columns = super().scalars(lr, t)
        c = np.sqrt(1 - self.beta2**t)
        columns[:, 0] = c * lr * self.beta1 / (1 - self.beta1 ** (t + 1))
        columns[:, 1] = c * lr * (1 - self.beta1) / (1 - self.beta1**t)
        return columns


@dataclass(frozen=True)
class Averaged(Optimizer):
    """Another optimizer, with an exponential moving average of the parameters beside it.

    Behind each step ``average += (1 - decay) (w - average)`` (Polyak and Juditsky 1992,
    https://doi.org/10.1137/0330046, with the weights of Kingma and Ba 2015, section 7.2); at the
    start the average is the parameters. The network has the average: in validation, in callbacks
    and behind the fit. The steps go on from the parameters themselves, which are kept with the
    moments: what you change in the network between two fits with equal optimizers is not seen.

    Parameters
    ----------
    optimizer : Optimizer
    decay : float in [0, 1), default 0.999
    """

    lr: LearningRate = field(init=False, repr=False)
    optimizer: Optimizer
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not isinstance(self.optimizer, Optimizer) or isinstance(self.optimizer, Averaged):
            raise TypeError(
                f"optimizer: expected an optimizer such as Adam(), got {self.optimizer!r}"
            )
        if isinstance(self.decay, bool) or not isinstance(self.decay, (int, float, np.number)):
            raise TypeError(f"decay: expected a number, got {type(self.decay).__name__}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), got {self.decay}")
        object.__setattr__(self, "lr", self.optimizer.lr)

    @property
    def rule(self) -> Rule:
        rule = self.optimizer.rule
        return replace(rule, n_states=rule.n_states + 1, average=float(self.decay))

    def update(
        self, w: Array, g: Array, states: list[Array], lr: float, t: int, decay: bool
    ) -> None:
        """The other optimizer's; the average is taken where all of a step is done."""
        self.optimizer.update(w, g, states, lr, t, decay)

    def scalars(self, lr: Array, t: Array) -> Array:
        return self.optimizer.scalars(lr, t)

    def describe(self) -> dict[str, Any]:
        optimizer, decay = self.optimizer.describe(), float(self.decay)
        return {"name": "Averaged", "optimizer": optimizer, "decay": decay}


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.__name__: kind for kind in (SGD, RMSprop, Adagrad, Adam, AdamW, Nadam, Averaged)
}


class OptimizerState:
    """An optimizer at work on one network: moments, steps taken, what its schedule remembers.

    Parameters
    ----------
    optimizer : Optimizer
    parameters : Arena
        The moments get the same layout.
    """

    def __init__(self, optimizer: Optimizer, parameters: Arena):
        self.optimizer = optimizer
        self.parameters = parameters
        self.moments = [parameters.like() for _ in range(optimizer.rule.n_states)]
        if self.average is not None:
            self.average.flat[:] = parameters.flat
        self.step = 0
        lr = optimizer.lr
        self.schedule = lr.initial_state() if isinstance(lr, Schedule) else None

    def rates(self, n_steps: int) -> Array:
        """Learning rates of the next steps, float64."""
        return self.optimizer.rates(self.step, n_steps, self.schedule)

    @property
    def foresees_rates(self) -> bool:
        """Whether no epoch changes the rates of later ones.

        A plain function may look at it; one that does not says so: ``observes = False``.
        """
        lr = self.optimizer.lr
        return not getattr(lr, "observes", callable(lr))

    @property
    def average(self) -> Arena | None:
        """During a step the parameters' moving average, at other times what the steps work on."""
        return None if self.optimizer.rule.average is None else self.moments[-1]

    @property
    def rule_moments(self) -> list[Arena]:
        """The moments without the average."""
        return self.moments if self.average is None else self.moments[:-1]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within it the parameters are those that the steps work on, not their average."""
        if self.average is None:
            yield
            return
        self._swap(self.average)
        try:
            yield
        finally:
            self._swap(self.average)

    def _swap(self, average: Arena) -> None:
        held = self.parameters.flat.copy()
        self.parameters.flat[:] = average.flat
        average.flat[:] = held

    def observe(self, record: Mapping[str, float]) -> None:
        """Show an epoch's record to the schedule."""
        if isinstance(self.optimizer.lr, Schedule):
            self.schedule = self.optimizer.lr.observe(self.schedule, record)
