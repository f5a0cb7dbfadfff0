"""The settings of ``fastmlp train``: what is chosen where nothing is said, and what names mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fastmlp.optimizers import OPTIMIZERS, SGD, Adam, Averaged, Optimizer
from fastmlp.schedules import (
    Constant,
    CosineDecay,
    ExponentialDecay,
    InverseScaling,
    LinearDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)

__all__ = [
    "ENDING",
    "OPTIMIZER_NAMES",
    "RECIPES",
    "SCHEDULES",
    "Recipe",
    "Settings",
    "check_optimizer",
    "default_rate",
    "make_optimizer",
    "recipe_of_table",
]

Array = np.ndarray


@dataclass(frozen=True)
class Recipe:
    """How a data set is learned; `learning_rate` is for Adam and its kin."""

    layers: tuple[int, ...]
    learning_rate: float
    batch_size: int
    epochs: int
    standardize: bool = False


RECIPES = {
    "digits": Recipe((256,), learning_rate=3e-3, batch_size=32, epochs=30),
    "iris": Recipe((16,), learning_rate=2e-2, batch_size=16, epochs=60, standardize=True),
    "mnist": Recipe((256, 128), learning_rate=1e-3, batch_size=64, epochs=3),
    "fashion_mnist": Recipe((256, 128), learning_rate=1e-3, batch_size=64, epochs=5),
}


def recipe_of_table(X: Array) -> Recipe:
    """Few rows want many epochs. Pixels share one unit; the columns of a table rarely do."""
    epochs = int(np.clip(300_000 // len(X), 5, 60))
    return Recipe((64,), 5e-3, batch_size=32, epochs=epochs, standardize=X.dtype != np.uint8)


# From the rate and the number of steps of the whole training. Those that end with it end at 0, or
# near to it; the others can go on.
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
    "constant": lambda lr, n: Constant(lr),
    "linear": LinearDecay,
    "cosine": CosineDecay,
    "one-cycle": OneCycle,
    "step": lambda lr, n: StepDecay(lr, max(1, -(-n // 3))),
    "exponential": lambda lr, n: ExponentialDecay(lr, n, 0.01),
    "inverse": lambda lr, n: InverseScaling(lr, max(1, n // 100)),
    "plateau": lambda lr, n: ReduceOnPlateau(lr, 0.3, patience=3),
}
ENDING = ("linear", "cosine", "one-cycle")
OPTIMIZER_NAMES = {name.lower(): kind for name, kind in OPTIMIZERS.items() if kind is not Averaged}


@dataclass(frozen=True)
class Settings:
    """All that decides what a training gives. None: `Job.prepare` chooses.

    Attributes
    ----------
    data : str
        Name of a data set, or path of a table.
    label, task, test_fraction
        Of a table; see `load_table`.
    validation_fraction : float
        Share of the training data that is held out to stop early and to choose the best model.
    learning_rate : float, "auto" or None
        "auto" takes what `find_learning_rate` suggests.
    warmup : float
        In epochs.
    patience : int or None
        Of early stopping; None is without.
    time_budget : float or None
        Seconds.
    dropout : float
        Share of the hidden units left out of a step.
    normalization : {"none", "layer", "batch"}
        Of hidden layers, before the activation.
    l2, weight_decay, clip_norm, label_smoothing, average
        Of `Dense`, `Network.fit`, `CrossEntropy` and `Averaged`; None is without.
    """

    data: str
    label: str | None = None
    task: str | None = None
    test_fraction: float | None = None
    validation_fraction: float = 0.0
    layers: tuple[int, ...] | None = None
    activation: str = "relu"
    dtype: str = "float32"
    optimizer: str = "adam"
    learning_rate: float | str | None = None
    momentum: float | None = None
    schedule: str = "linear"
    warmup: float = 0.0
    epochs: int | None = None
    batch_size: int | None = None
    standardize: bool | None = None
    patience: int | None = None
    time_budget: float | None = None
    dropout: float = 0.0
    normalization: str = "none"
    l2: float = 0.0
    weight_decay: float | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    average: float | None = None
    seed: int = 0
    backend: str = "auto"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Of an experiment's file; ValueError where something lacks."""
        try:
            settings = cls(**{field.name: values[field.name] for field in fields(cls)})
            return replace(settings, layers=tuple(settings.layers or ()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"settings.json lacks {error}") from None


def default_rate(optimizer: str, recipe: Recipe) -> float:
    kind = OPTIMIZER_NAMES[optimizer]
    if issubclass(kind, Adam):
        return recipe.learning_rate
    rate = make_optimizer(optimizer, None, None).lr
    assert isinstance(rate, float)
    return rate


def check_optimizer(name: str, rate: float | str | None, momentum: float | None) -> None:
    """ValueError for a rate or a momentum that the optimizer does not take."""
    if momentum is not None and OPTIMIZER_NAMES[name] is not SGD:
        raise ValueError(f"--momentum is for sgd, not for {name}")
    make_optimizer(name, None if isinstance(rate, str) else rate, momentum)


def make_optimizer(name: str, lr: float | Schedule | None, momentum: float | None) -> Optimizer:
    kind = OPTIMIZER_NAMES[name]
    settings = {"lr": lr, "momentum": momentum}
    return kind(**{name: value for name, value in settings.items() if value is not None})
