"""A network's state in memory, to go back to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastmlp.network import Network
    from fastmlp.optimizers import OptimizerState

__all__ = ["Snapshot"]


class Snapshot:
    """Parameters, moments, step number, the schedule's and the random state."""

    def __init__(self, network: Network, state: OptimizerState):
        self.network, self.state = network, state
        self.arenas = [network.arena, *state.moments]
        self.copies = [np.empty_like(arena.flat) for arena in self.arenas]

    def take(self) -> None:
        for arena, copy in zip(self.arenas, self.copies, strict=True):
            copy[:] = arena.flat
        self.step, self.schedule = self.state.step, self.state.schedule
        self.random_state = self.network.rng.bit_generator.state

    def restore(self, random_state: bool = True) -> None:
        for arena, copy in zip(self.arenas, self.copies, strict=True):
            arena.flat[:] = copy
        self.state.step, self.state.schedule = self.step, self.schedule
        if random_state:
            self.network.rng.bit_generator.state = self.random_state

    def to_dict(self) -> dict[str, Any]:
        """Everything but the random state, as JSON and arrays."""
        arrays = {f"arena.{i}": copy for i, copy in enumerate(self.copies)}
        return {"step": self.step, "schedule": self.schedule, **arrays}

    @classmethod
    def from_dict(cls, network: Network, state: OptimizerState, saved: dict[str, Any]) -> Snapshot:
        """The snapshot of which `to_dict` made `saved`; for `restore` without a random state."""
        snapshot = cls(network, state)
        snapshot.step, snapshot.schedule = saved["step"], saved["schedule"]
        for i, copy in enumerate(snapshot.copies):
            array = saved.get(f"arena.{i}")
            if array is None or (array.shape, array.dtype) != (copy.shape, copy.dtype):
                raise ValueError("the saved state of a callback does not fit this network")
            copy[:] = array
        return snapshot
