"""A recorded quantity that somebody waits for: which one, and what counts as better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Monitor"]

# Of what a fit records itself, these are better where they are less; every score of scikit-learn's
# is better where it is more.
LESS_IS_BETTER = ("loss", "seconds", "lr", "gradient_norm")


@dataclass(frozen=True)
class Monitor:
    """
    Parameters
    ----------
    name : str or None
        Key of an epoch's record. None takes ``val_loss`` where it is recorded, else ``loss``.
    mode : {"auto", "min", "max"}, default "auto"
        "auto" wants losses, times, rates and norms small, everything else large.
    min_delta : float, default 0
        Smaller changes are no improvement.
    """

    name: str | None = None
    mode: str = "auto"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"monitor: expected a name or None, got {type(self.name).__name__}")
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {self.mode!r}")
        if not 0 <= self.min_delta < np.inf:
            raise ValueError(f"min_delta: expected a number in [0, inf), got {self.min_delta}")

    def value(self, record: Mapping[str, float]) -> float:
        """The quantity in `record`. ValueError where it is not there."""
        name = self.name or ("val_loss" if "val_loss" in record else "loss")
        if name not in record:
            raise ValueError(f"monitor: {name!r} was not recorded; recorded: {', '.join(record)}")
        return record[name]

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` improves on `best` by more than `min_delta`; NaN never does."""
        if best is None:
            return not np.isnan(value)
        gain = value - best if self._wants_more else best - value
        return bool(gain > self.min_delta)

    @property
    def _wants_more(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        return (self.name or "loss").removeprefix("val_") not in LESS_IS_BETTER
