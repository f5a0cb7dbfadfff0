"""The command line: ``fastmlp train | evaluate | predict | info``.

Exit codes: 0 done; 1 it failed (one line on standard error says why); 2 wrong usage; 130 Ctrl-C.
What a user can put right shows no traceback; a mistake in this package does.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperGroup

from fastmlp import datasets, runtime
from fastmlp.activations import ACTIVATIONS
from fastmlp.config import set_num_threads
from fastmlp.layers import Dense
from fastmlp.network import Network
from fastmlp.optimizers import SGD, Adagrad, Adam, AdamW, Nadam, Optimizer, RMSprop
from fastmlp.serialization import write_atomically
from fastmlp.training import DivergenceError
from fastmlp.validation import check_inputs, check_targets, scale_pixels
from fastmlp.version import __version__

__all__ = ["app", "main"]

Array = np.ndarray


# --- What can be chosen, and what is chosen without being told ------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a data set is learned unless options say otherwise."""

    layers: tuple[int, ...]
    learning_rate: float
    batch_size: int
    epochs: int
    standardize: bool = False


# Each over 97% on the held-out part (fashion_mnist: 87%), whatever the seed.
RECIPES = {
    "digits": Recipe((256,), learning_rate=3e-3, batch_size=32, epochs=30),
    "iris": Recipe((16,), learning_rate=1e-2, batch_size=16, epochs=100, standardize=True),
    "mnist": Recipe((256, 128), learning_rate=1e-3, batch_size=64, epochs=3),
    "fashion_mnist": Recipe((256, 128), learning_rate=1e-3, batch_size=64, epochs=5),
}
NAMED_SETS = ", ".join(RECIPES)
OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.__name__.lower(): kind for kind in (SGD, RMSprop, Adagrad, Adam, AdamW, Nadam)
}
HIDDEN_ACTIVATIONS = [name for name, record in ACTIVATIONS.items() if record.differentiable]


def _recipe_of_table(X: Array) -> Recipe:
    """Few rows want many epochs, many rows want few."""
    epochs = int(np.clip(300_000 // len(X), 5, 200))
    # Pixels have one unit and a zero that means something; columns of a table rarely do.
    return Recipe((64, 32), 3e-3, batch_size=32, epochs=epochs, standardize=X.dtype != np.uint8)


# --- Errors ---------------------------------------------------------------------------------------


class Failure(Exception):
    """What the user can put right: shown as one line, without a traceback."""


@contextmanager
def users_mistakes() -> Iterator[None]:
    """Around calls that complain about what the user gave: those complaints are failures.

    Elsewhere a ValueError or TypeError is a mistake of this package.
    """
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise Failure(str(error)) from error


class Commands(TyperGroup):
    """The group of commands: the one place that turns exceptions into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # so that a full disk or a closed pipe shows here
            return result
        except BrokenPipeError:
            raise  # typer ends quietly
        except KeyboardInterrupt:
            _complain("interrupted")
            raise typer.Exit(130) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _complain(f"error: {place}{error.strerror or error}")
        except MemoryError as error:
            _complain(f"error: not enough memory: {error}")
        except (Failure, DivergenceError) as error:
            _complain(f"error: {error}")
        raise typer.Exit(1)


def _complain(message: str) -> None:
    typer.echo(" ".join(message.split()), err=True)


def _check_writable(path: Path | None) -> None:
    """Find out before the work, not after it, that its result cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise Failure(f"--out: {path} is a folder, expected a file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise Failure(f"--out: cannot write to folder {path.parent}: {error.strerror}") from error


# --- Options --------------------------------------------------------------------------------------


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        name = text.lower().replace("-", "_")
        if name not in names:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(names)}.")
        return name

    return parse


def hidden_layers(text: str) -> tuple[int, ...]:
    if text.strip().lower() in ("", "none"):
        return ()
    units = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if 0 in units:
        raise typer.BadParameter(
            f"{text!r}: expected units of the hidden layers such as 256,128, or none."
        )
    return units


def choice(names: Sequence[str], help: str, panel: str | None = None) -> Any:
    return typer.Option(
        parser=one_of(names), metavar="NAME", help=f"{help}: {', '.join(names)}.", rich_help_panel=panel
    )


NETWORK, TRAINING, TABLES = "Network", "Training", "CSV and npz files"

Data = Annotated[
    str, typer.Argument(help=f"{NAMED_SETS}; or a CSV or npz file.", show_default=False)
]
Model = Annotated[Path, typer.Argument(help="File that train --out wrote.", show_default=False)]
File = Annotated[Path, typer.Argument(help="CSV or npz file of inputs.", show_default=False)]
Label = Annotated[
    str | None,
    typer.Option(
        help="Column of labels, by name or index (npz: name of the array). Default: the last (npz: y).",
        rich_help_panel=TABLES,
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Most threads to use.")]
BackendName = Annotated[str, choice(("auto", "compiled", "numpy"), "What computes")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]


# --- Data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What is to be learned, from what. Without `classes` it is a regression."""

    name: str
    X_train: Array
    y_train: Array
    X_test: Array
    y_test: Array
    classes: list[Any] | None
    recipe: Recipe


def named_set(data: str) -> str | None:
    """The name of a named data set; None for a file."""
    name = data.lower().replace("-", "_")
    if name in RECIPES:
        return name
    if not Path(data).suffix and not Path(data).exists():
        raise typer.BadParameter(
            f"{data!r} is none of {NAMED_SETS}, and there is no such file.", param_hint="DATASET"
        )
    return None


def load_named(name: str) -> datasets.Dataset:
    loaded: datasets.Dataset = getattr(datasets, f"load_{name}")()
    return loaded


def load_table(
    path: str, label: str | None, task: str | None, test_fraction: float, seed: int
) -> Problem:
    X, y, _ = datasets.read_table(path, label)
    classes = None
    if task == "classification" or (task is None and holds_classes(y)):
        if y.ndim != 1:
            raise Failure(f"{path}: expected one label a row for classification, got {y.shape[1]}")
        distinct, y = np.unique(y, return_inverse=True)
        classes = distinct.tolist()
        if len(classes) < 2:
            raise Failure(f"{path}: expected at least two classes, every label is {classes[0]!r}")
    elif y.dtype.kind == "U":
        raise Failure(f"{path}: expected numbers for regression, the labels are text like {y[0]!r}")
    train, test = split(y, test_fraction, seed)
    recipe = _recipe_of_table(X)
    return Problem(Path(path).name, X[train], y[train], X[test], y[test], classes, recipe)


def holds_classes(y: Array) -> bool:
    """Text, and few different whole numbers, are classes; other numbers are quantities."""
    if y.dtype.kind in "iu" and y.ndim == 1:
        return len(np.unique(y)) <= min(30, len(y) // 2)
    return y.dtype.kind in "bU"


def split(y: Array, test_fraction: float, seed: int) -> tuple[Array, Array]:
    """Rows of the training and the test part, the targets spread alike over both."""
    order = np.random.default_rng(seed).permutation(len(y))
    by_target = order[np.argsort(y[order], kind="stable")] if y.ndim == 1 else order
    # Every (1 / test_fraction)-th of the sorted rows.
    steps = np.floor(np.arange(len(y) + 1) * test_fraction + 0.5)
    held_out = np.isin(order, by_target[np.diff(steps) > 0])
    return order[~held_out], order[held_out]


# --- Standardisation, folded into the parameters --------------------------------------------------


@dataclass(frozen=True)
class Scaling:
    """Standardised columns z of raw columns x: ``x = mean + deviation z``, in float64."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, values: Array) -> Scaling:
        values = scale_pixels(values, np.dtype(np.float64)).astype(np.float64)
        # The deviation of equal numbers is not always exactly 0.
        constant = values.max(axis=0) == values.min(axis=0)
        return cls(values.mean(axis=0), np.where(constant, 1.0, values.std(axis=0)))

    def apply(self, values: Array) -> Array:
        return (scale_pixels(values, np.dtype(np.float64)) - self.mean) / self.deviation

    def fold_into_first(self, net: Network) -> None:
        """Let `net`, trained on z, take x: ``W' = W / deviation``, ``b' = b - mean W'``."""
        W, b = net.parameters[0]
        folded = W.astype(np.float64) / self.deviation[:, None]
        b[...] = b - self.mean @ folded
        W[...] = folded

    def fold_into_last(self, net: Network) -> None:
        """Let `net`, trained towards z, give x: ``W' = W deviation``, ``b' = mean + b deviation``."""
        W, b = net.parameters[-1]
        W[...] = W * self.deviation
        b[...] = self.mean + b * self.deviation


def fit(net: Network, problem: Problem, standardize: bool, **options: Any) -> Any:
    """Train on `problem`, standardised or not; the network takes and gives raw values afterwards."""
    X, y, X_test, y_test = problem.X_train, problem.y_train, problem.X_test, problem.y_test
    if standardize:
        inputs = Scaling.of(X)
        X, X_test = inputs.apply(X), inputs.apply(X_test)
    if standardize and problem.classes is None:
        outputs = Scaling.of(y)
        y, y_test = outputs.apply(y), outputs.apply(y_test)
    validation = (X_test, y_test) if len(X_test) else None
    history = net.fit(X, y, validation_data=validation, verbose=1, **options)
    if standardize:
        before = net.predict(X[:1000])
        inputs.fold_into_first(net)
        moved = np.abs(net.predict(problem.X_train[:1000]) - before).max()
        if moved > 0.01:
            _complain(
                f"warning: {net.architecture.dtype} cannot resolve the raw inputs (outputs moved by "
                f"{moved:.2g}): use --dtype float64, or give smaller numbers"
            )
        if problem.classes is None:
            outputs.fold_into_last(net)
    return history


# --- Models and what they answer ------------------------------------------------------------------


def load_model(path: Path, backend: str, threads: int | None) -> Network:
    set_threads(threads)
    with users_mistakes():
        net = Network.load(path, backend=backend)
        classes = net.metadata.get("classes")
        if classes is not None and len(classes) != net.architecture.n_outputs:
            raise ValueError(f"{path}: {len(classes)} classes, {net.architecture.n_outputs} outputs")
    return net


def set_threads(threads: int | None) -> None:
    if threads is not None:
        set_num_threads(threads)


def as_pixels(net: Network, X: Array) -> Array:
    """Inputs for `net`: the 0..255 of a CSV file as pixels, where it learned from pixels."""
    if not net.metadata.get("pixels") or X.dtype == np.uint8 or X.max() <= 1:
        return X
    pixels = np.clip(X, 0, 255).astype(np.uint8)
    if (pixels != X).any():
        raise ValueError("X: expected pixels, whole numbers 0 to 255 or fractions of 1")
    return pixels


def read_inputs(net: Network, path: Path, label: str | None) -> Array:
    """Inputs of a file that may also hold labels: the number of columns tells."""
    if path.suffix.lower() == ".npz":
        return datasets.read_table(path, "X")[0]
    n_inputs = net.architecture.n_inputs
    with suppress(ValueError):
        X = datasets.read_table(path, label or net.metadata.get("label"))[0]
        if X.shape[1] == n_inputs:
            return X
    X, y, _ = datasets.read_table(path)
    return np.column_stack([X, y]) if y.dtype.kind in "if" else X


def known_classes(net: Network) -> list[Any]:
    return net.metadata.get("classes") or list(range(net.architecture.n_outputs))


def targets(net: Network, y: Array) -> Array:
    """Labels as the outputs of `net` that stand for them; other targets as they are."""
    if net.architecture.loss.name != "cross_entropy" or y.ndim != 1:
        return y
    outputs = {str(label): i for i, label in enumerate(known_classes(net))}
    distinct, inverse = np.unique(y, return_inverse=True)
    for label in distinct.tolist():
        if str(label) not in outputs:
            raise ValueError(f"label {label!r}: the model knows {', '.join(outputs)}")
    return np.array([outputs[str(label)] for label in distinct.tolist()])[inverse]


def scores_of(net: Network, X: Array, y: Array) -> dict[str, float]:
    """Loss, and accuracy for classes or the share of variance explained for quantities."""
    with users_mistakes():
        scores = net.evaluate(as_pixels(net, X), y)
    variance = float(np.var(y, axis=0).mean())
    if net.architecture.loss.name == "mse" and variance:
        scores["r2"] = 1 - scores["loss"] / variance
    return scores


def answers(net: Network, outputs: Array) -> list[Any]:
    """What each row of outputs says: a label, a number, or a row of them."""
    loss = net.architecture.loss.name
    if loss == "cross_entropy":
        classes = known_classes(net)
        return [classes[i] for i in outputs.argmax(axis=1)]
    values = (outputs >= 0.5).astype(int) if loss == "binary_cross_entropy" else outputs
    return (values[:, 0] if values.shape[1] == 1 else values).tolist()


# --- Output ---------------------------------------------------------------------------------------


def show(document: dict[str, Any], lines: dict[str, str], as_json: bool) -> None:
    if not as_json:
        print("\n".join(f"{name:<12}{line}" for name, line in lines.items()))
        return
    with users_mistakes():  # JSON has no infinity
        print(json.dumps(document, allow_nan=False))


def in_words(scores: dict[str, float]) -> str:
    texts = {"accuracy": "accuracy {:.2%}", "r2": "R² {:.4f}", "loss": "loss {:.4g}"}
    return ", ".join(text.format(scores[name]) for name, text in texts.items() if name in scores)


def as_csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


# --- Commands -------------------------------------------------------------------------------------

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"fastmlp {__version__}")
        raise typer.Exit


@app.callback()
def fastmlp(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Dense neural networks, trained on the CPU at the speed of the hardware.

    fastmlp train trains on handwritten digits, in about a second and without a network connection.
    """


@app.command()
def train(
    data: Data = "digits",
    layers: Annotated[
        Any,
        typer.Option(
            parser=hidden_layers,
            metavar="UNITS",
            help="Units of the hidden layers, such as 256,128; none for softmax regression.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    activation: Annotated[str, choice(HIDDEN_ACTIVATIONS, "Of hidden layers", NETWORK)] = "relu",
    dtype: Annotated[str, choice(("float32", "float64"), "Precision", NETWORK)] = "float32",
    optimizer: Annotated[str, choice(list(OPTIMIZERS), "Update rule", TRAINING)] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Size of a step.", rich_help_panel=TRAINING)
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of sgd only.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples a step.", rich_help_panel=TRAINING)
    ] = None,
    standardize: Annotated[
        bool | None,
        typer.Option(
            help="Shift and scale each column to mean 0, deviation 1 (on for tables, off for images); "
            "the saved network takes raw values.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Of weights, order and split.", rich_help_panel=TRAINING),
    ] = 0,
    label: Label = None,
    task: Annotated[
        str | None,
        choice(("classification", "regression"), "Default: by the labels", TABLES),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=0.9, help="Share of rows held out. [default: 0.2]", rich_help_panel=TABLES),
    ] = None,
    threads: Threads = None,
    backend: BackendName = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the network here (safetensors).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network and test it on data it has not seen.

    \b
    fastmlp train
    fastmlp train mnist --out mnist.safetensors
    fastmlp train houses.csv --label price --layers 128,64 --epochs 50
    """
    if momentum is not None and optimizer != "sgd":
        raise typer.BadParameter(f"{optimizer} has no momentum, only sgd.", param_hint="--momentum")
    name = named_set(data)
    tables_only = {"--label": label, "--task": task, "--test-fraction": test_fraction}
    for option, value in tables_only.items():
        if name and value is not None:
            raise typer.BadParameter(f"only for CSV and npz files, not for {name}.", param_hint=option)
    _check_writable(out)
    set_threads(threads)

    with users_mistakes():
        if name:
            d = load_named(name)
            problem = Problem(
                name, d.X_train, d.y_train, d.X_test, d.y_test, list(d.target_names), RECIPES[name]
            )
        else:
            fraction = 0.2 if test_fraction is None else test_fraction
            problem = load_table(data, label, task, fraction, seed)
