"""Hooks into a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["Callback"]


class Callback:
    """Base class: every hook does nothing.

    A hook may raise: the exception ends the fit, and the network stays as the last finished epoch
    left it.
    """

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool | None:
        """After each epoch, with its record (see `History`). True ends the fit."""
        return None

    def on_fit_end(self, network: Network, history: History) -> None:
        """After the last epoch; also when the fit ends by an exception."""
