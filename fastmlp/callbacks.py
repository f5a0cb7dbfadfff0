"""Hooks into a fit, and those that most trainings want."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.monitor import Monitor
from fastmlp.serialization import check_writable
from fastmlp.snapshot import Snapshot
from fastmlp.training_state import check_storable

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "LambdaCallback", "TimeBudget"]


class Callback:
    """Base class: every hook does nothing.

    A hook may raise: the exception ends the fit, and the network stays as the last finished step
    left it (after `on_epoch_end`: as the epoch left it).

    Attributes
    ----------
    every_n_steps : int or None
        `on_step_end` is called where the number of steps is a multiple of it; None: never, and
        epochs run uninterrupted. With plain `SGD` and batches of one, the compiled core rounds
        otherwise where an epoch is interrupted.
    order : int
        Callbacks with a smaller one are called first: 0, those that decide; 1, those that show; 2,
        those that save the state of all.
    """

    every_n_steps: int | None = None
    order = 0

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        """Before the first epoch; `n_samples` is None for chunks, which nobody has counted."""

    def epochs_at_once(self) -> int:
        """How many of the next epochs, at least 1, may run before it is told; asked anew then.

        Where all callbacks allow several, short epochs run together, up to so many:
        `on_epoch_begin` is called before the first alone, `on_epoch_end` behind the last (or where
        an exception ends them) with the record of each that was finished. Until then it can
        neither see or change the network nor end the fit.
        """
        return 1

    def on_epoch_begin(self, network: Network, epoch: int) -> bool | None:
        """Before each epoch; `epoch` as in the record it will have. True ends the fit here."""
        return None

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
        on_epoch_begin: Callable[..., bool | None] | None = None,
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

    def on_epoch_begin(self, network: Network, epoch: int) -> bool:
        return self.waited >= self.patience  # of a resumed fit that had come to its end

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        value = self.watch.value(record)
        self.waited += 1
        if self.watch.better(value, self.best):
            self.best, self.best_epoch, self.waited = value, record["epoch"], 0
            if self.restore_best:
                self._take(network)
        return self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        counts = {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}
        return counts | (self._snapshot.to_dict() if self._snapshot else {})

    def restore(self, network: Network, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.waited = state["waited"]
        if self.restore_best and "step" in state:
            assert network.optimizer_state is not None
            self._snapshot = Snapshot.from_dict(network, network.optimizer_state, state)

    def on_fit_end(self, network: Network, history: History) -> None:
        if history.stop_reason is not None and self._snapshot is not None:
            self._snapshot.restore(random_state=False)
        self._snapshot = None

    def _take(self, network: Network) -> None:
        if self._snapshot is None:
            assert network.optimizer_state is not None
            self._snapshot = Snapshot(network, network.optimizer_state)
        self._snapshot.take()


class Checkpoint(Callback):
    """Saves the network with all that a later fit needs to go on, bit for bit.

    ``Network.load`` reads the file; a `fit` with the same data and settings and with new callbacks
    of the same kinds then does what the first fit would have done. The file is replaced as a whole:
    killed at any moment, it leaves the old one or the new one.

    Parameters
    ----------
    path : path
        ``{epoch}`` in it stands for the number of the epoch (``{epoch:04d}`` for digits): a file of
        its own for each.
    keep : {"last", "best"}, default "last"
        "last" saves regularly and at the end of the fit, "best" where `monitor` improves. Neither
        saves after an exception, in the middle of an epoch.
    every : int, default 1
        Epochs from one regular save to the next.
    monitor, mode, min_delta
        As for `EarlyStopping`; for "best".

    Raises
    ------
    OSError
        In a fit, where the file cannot be written; at its beginning, if that shows then.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep: str = "last",
        every: int = 1,
        monitor: str | None = None,
        mode: str = "auto",
        min_delta: float = 0.0,
    ):
        if keep not in ("last", "best"):
            raise ValueError(f"keep: expected 'last' or 'best', got {keep!r}")
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)):
            raise TypeError(f"every: expected an integer, got {type(every).__name__}")
        if every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        self.path, self.keep, self.every = os.fspath(path), keep, every
        self.order = 2 if keep == "last" else 1
        self.watch = Monitor(monitor, mode, min_delta)
        self._path_of(1)

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self.best: float | None = None
        self._unsaved: int | None = None
        check_writable(self._path_of(1))
        assert network.optimizer_state is not None
        check_storable(network.optimizer_state.optimizer)

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        if self.keep == "best":
            value = self.watch.value(record)
            if self.watch.better(value, self.best):
                self.best = value
                self._save(network, record["epoch"])
        elif record["epoch"] % self.every == 0:
            self._save(network, record["epoch"])
        else:
            self._unsaved = record["epoch"]

    def on_fit_end(self, network: Network, history: History) -> None:
        if history.stop_reason is not None and self._unsaved is not None:
            self._save(network, self._unsaved)

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def restore(self, network: Network, state: dict[str, Any]) -> None:
        self.best = state["best"]

    def _save(self, network: Network, epoch: int) -> None:
        network.save(self._path_of(epoch), training=True)
        self._unsaved = None

    def _path_of(self, epoch: int) -> str:
        try:
            return self.path.format(epoch=epoch)
        except (LookupError, ValueError, AttributeError):
            raise ValueError(
                f"path: expected no other braces than {{epoch}}, got {self.path!r}"
            ) from None


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
        self._spent = False

    def on_epoch_begin(self, network: Network, epoch: int) -> bool:
        return self._spent

    def on_step_end(self, network: Network, record: dict[str, Any]) -> bool:
        return self.used >= self.seconds

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        return self.used >= self.seconds

    def state(self) -> dict[str, Any]:
        return {"used": self.used}

    def restore(self, network: Network, state: dict[str, Any]) -> None:
        self._began = perf_counter() - state["used"]
        self._spent = state["used"] >= self.seconds
