"""scikit-learn's MLPClassifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.bench.peers.base import Job, Peer
from fastmlp.optimizers import SGD, Adam

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmlp.backends.base import Array

__all__ = ["SklearnPeer"]


class SklearnPeer(Peer):
    """An epoch is one ``partial_fit``, which draws its own order; inputs are assumed to be finite,
    as that check alone takes 1% of an epoch.
    """

    def __init__(self, job: Job):
        super().__init__(job)
        from sklearn import set_config
        from sklearn.neural_network import MLPClassifier

        set_config(assume_finite=True)
        workload = self.workload
        ours, names = workload.optimizer, {"sigmoid": "logistic"}
        options: dict[str, Any] = {"solver": "sgd", "learning_rate_init": ours.lr}
        if isinstance(ours, Adam):
            options |= {"solver": "adam", "beta_1": ours.beta1, "beta_2": ours.beta2}
            options["epsilon"] = ours.epsilon
        else:
            assert isinstance(ours, SGD)
            options |= {"momentum": ours.momentum, "nesterovs_momentum": False}
        self.make: Callable[[], Any] = lambda: MLPClassifier(
            workload.hidden,
            activation=names.get(workload.activation, workload.activation),
            alpha=0.0,
            batch_size=workload.batch_size,
            shuffle=True,
            random_state=0,
            **options,
        )
        self.X = job.problem.X
        self.y = job.problem.y.astype(np.int64).ravel()
        self.classes = np.unique(self.y)
        self.reset()

    def reset(self) -> None:
        self.model = self.make()
        # One step, for the estimator to make its arrays; then those of the initial network.
        first = slice(0, self.workload.batch_size)
        self.model.partial_fit(self.X[first], self.y[first], classes=self.classes)
        for i, (W, b) in enumerate(self.job.network().parameters):
            self.model.coefs_[i][...] = W
            self.model.intercepts_[i][...] = b
        del self.model._optimizer  # the moments of that step; partial_fit makes new ones

    def weights(self) -> list[tuple[Array, Array]]:
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))

    def inputs(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        P: Array = self.model.predict_proba(X)
        return P[:, 1:] if self.job.problem.n_outputs == 1 else P

    def train(self, order: Array) -> None:
        if len(order) == len(self.X):
            self.model.partial_fit(self.X, self.y)
        else:
            self.model.partial_fit(self.X[order], self.y[order])
