"""What ``fastmlp train`` does: a training from settings that a file can hold."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import datasets
from fastmlp.callbacks import Callback, Checkpoint, EarlyStopping, TimeBudget
from fastmlp.datasets import Dataset
from fastmlp.experiments import Experiment
from fastmlp.layers import BatchNorm, Dense, Dropout, LayerBase, LayerNorm
from fastmlp.loggers import JSONLinesLogger, TensorBoard
from fastmlp.losses import CrossEntropy, Loss
from fastmlp.lr_finder import LearningRateSearch, find_learning_rate
from fastmlp.network import Network
from fastmlp.optimizers import Averaged, Optimizer
from fastmlp.scaling import Scaling
from fastmlp.schedules import WarmUp
from fastmlp.settings import (
    ENDING,
    RECIPES,
    SCHEDULES,
    Settings,
    default_rate,
    make_optimizer,
    recipe_of_table,
)
from fastmlp.tables import load_table, split
from fastmlp.validation import check_inputs

if TYPE_CHECKING:
    from fastmlp.history import History

__all__ = ["NORMALIZATIONS", "Job"]

NORMALIZATIONS = {"layer": LayerNorm, "batch": BatchNorm}

Array = np.ndarray


class BestModel(Checkpoint):
    """Saves the model, ready to use, where `monitor` improves."""

    def __init__(self, job: Job, path: Path):
        super().__init__(str(path).replace("{", "{{").replace("}", "}}"), keep="best",
                         monitor=job.monitor)  # fmt: skip
        self.job, self.file = job, path

    def _save(self, network: Network, epoch: int) -> None:
        self.job.ready(network).save(self.file)


class LastModel(Callback):
    """Saves the model of the last epoch, ready to use, before the best one is restored."""

    order = 2

    def __init__(self, job: Job, path: Path):
        self.job, self.file = job, path

    def on_fit_end(self, network: Network, history: History) -> None:
        if history.stop_reason is not None:
            self.job.ready(network).save(self.file)


class Job:
    """A training with everything that it needs.

    Attributes
    ----------
    settings : Settings
        With what was chosen.
    data : Dataset
        Raw, with the validation part taken from the training part.
    rule : Optimizer
        With the largest learning rate.
    search : LearningRateSearch or None
    """

    settings: Settings
    data: Dataset
    rule: Optimizer
    search: LearningRateSearch | None = None

    def __init__(self, settings: Settings):
        """ValueError, TypeError, ImportError and OSError say what the settings or the data lack."""
        name = settings.data
        if name in RECIPES:
            loaded: Dataset = getattr(datasets, f"load_{name}")()
            recipe = RECIPES[name]
        else:
            fraction = 0.2 if settings.test_fraction is None else settings.test_fraction
            loaded = load_table(name, settings.label, settings.task, fraction, settings.seed)
            recipe = recipe_of_table(loaded.X_train)
        self.checksum = _checksum(loaded)
        self.data, self.validation = _split_off(loaded, settings.validation_fraction, settings.seed)
        chosen: dict[str, Any] = {
            "layers": recipe.layers,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "standardize": recipe.standardize,
            "learning_rate": default_rate(settings.optimizer, recipe),
        }
        missing = {k: v for k, v in chosen.items() if getattr(settings, k) is None}
        self.settings = settings = replace(settings, **missing)
        rate = settings.learning_rate
        self.rule = make_optimizer(
            settings.optimizer, None if isinstance(rate, str) else rate, settings.momentum
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """The job of which `to_dict` made `values`; ValueError where the data has changed."""
        job = cls(Settings.from_dict(values))
        if job.checksum != values.get("checksum"):
            raise ValueError(f"{job.settings.data}: the data is not what it was at the beginning")
        return job

    def new_network(self) -> Network:
        data, settings = self.data, self.settings
        assert settings.layers is not None
        small: dict[str, Any] = {"l2": settings.l2, "weight_decay": settings.weight_decay}
        layers: list[LayerBase] = []
        for units in settings.layers:
            if settings.normalization == "none":
                layers.append(Dense(units, settings.activation, **small))
            else:
                normalization = NORMALIZATIONS[settings.normalization]
                layers += [Dense(units, **small), normalization(settings.activation)]
            if settings.dropout:
                layers.append(Dropout(settings.dropout))
        if data.target_names:
            layers.append(Dense(len(data.target_names), "softmax", **small))
        else:
            layers.append(Dense(data.y_train[0].size, **small))
        loss: str | Loss = "mse"
        if data.target_names:
            loss = CrossEntropy(label_smoothing=settings.label_smoothing)
        elif settings.label_smoothing:
            raise ValueError("--label-smoothing is for classes, not for regression")
        net = Network(
            data.X_train.shape[1],
            layers,
            loss=loss,
            dtype=settings.dtype,
            seed=settings.seed,
            backend=settings.backend,
        )
        for X in (data.X_train, data.X_test):
            if len(X):
                check_inputs(X, net.architecture)
        return net

    def choose_rate(self, network: Network) -> None:
        """Let the finder choose, where it shall."""
        settings = self.settings
        if settings.learning_rate == "auto":
            assert settings.batch_size is not None
            self.search = find_learning_rate(
                *(network, self.scaled.X, self.scaled.y),
                optimizer=self.rule,
                batch_size=settings.batch_size,
            )
            # Two digits are more than it knows.
            rate = float(f"{self.search.suggestion:.2g}")
            self.settings = replace(settings, learning_rate=rate)
            self.rule = replace(self.rule, lr=rate)

    def extend(self, epochs: int | None) -> None:
        """Train up to `epochs` in all. ValueError where the schedule has come to its end."""
        settings = self.settings
        if epochs is None or epochs == settings.epochs:
            return
        if settings.schedule in ENDING:
            raise ValueError(
                f"--epochs: the learning rate was to end after {settings.epochs} epochs; only a "
                f"training with --schedule {', '.join(n for n in SCHEDULES if n not in ENDING)} "
                "can be longer or shorter"
            )
        self.settings = replace(settings, epochs=epochs)

    @property
    def steps_an_epoch(self) -> int:
        assert self.settings.batch_size is not None
        return -(-len(self.data.X_train) // self.settings.batch_size)

    @property
    def optimizer(self) -> Optimizer:
        """The rule with its schedule over the whole training."""
        settings, peak = self.settings, self.rule.lr
        assert settings.epochs is not None
        assert isinstance(peak, float | int)
        warmup = round(settings.warmup * self.steps_an_epoch)
        n_steps = max(1, settings.epochs * self.steps_an_epoch - warmup)
        schedule = SCHEDULES[settings.schedule](peak, n_steps)
        rule = replace(self.rule, lr=WarmUp(schedule, warmup) if warmup else schedule)
        return rule if settings.average is None else Averaged(rule, settings.average)

    @property
    def monitor(self) -> str:
        """The test set has no say in what is chosen."""
        return "val_loss" if self.settings.validation_fraction else "loss"

    def callbacks(self, experiment: Experiment | None, tensorboard: Path | None) -> list[Callback]:
        settings = self.settings
        chosen: list[Callback] = []
        if settings.patience:
            chosen.append(EarlyStopping(self.monitor, patience=settings.patience))
        if settings.time_budget is not None:
            chosen.append(TimeBudget(settings.time_budget))
        if tensorboard is not None:
            chosen.append(TensorBoard(tensorboard))
        if experiment is not None:
            checkpoint = str(experiment.path("checkpoint.safetensors"))
            chosen += [
                JSONLinesLogger(experiment.path("history.jsonl")),
                BestModel(self, experiment.path("best.safetensors")),
                LastModel(self, experiment.path("last.safetensors")),
                Checkpoint(checkpoint.replace("{", "{{").replace("}", "}}")),
            ]
        return chosen

    def fit(
        self,
        network: Network,
        callbacks: Sequence[Callback],
        verbose: int,
    ) -> History:
        """Train as far as the settings want, from a checkpoint with its optimizer."""
        assert self.settings.batch_size is not None
        assert self.settings.epochs is not None
        return network.fit(
            self.scaled.X,
            self.scaled.y,
            optimizer=None if network.optimizer_state else self.optimizer,
            epochs=self.settings.epochs - network.history.last_epoch,
            batch_size=self.settings.batch_size,
            validation_data=self.scaled.held_out,
            clip_norm=self.settings.clip_norm,
            callbacks=callbacks,
            verbose=verbose,
        )

    def ready(self, network: Network) -> Network:
        """A copy that takes and gives raw values, and knows its classes."""
        copy = network.astype(network.architecture.dtype)
        if self.scaled.inputs:
            self.scaled.inputs.fold_into_inputs(copy)
        if self.scaled.outputs:
            self.scaled.outputs.fold_into_outputs(copy)
        copy.metadata = {
            "dataset": self.data.name,
            "classes": list(self.data.target_names),
            "label": self.settings.label,
            "pixels": self.data.X_train.dtype == np.uint8,
        }
        return copy

    def is_exact(self, network: Network) -> bool:
        """Whether raw inputs, which `ready` takes, give what standardised ones do."""
        if not self.scaled.inputs:
            return True
        copy = network.astype(network.architecture.dtype)
        self.scaled.inputs.fold_into_inputs(copy)
        said, expected = (
            copy.predict(self.data.X_train[:1000]),
            network.predict(self.scaled.X[:1000]),
        )
        return bool(np.allclose(said, expected, rtol=0, atol=0.01))

    def to_dict(self) -> dict[str, Any]:
        """The settings and the checksum of the data, for an experiment's file."""
        data = self.settings.data
        place = data if data in RECIPES else str(Path(data).resolve())
        return {**asdict(self.settings), "data": place, "checksum": self.checksum}

    @cached_property
    def scaled(self) -> _Scaled:
        """What the network trains on. Not before it is checked: huge numbers would overflow."""
        data, standardize = self.data, self.settings.standardize
        inputs = Scaling.of(data.X_train) if standardize else None
        outputs = Scaling.of(data.y_train) if standardize and not data.target_names else None

        def apply(X: Array, y: Array) -> tuple[Array, Array]:
            return inputs.apply(X) if inputs else X, outputs.apply(y) if outputs else y

        X, y = apply(data.X_train, data.y_train)
        watched = self.validation or (data.X_test, data.y_test)
        return _Scaled(inputs, outputs, X, y, apply(*watched) if len(watched[0]) else None)


@dataclass(frozen=True)
class _Scaled:
    inputs: Scaling | None
    outputs: Scaling | None
    X: Array
    y: Array
    held_out: tuple[Array, Array] | None


def _split_off(
    data: Dataset, fraction: float, seed: int
) -> tuple[Dataset, tuple[Array, Array] | None]:
    """The data set without a part of its training set, and that part."""
    if not fraction:
        return data, None
    kept, held_out = split(data.y_train, fraction, seed + 1)  # the test part was split with `seed`
    if not len(held_out):
        raise ValueError(
            f"validation_fraction: expected a larger share of {len(data.y_train)} samples, got "
            f"{fraction}"
        )
    X, y = data.X_train, data.y_train
    return replace(data, X_train=X[kept], y_train=y[kept]), (X[held_out], y[held_out])


def _checksum(data: Dataset) -> int:
    """CRC-32 of all arrays, to know the same data again."""
    value = 0
    for array in (data.X_train, data.y_train, data.X_test, data.y_test):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value
