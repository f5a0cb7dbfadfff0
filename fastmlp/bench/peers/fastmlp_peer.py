"""fastmlp itself, through its public interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastmlp.bench.peers.base import Clock, Job, Peer
from fastmlp.callbacks import Callback

if TYPE_CHECKING:
    import numpy as np

    from fastmlp.backends.base import Array
    from fastmlp.network import Network

__all__ = ["FastmlpPeer"]


class FastmlpPeer(Peer):
    """An epoch is timed from callback to callback inside one fit: order, snapshot, the check that
    all parameters are finite, and the history included.
    """

    def __init__(self, job: Job, backend: str = "compiled"):
        super().__init__(job)
        self.backend = backend
        self.reset()

    def reset(self) -> None:
        self.net = self.job.network(self.backend)

    def weights(self) -> list[tuple[Array, Array]]:
        return [(W, b) for W, b in self.net.parameters]

    def inputs(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        return self.net.predict(X)

    def _run_epochs(self, clock: Clock) -> None:
        if self.job.slices == 1:
            self._fit(slice(None), epochs=FOREVER, callbacks=[_Turns(self, clock)])
        while True:
            for index in range(self.job.slices):
                part = self.job.part(index)
                for _ in range(clock.start()):
                    self._fit(part, epochs=1)
                last = index == self.job.slices - 1
                scale = self.job.n_samples / (part.stop - part.start)
                clock.stop(scale, self.score if last else None)

    def fit(self, rng: np.random.Generator) -> None:
        self._fit(slice(None), epochs=self.workload.epochs)

    def _fit(self, part: slice, **options: Any) -> None:
        workload, problem = self.workload, self.job.problem
        self.net.fit(
            problem.X[part],
            problem.y[part],
            optimizer=workload.optimizer,
            batch_size=workload.batch_size,
            **options,
        )


FOREVER = 10**9


class _Turns(Callback):
    """Waits for its turn, then lets some epochs pass; the clock's exception ends the fit."""

    def __init__(self, peer: FastmlpPeer, clock: Clock):
        self.peer, self.clock = peer, clock

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self.left = self.clock.start()

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            self.clock.stop(1, self.peer.score)
            self.left = self.clock.start()
