"""Hooks into a fit, and those that most trainings want."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.monitor import Monitor
from fastmlp.snapshot import Snapshot

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["Callback", "EarlyStopping", "LambdaCallback", "TimeBudget"]


class Callback:
    """Base class: every hook does nothing.

    A hook may raise: the exception ends the fit, and the network stays as the last finished step
    left it (after `on_epoch_end`: as the epoch left it).

    Attributes
    ----------
    every_n_steps : int or None
        `on_step_end` is called where the number of steps is a multiple of it; None: never, and
        epochs run uninterrupted.
    runs_last : bool
        Called after those without it: what saves or shows, after what decides.
    """

    every_n_steps: int | None = None
    runs_last = False

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        """Before the first epoch; `n_samples` is None for chunks, which nobody has counted."""

    def on_epoch_begin(self, network: Network, epoch: int) -> None:
        """Before each epoch; `epoch` as in the record it will have."""

    def on_step_end(self, network: Network, record: dict[str, Any]) -> bool | None:
        """After every `every_n_steps` steps. True ends the fit, in the middle of the epoch.

        `record` has ``epoch``, ``step`` (updates so far, those of earlier fits with the same
        optimizer too), ``loss`` (mean since the last call) and ``lr``.
        """
        return None

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool | None:
        """After each epoch, with its record (see `History`). True ends the fit."""
        return None

    def on_fit_end(self, network: Network, history: History) -> None:
        """After the last epoch; also when the fit ends by an exception."""

    def state(self) -> dict[str, Any] | None:
        """What a resumed fit needs to go on exactly: JSON and NumPy arrays, by name."""
        return None

    def restore(self, network: Network, state: dict[str, Any]) -> None:
        """Take over what `state` gave; called behind `on_fit_begin` of a resumed fit."""


class LambdaCallback(Callback):
    """Functions as hooks.

    Parameters
    ----------
    on_fit_begin, on_epoch_begin, on_step_end, on_epoch_end, on_fit_end : callable or None
        With the arguments of `Callback`'s methods.
    every_n_steps : int or None, default None

    Examples
    --------
    >>> from fastmlp.callbacks import LambdaCallback
    >>> stop = LambdaCallback(on_epoch_end=lambda network, record: record["loss"] < 0.1)
    """

    def __init__(
        self,
        *,
        on_fit_begin: Callable[..., None] | None = None,
        on_epoch_begin: Callable[..., None] | None = None,
        on_step_end: Callable[..., bool | None] | None = None,
        on_epoch_end: Callable[..., bool | None] | None = None,
        on_fit_end: Callable[..., None] | None = None,
        every_n_steps: int | None = None,
    ):
        hooks = {
            "on_fit_begin": on_fit_begin,
            "on_epoch_begin": on_epoch_begin,
            "on_step_end": on_step_end,
            "on_epoch_end": on_epoch_end,
            "on_fit_end": on_fit_end,
        }
        self.every_n_steps = every_n_steps
        for name, hook in hooks.items():
            if hook is not None:
                setattr(self, name, hook)


class EarlyStopping(Callback):
    """Ends the fit where a quantity has not improved for a while.

    Parameters
    ----------
    monitor : str or None, default None
        Key of an epoch's record; None takes ``val_loss`` where it is recorded, else ``loss``.
    min_delta : float, default 0
        Smaller changes are no improvement.
    patience : int, default 10
        Epochs in a row without an improvement after which the fit ends.
    mode : {"auto", "min", "max"}, default "auto"
        "auto" wants losses small and scores large.
    restore_best : bool, default True
        At the end of the fit, whoever ended it, give parameters and optimizer the state of the best
        epoch. Not after an exception.

    Attributes
    ----------
    best : float or None
        Best value so far.
    best_epoch : int or None
    """

    best: float | None = None
    best_epoch: int | None = None

    def __init__(
        self,
        monitor: str | None = None,
        *,
        min_delta: float = 0.0,
        patience: int = 10,
        mode: str = "auto",
        restore_best: bool = True,
    ):
        if isinstance(patience, bool) or not isinstance(patience, (int, np.integer)):
            raise TypeError(f"patience: expected an integer, got {type(patience).__name__}")
        if patience < 1:
            raise ValueError(f"patience: expected at least 1, got {patience}")
        self.watch = Monitor(monitor, mode, min_delta)
        self.patience = int(patience)
        self.restore_best = restore_best

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self.best = self.best_epoch = None
        self.waited = 0
        self._snapshot: Snapshot | None = None

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        value = self.watch.value(record)
        self.waited += 1
        if self.watch.better(value, self.best):
            self.best, self.best_epoch, self.waited = value, record["epoch"], 0
            if self.restore_best:
                self._take(network)
        return self.waited >= self.patience

    def on_fit_end(self, network: Network, history: History) -> None:
        if history.stop_reason is not None and self._snapshot is not None:
            self._snapshot.restore(random_state=False)
        self._snapshot = None

    def _take(self, network: Network) -> None:
        if self._snapshot is None:
            assert network.optimizer_state is not None
            self._snapshot = Snapshot(network, network.optimizer_state)
        self._snapshot.take()


class TimeBudget(Callback):
    """Ends the fit at the end of the epoch in which the time is up.

    Parameters
    ----------
    seconds : float
        Wall time of the fit, callbacks and validation included; of all parts of a resumed one.
    every_n_steps : int or None, default None
        Look so often, and end in the middle of an epoch.
    """

    def __init__(self, seconds: float, *, every_n_steps: int | None = None):
        if not 0 <= seconds < np.inf:
            raise ValueError(f"seconds: expected a number in [0, inf), got {seconds}")
        self.seconds = seconds
        self.every_n_steps = every_n_steps

    @property
    def used(self) -> float:
        """Seconds so far."""
        return perf_counter() - self._began

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self._began = perf_counter()

    def on_step_end(self, network: Network, record: dict[str, Any]) -> bool:
        return self.used >= self.seconds

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        return self.used >= self.seconds

    def state(self) -> dict[str, Any]:
        return {"used": self.used}

    def restore(self, network: Network, state: dict[str, Any]) -> None:
        self._began = perf_counter() - state["used"]
