"""The callback protocol of scikit-learn 1.9: their callbacks, called from our loop.

https://scikit-learn.org/stable/developers/develop.html. Older versions have none; everything else
works there.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from fastmlp.callbacks import Callback
from fastmlp.history import History
from fastmlp.network import Network

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Any) -> Any:
        return method


if TYPE_CHECKING:
    from fastmlp.estimators.base import BaseMLP

__all__ = ["CallbackBridge", "CallbackSupportMixin", "bridge", "with_callbacks"]


class CallbackBridge(Callback):
    """Tells scikit-learn's callbacks of the fit (a task) and its epochs (its subtasks)."""

    def __init__(self, estimator: BaseMLP, **data: Any):
        self.root = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        self.estimator = estimator
        self.arguments = {"estimator": estimator, **data}

    def on_fit_begin(self, network: Network, **_: Any) -> None:
        self.root.call_on_fit_task_begin(**self.arguments)

    def on_epoch_begin(self, network: Network, epoch: int) -> None:
        self.epoch = self.root.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.arguments)

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> bool:
        return bool(
            self.epoch.call_on_fit_task_end(
                **self.arguments, reconstruction_attributes=self._fitted_attributes
            )
        )

    def on_fit_end(self, network: Network, history: History) -> None:
        self.root.call_on_fit_task_end(
            **self.arguments, reconstruction_attributes=self._fitted_attributes
        )

    def _fitted_attributes(self) -> dict[str, Any]:
        """What makes a copy of the estimator predict as it would now, whatever comes later."""
        network = copy.copy(self.estimator.network_)
        network.arena = copy.deepcopy(network.arena)
        groups = [group for group in network.parameters if group]
        coefs, intercepts = (list(views) for views in zip(*groups, strict=True))
        return {"network_": network, "coefs_": coefs, "intercepts_": intercepts}


def bridge(estimator: BaseMLP, **data: Any) -> list[Callback]:
    """The bridge, where the estimator has callbacks of scikit-learn, its own or a search's."""
    return [CallbackBridge(estimator, **data)] if getattr(estimator, "_skl_callbacks", ()) else []
