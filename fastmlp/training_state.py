"""What a training has to keep besides the parameters to go on exactly, as JSON and tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastmlp.arena import Arena
from fastmlp.history import History, record_to_json
from fastmlp.optimizers import OPTIMIZERS, Optimizer, OptimizerState
from fastmlp.schedules import SCHEDULES, Schedule

__all__ = ["CallbackState", "TrainingState", "check_storable"]

Array = np.ndarray
CallbackState = tuple[str, dict[str, Any]]  # name of the class, what its `state` gave
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


@dataclass
class TrainingState:
    """
    Attributes
    ----------
    optimizer : OptimizerState or None
    rng : Generator
    history : History
    callbacks : list of (name of the class, state)
        Of the fit that was running.
    """

    optimizer: OptimizerState | None
    rng: np.random.Generator
    history: History
    callbacks: list[CallbackState] = field(default_factory=list)

    def to_file(self) -> tuple[str, dict[str, Array]]:
        """JSON and tensors."""
        tensors: dict[str, Array] = {}
        description: dict[str, Any] = {
            "random_state": self.rng.bit_generator.state,
            "history": [record_to_json(record) for record in self.history.records],
            "optimizer": None,
            "callbacks": [],
        }
        if self.optimizer is not None:
            check_storable(self.optimizer.optimizer)
            description["optimizer"] = {
                "rule": self.optimizer.optimizer.describe(),
                "step": self.optimizer.step,
                "schedule": self.optimizer.schedule,
            }
            for i, moment in enumerate(self.optimizer.moments):
                for segment, view in zip(moment.segments, moment.views, strict=True):
                    tensors[f"moments.{i}.{segment.name}"] = np.ascontiguousarray(view)
        for i, (name, state) in enumerate(self.callbacks):
            arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
            rest = {key: value for key, value in state.items() if key not in arrays}
            description["callbacks"].append({"name": name, "state": rest})
            tensors.update({f"callbacks.{i}.{key}": value for key, value in arrays.items()})
        return json.dumps(description, default=_plain), tensors

    @classmethod
    def from_file(
        cls, text: str, tensors: Mapping[str, Array], parameters: Arena, custom: Mapping[str, Any]
    ) -> TrainingState:
        """What `to_file` gave; ValueError, TypeError or KeyError where it did not.

        `tensors` are those that the file has besides the parameters, `custom` the user's own
        schedules and optimizers by name.
        """
        description = json.loads(text)
        callbacks = [(item["name"], dict(item["state"])) for item in description["callbacks"]]
        expected = set()
        optimizer = None
        if description["optimizer"] is not None:
            saved = description["optimizer"]
            optimizer = OptimizerState(_optimizer(saved["rule"], custom), parameters)
            optimizer.step, optimizer.schedule = int(saved["step"]), saved["schedule"]
            for i, moment in enumerate(optimizer.moments):
                for segment, view in zip(moment.segments, moment.views, strict=True):
                    name = f"moments.{i}.{segment.name}"
                    expected.add(name)
                    _fill(view, tensors[name], name)
        for name in set(tensors) - expected:
            kind, number, key = name.split(".", 2)
            if kind != "callbacks":
                raise ValueError(f"array {name} is not expected")
            callbacks[int(number)][1][key] = tensors[name]
        rng = _generator(description["random_state"])
        return cls(optimizer, rng, History.from_records(description["history"]), callbacks)


def check_storable(optimizer: Optimizer) -> None:
    """ValueError where a file cannot hold the optimizer."""
    if callable(optimizer.lr) and not isinstance(optimizer.lr, Schedule):
        raise ValueError(
            "optimizer: expected a number or a Schedule as lr to save the training, got a plain "
            "function, which a file cannot hold"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a file cannot hold {type(value).__name__}")


def _optimizer(description: Mapping[str, Any], custom: Mapping[str, Any]) -> Optimizer:
    made: Optimizer = _record(description, {**OPTIMIZERS, **SCHEDULES, **custom})
    return made


def _record(description: Any, kinds: Mapping[str, Any]) -> Any:
    """The optimizer or schedule of a description, with those inside of it."""
    if not isinstance(description, dict) or "name" not in description:
        return description
    fields = {name: _record(value, kinds) for name, value in description.items() if name != "name"}
    name = description["name"]
    if name not in kinds:
        raise ValueError(f"{name!r} is not known; pass it in custom={{name: ...}}")
    return kinds[name](**fields)


def _fill(view: Array, tensor: Array, name: str) -> None:
    if (tensor.shape, tensor.dtype) != (view.shape, view.dtype):
        raise ValueError(
            f"array {name}: expected {view.shape} of {view.dtype}, found {tensor.shape} of "
            f"{tensor.dtype}"
        )
    if not np.isfinite(tensor).all():
        raise ValueError(f"array {name}: expected finite numbers")
    view[...] = tensor


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    if state["bit_generator"] not in BIT_GENERATORS:
        raise ValueError(f"random numbers of {state['bit_generator']!r} are not known")
    bit_generator = getattr(np.random, state["bit_generator"])(0)
    bit_generator.state = _with_arrays(state)
    return np.random.Generator(bit_generator)


def _with_arrays(state: Any) -> Any:
    """Lists are arrays of words in NumPy's description of a state."""
    if isinstance(state, list):
        return np.array(state, dtype=np.uint64)
    return {k: _with_arrays(v) for k, v in state.items()} if isinstance(state, dict) else state
