"""The command line: ``fastmlp train | runs | evaluate | predict | export | info | bench``.

Exit codes: 0 done; 1 failed, and one line on standard error says why; 2 wrong usage; 130 Ctrl-C.
What a user can put right shows no traceback; a mistake of this package does.
"""

from __future__ import annotations

import csv
import json
import sys
import warnings
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from typer.core import TyperGroup

from fastmlp import comparison, datasets, report, runtime, serialization
from fastmlp.activations import ACTIVATIONS
from fastmlp.bench.command import bench
from fastmlp.config import set_num_threads
from fastmlp.datasets import Dataset
from fastmlp.experiments import Experiment, find_experiments
from fastmlp.jobs import NORMALIZATIONS, Job
from fastmlp.network import Network
from fastmlp.settings import OPTIMIZER_NAMES, RECIPES, SCHEDULES, Settings, check_optimizer
from fastmlp.tables import read_table
from fastmlp.training import DivergenceError
from fastmlp.validation import check_inputs
from fastmlp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["app", "main"]

Array = np.ndarray


# --- Errors ---------------------------------------------------------------------------------------


class UserError(Exception):
    """What the user can put right: shown as one line."""


@contextmanager
def users_mistakes() -> Iterator[None]:
    """Around calls that check what the user gave. A ValueError elsewhere is a mistake of ours."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(str(error)) from error


class Commands(TyperGroup):
    """The one place that turns exceptions into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a full disk or a closed pipe shows here, not while Python exits
            return result
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(130) from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            if not isinstance(error, BrokenPipeError):  # a reader may leave early: head does
                complain(f"error: {place}{error.strerror or error}")
            drop_unwritable_output()
        except MemoryError as error:
            complain(f"error: not enough memory: {error}")
        except (UserError, DivergenceError) as error:
            complain(f"error: {error}")
        raise typer.Exit(1)


def drop_unwritable_output() -> None:
    """Keep Python from trying again while it exits, which would change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()


def complain(message: str) -> None:
    typer.echo(" ".join(message.split()), err=True)


def check_out(path: Path | None) -> None:
    """Find out before the work, not after it, that its result cannot be written."""
    if path is None:
        return
    try:
        serialization.check_writable(path)
    except OSError as error:
        raise UserError(f"--out: cannot write {path}: {error.strerror}") from error


# --- Options --------------------------------------------------------------------------------------


def option(help: str, *flags: str, **settings: Any) -> Any:
    return typer.Option(*flags, help=help, **settings)


def choice(help: str, names: Sequence[str]) -> Any:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise typer.BadParameter(f"{text!r} is none of {', '.join(names)}.")
        return text.lower()

    return option(f"{help}: {', '.join(names)}.", parser=parse, metavar="NAME")


def parse_layers(text: str) -> tuple[int, ...]:
    if text.strip().lower() in ("", "none"):
        return ()
    units = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if 0 in units:
        raise typer.BadParameter(f"{text!r}: expected units such as 256,128, or none.")
    return units


def parse_rate(text: str) -> float | str:
    if text.lower() == "auto":
        return "auto"
    with suppress(ValueError):
        if 0 <= float(text) < np.inf:
            return float(text)
    raise typer.BadParameter(f"{text!r}: expected a number in [0, inf) or auto.")


HIDDEN = [name for name, record in ACTIVATIONS.items() if record.differentiable]
HELD_OUT = "Share of a file to test on, 0.2 if not given."

Data = Annotated[
    str, typer.Argument(metavar="DATASET", help=f"{', '.join(RECIPES)}; or a CSV or npz file.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="File that train --out wrote.")]
Layers = Annotated[
    Any, option("Hidden units: 256,128 or none.", parser=parse_layers, metavar="UNITS")
]
Activation = Annotated[str, choice("Of hidden layers", HIDDEN)]
Dtype = Annotated[str, choice("Precision", ("float32", "float64"))]
Rule = Annotated[str, choice("Update rule", [*OPTIMIZER_NAMES])]
Rate = Annotated[Any, option("Size of a step; auto finds one.", parser=parse_rate, metavar="X")]
ScheduleName = Annotated[str, choice("Of the learning rate", [*SCHEDULES])]
Warmup = Annotated[float, option("Epochs in which the rate rises.", metavar="N", min=0)]
Momentum = Annotated[float | None, option("Of sgd.", metavar="X", min=0)]
Epochs = Annotated[int | None, option("Passes over the data.", metavar="N", min=1)]
BatchSize = Annotated[int | None, option("Samples a step.", metavar="N", min=1)]
Standardize = Annotated[bool | None, option("Columns to mean 0, deviation 1.")]
Seed = Annotated[int, option("Of weights, order and split.", metavar="N", min=0)]
Label = Annotated[
    str | None, option("Labels of a file: name or index of the column, npz array.", metavar="NAME")
]
Task = Annotated[str | None, choice("Kind of labels of a file", ("classification", "regression"))]
TestFraction = Annotated[float | None, option(HELD_OUT, metavar="X", min=0, max=0.9)]
ValidationFraction = Annotated[
    float | None,
    option("Share of the training data to validate on, 0.1 with --patience.", metavar="X",
           min=0, max=0.9),
]  # fmt: skip
Patience = Annotated[
    int | None, option("Stop after N epochs without improvement.", metavar="N", min=1)
]
TimeLimit = Annotated[float | None, option("Stop after so many seconds.", metavar="S", min=0)]
DropoutRate = Annotated[
    float, option("Share of hidden units left out.", metavar="X", min=0, max=0.99)
]
Normalization = Annotated[str, choice("Of hidden layers", ("none", *NORMALIZATIONS))]
L2 = Annotated[float, option("Penalty on squared weights.", metavar="X", min=0)]
WeightDecay = Annotated[float | None, option("Decoupled weight decay.", metavar="X", min=0)]
ClipNorm = Annotated[float | None, option("Largest norm of a gradient.", metavar="X", min=1e-12)]
Smoothing = Annotated[
    float, option("Share given to all classes alike.", metavar="X", min=0, max=0.99)
]
Average = Annotated[
    float | None, option("Moving average of the weights, 0.999.", metavar="X", min=0, max=0.999999)
]
RunDir = Annotated[Path | None, option("Keep everything in a new folder.", metavar="FOLDER")]
Overwrite = Annotated[bool, option("Replace the experiment in --run-dir.", "--overwrite")]
Resume = Annotated[Path | None, option("Go on in the folder of --run-dir.", metavar="FOLDER")]
Plots = Annotated[Path | None, option("Write pictures to a folder.", "--plot", metavar="FOLDER")]
Events = Annotated[
    Path | None, option("Write events for TensorBoard.", "--tensorboard", metavar="FOLDER")
]
Threads = Annotated[int | None, option("Most threads to use.", metavar="N", min=1)]
Backend = Annotated[str, choice("What computes", ("auto", "compiled", "numpy"))]
Out = Annotated[Path | None, option("File to write the result to.", metavar="FILE")]
Json = Annotated[bool, option("Print one JSON document, nothing else.", "--json")]


# --- Data -----------------------------------------------------------------------------------------


def name_of(data: str) -> str | None:
    """The named data set that is meant; None for a file; wrong usage where it can be neither."""
    name = data.lower().replace("-", "_")
    if name in RECIPES:
        return name
    if not Path(data).suffix and not Path(data).exists():
        message = f"{data!r} is none of {', '.join(RECIPES)}, nor a file."
        raise typer.BadParameter(message, param_hint="DATASET")
    return None


def load_named(name: str) -> Dataset:
    dataset: Dataset = getattr(datasets, f"load_{name}")()
    return dataset


# --- Networks and what they answer ----------------------------------------------------------------


def load_model(path: Path, backend: str = "auto") -> Network:
    with users_mistakes():
        net = Network.load(path, backend=backend)
        classes = classes_of(net)
        if not isinstance(classes, list) or len(classes) != net.architecture.n_outputs:
            raise ValueError(f"{path}: expected a class for each output in the metadata")
    return net


def classes_of(net: Network) -> list[Any]:
    classes: list[Any] = net.metadata.get("classes") or [*range(net.architecture.n_outputs)]
    return classes


def as_targets(net: Network, y: Array) -> Array:
    """Labels as numbers of the outputs that stand for them; targets of other kinds as they are."""
    if net.architecture.loss.name != "cross_entropy" or y.ndim != 1:
        return y
    outputs = {str(label): i for i, label in enumerate(classes_of(net))}
    distinct, inverse = np.unique(y, return_inverse=True)
    for label in distinct.tolist():
        if str(label) not in outputs:
            raise ValueError(f"label {label!r}: the model knows {', '.join(outputs)}")
    chosen: Array = np.array([outputs[str(label)] for label in distinct.tolist()])[inverse]
    return chosen


def as_pixels(net: Network, X: Array) -> Array:
    """The 0..255 of a CSV file as pixels, for a network that learned from pixels."""
    if not net.metadata.get("pixels") or X.dtype == np.uint8 or X.max() <= 1:
        return X
    pixels: Array = np.clip(X, 0, 255).astype(np.uint8)
    if (pixels != X).any():
        raise ValueError("X: expected pixels, whole numbers from 0 to 255 or fractions of 1")
    return pixels


def read_inputs(net: Network, path: Path, label: str | None) -> Array:
    """Inputs of a file that may hold labels too: the number of columns tells."""
    if path.suffix.lower() == ".npz":
        return read_table(path, "X")[0]  # whether there is a y or not
    if label is not None:
        return read_table(path, label)[0]
    with suppress(ValueError):  # of a file without that column, too
        X, _, _ = read_table(path, net.metadata.get("label"))
        if X.shape[1] == net.architecture.n_inputs:
            return X
    X, last, _ = read_table(path)
    return np.column_stack([X, last]) if last.dtype.kind in "if" else X


def scores_of(net: Network, X: Any, y: Array) -> dict[str, float]:
    """Loss; accuracy for classes; R2, the explained share of the variance, for squared errors."""
    scores = net.evaluate(X, y)
    variance = float(np.var(y, axis=0).mean())
    if net.architecture.loss.name == "mse" and variance > 0:
        scores["r2"] = 1 - scores["loss"] / variance
    return scores


def answers(net: Network, outputs: Array) -> list[list[Any]]:
    """What each row of outputs says: a label, or numbers."""
    loss = net.architecture.loss.name
    if loss == "cross_entropy":
        classes = classes_of(net)
        return [[classes[i]] for i in outputs.argmax(axis=1)]
    if loss == "binary_cross_entropy":
        return [[int(value >= 0.5) for value in row] for row in outputs]
    return numbers(outputs)


def numbers(values: Array) -> list[list[Any]]:
    """Rows of Python numbers with no more digits than `values` have: 0.1 of a float32 is 0.1."""
    shortest: list[list[Any]] = values.astype(str).astype(np.float64).tolist()
    return shortest


# --- Output ---------------------------------------------------------------------------------------


def show(document: dict[str, Any], lines: dict[str, str], as_json: bool) -> None:
    if not as_json:
        print("\n".join(f"{name:<10}{line}" for name, line in lines.items()))
        return
    with users_mistakes():  # JSON has no infinity
        print(json.dumps(document, allow_nan=False))


def in_words(scores: dict[str, float]) -> str:
    shown = {"accuracy": "accuracy {:.2%}", "r2": "R2 {:.4f}", "loss": "loss {:.4g}"}
    return ", ".join(text.format(scores[name]) for name, text in shown.items() if name in scores)


# --- Commands -------------------------------------------------------------------------------------

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"fastmlp {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, option("Show the version.", "--version", callback=print_version, is_eager=True)
]


@app.callback()
def fastmlp(version: Version = False) -> None:
    """Dense neural networks, trained on the CPU at the speed of the hardware.

    Begin with: fastmlp train
    """


@app.command()
def train(
    ctx: typer.Context,
    data: Data = "digits",
    layers: Layers = None,
    activation: Activation = "relu",
    optimizer: Rule = "adam",
    learning_rate: Rate = None,
    schedule: ScheduleName = "linear",
    warmup: Warmup = 0.0,
    momentum: Momentum = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    standardize: Standardize = None,
    seed: Seed = 0,
    label: Label = None,
    task: Task = None,
    test_fraction: TestFraction = None,
    validation_fraction: ValidationFraction = None,
    patience: Patience = None,
    time_budget: TimeLimit = None,
    dropout: DropoutRate = 0.0,
    normalization: Normalization = "none",
    l2: L2 = 0.0,
    weight_decay: WeightDecay = None,
    clip_norm: ClipNorm = None,
    label_smoothing: Smoothing = 0.0,
    average: Average = None,
    dtype: Dtype = "float32",
    backend: Backend = "auto",
    threads: Threads = None,
    run_dir: RunDir = None,
    overwrite: Overwrite = False,
    resume: Resume = None,
    plot: Plots = None,
    tensorboard: Events = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Train a network, and test it on data it has not seen.

    What you do not say is chosen to suit the data set; tables are standardised, images are not.
    The saved network takes raw inputs.

    \b
    fastmlp train
    fastmlp train mnist --epochs 5 --out mnist.safetensors
    fastmlp train houses.csv --label price --layers 128,64 --patience 5
    fastmlp train mnist --run-dir runs/first --plot pictures
    fastmlp train --resume runs/first
    """  # noqa: D301
    check_out(out)
    set_num_threads(threads)
    with users_mistakes():
        if plot is not None:
            report.check_matplotlib()
    if resume is not None:
        check_resumed_options(ctx)
        job, net, experiment = reopen(resume, epochs)
    else:
        name = name_of(data)
        table_only = {"--label": label, "--task": task, "--test-fraction": test_fraction}
        for flag, value in table_only.items():
            if name and value is not None:
                raise typer.BadParameter(
                    f"is for CSV and npz files, not for {name}.", param_hint=flag
                )
        try:
            check_optimizer(optimizer, learning_rate, momentum)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        if validation_fraction is None:
            validation_fraction = 0.1 if patience else 0.0
        settings = Settings(
            data=name or data,
            label=label,
            task=task,
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            layers=layers,
            activation=activation,
            dtype=dtype,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            schedule=schedule,
            warmup=warmup,
            epochs=epochs,
            batch_size=batch_size,
            standardize=standardize,
            patience=patience,
            time_budget=time_budget,
            dropout=dropout,
            normalization=normalization,
            l2=l2,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            label_smoothing=label_smoothing,
            average=average,
            seed=seed,
            backend=backend,
        )
        with users_mistakes():
            job = Job(settings)
            net = job.new_network()
        job.choose_rate(net)
        experiment = new_experiment(run_dir, job, overwrite)
    with users_mistakes():
        n_threads = net.backend.thread_limit()
        callbacks = job.callbacks(experiment, tensorboard)
    settings = job.settings
    verbose = int(sys.stderr.isatty())
    reason = job.fit(net, callbacks, verbose).stop_reason
    history = net.history
    if not job.is_exact(net):
        dtype = str(net.architecture.dtype)
        complain(f"warning: {dtype} is too coarse for these raw inputs: use --dtype float64")
    best, loaded = job.ready(net), job.data
    scores = scores_of(best, loaded.X_test, loaded.y_test) if len(loaded.X_test) else None
    if out:
        best.save(out)
    if experiment is not None:
        result = {"test": scores, "stop_reason": reason, "epochs": history.last_epoch}
        with users_mistakes():
            experiment.write("result.json", result)
        with suppress(ImportError):
            report.check_matplotlib()
            report.draw_curves(experiment.path("curves.png"), history)
    drawn = report.draw_everything(plot, job, best, history) if plot is not None else []

    classes, n_train, n_test = list(loaded.target_names), len(loaded.X_train), len(loaded.X_test)
    seconds = np.array(history["seconds"])
    speed = float(seconds @ history["samples_per_second"] / seconds.sum())
    document = {
        "dataset": loaded.name,
        "n_train": n_train,
        "n_test": n_test,
        "classes": classes,
        "architecture": net.architecture.to_dict(),
        "parameters": net.arena.size,
        "optimizer": job.rule.describe(),
        "schedule": settings.schedule,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "standardize": settings.standardize,
        "seed": settings.seed,
        "backend": net.backend.name,
        "threads": n_threads,
        "history": history.records,
        "stop_reason": reason,
        "seconds": sum(history["seconds"]),
        "samples_per_second": speed,
        "test": scores,
        "saved": str(out) if out else None,
        "run_dir": str(experiment.folder) if experiment else None,
    }
    hidden = f" {settings.activation}" if settings.layers else ""
    a = net.architecture
    units = "-".join(map(str, (a.n_inputs, *(settings.layers or ()), a.n_outputs))) + hidden
    kind = f"{len(classes)} classes" if classes else "regression"
    rate = f"learning rate {settings.learning_rate:g}{RATES.get(settings.schedule, '')}"
    epochs_done = f"{history.last_epoch} epochs"
    if reason != "epochs":
        epochs_done += f" of {settings.epochs} ({REASONS.get(str(reason), reason)})"
    rule_name = type(job.rule).__name__
    lines = {
        "data": f"{loaded.name}: {n_train:,} training and {n_test:,} test samples, {kind}",
        "network": f"{units}, {net.arena.size:,} parameters, {net.backend.name} backend",
        "training": f"{rule_name}, {rate}, batch {settings.batch_size}, {epochs_done}",
        "time": f"{seconds.sum():.3g} s, {speed:,.0f} samples/s",
        "test": in_words(scores) if scores else "no samples held out",
        "saved": str(out) if out else "no; --out FILE saves the network",
    }
    if experiment is not None:
        lines["saved"] = str(out) if out else str(experiment.path("best.safetensors"))
        lines["run"] = str(experiment.folder)
    if drawn:
        lines["pictures"] = f"{plot}: {', '.join(drawn)}"
    show(document, lines, as_json)


# What is said of them in the summary.
RATES = {"constant": "", "linear": " falling to 0"} | {
    name: f" ({name})" for name in SCHEDULES if name not in ("constant", "linear")
}
REASONS = {"EarlyStopping": "no improvement any more", "TimeBudget": "time is up"}
# What one may say beside --resume; everything else is in the folder.
WITH_RESUME = ("resume", "epochs", "threads", "plot", "tensorboard", "out", "as_json")


def new_experiment(folder: Path | None, job: Job, overwrite: bool) -> Experiment | None:
    if folder is None:
        if overwrite:
            raise typer.BadParameter("is for --run-dir.", param_hint="--overwrite")
        return None
    try:
        return Experiment.create(folder, job.to_dict(), overwrite=overwrite)
    except FileExistsError as error:
        if error.errno:  # of the system: a file is in the way
            raise
        advice = "" if "no experiment" in str(error) else "; go on with --resume, or --overwrite it"
        raise UserError(f"--run-dir: {error}{advice}") from error


def check_resumed_options(ctx: typer.Context) -> None:
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(str(parameter.name))
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in WITH_RESUME:
            flag = parameter.opts[0] if parameter.name != "data" else "DATASET"
            raise typer.BadParameter("is in the folder of --resume already.", param_hint=flag)


def reopen(folder: Path, epochs: int | None) -> tuple[Job, Network, Experiment | None]:
    """An unfinished experiment and its network; `epochs` in all, more than before."""
    with users_mistakes():
        experiment = Experiment.open(folder)
        experiment.remove_leftovers()
        job = Job.from_dict(experiment.settings)
        path = experiment.path("checkpoint.safetensors")
        if not path.exists():  # it ended before the first epoch did
            net = job.new_network()
        else:
            net = Network.load(path, backend=job.settings.backend)
        job.extend(epochs)
    wanted, done = job.settings.epochs, net.history.last_epoch
    assert wanted is not None
    if done >= wanted or (experiment.result is not None and epochs is None):
        raise UserError(f"{folder}: finished, after {done} of {wanted} epochs; --epochs N for more")
    if epochs is not None:
        experiment.write("settings.json", job.to_dict())
    return job, net, experiment


@app.command()
def evaluate(
    model: Model,
    data: Data = "",
    label: Label = None,
    threads: Threads = None,
    backend: Backend = "auto",
    as_json: Json = False,
) -> None:
    """Test a saved network: on the held-out part of a data set, or on a whole file.

    Without DATASET it is the one that the network learned from, if that has a name.

    \b
    fastmlp evaluate mnist.safetensors
    fastmlp evaluate houses.safetensors new_houses.csv --label price
    """  # noqa: D301
    set_num_threads(threads)
    net = load_model(model, backend)
    if not data:
        data = str(net.metadata.get("dataset"))
        if data not in RECIPES:
            raise typer.BadParameter(
                "the network learned from a file: say which data to use.", param_hint="DATASET"
            )
    name = name_of(data)
    with users_mistakes():
        if name:
            loaded = load_named(name)
            X, y = loaded.X_test, loaded.y_test
            if set(loaded.target_names) == set(map(str, classes_of(net))):
                y = np.array(loaded.target_names)[y]
        else:
            X, y, _ = read_table(data, label or net.metadata.get("label"))
        inputs = check_inputs(as_pixels(net, X), net.architecture)
        scores = scores_of(net, inputs, as_targets(net, y))
    lines = {
        "data": f"{data}: {len(X):,} {'held-out ' if name else ''}samples",
        "test": in_words(scores),
    }
    show({"model": str(model), "dataset": data, "n": len(X), **scores}, lines, as_json)


@app.command()
def predict(
    model: Model,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or npz file of inputs.")],
    label: Label = None,
    proba: Annotated[bool, option("Add each class's probability.", "--proba")] = False,
    out: Out = None,
    threads: Threads = None,
    backend: Backend = "auto",
    as_json: Json = False,
) -> None:
    """Print what a saved network says of each row of a file, one line a row.

    A column of labels in the file is left out. With --proba or --out it is CSV with a header.

    \b
    fastmlp predict iris.safetensors flowers.csv
    fastmlp predict iris.safetensors flowers.csv --proba --out answers.csv
    """  # noqa: D301
    check_out(out)
    set_num_threads(threads)
    net = load_model(model, backend)
    if proba and net.architecture.loss.name != "cross_entropy":
        raise typer.BadParameter("is for networks that tell classes apart.", param_hint="--proba")
    with users_mistakes():
        outputs = net.predict(as_pixels(net, read_inputs(net, file, label)))
    rows = answers(net, outputs)
    header = ["prediction"] if len(rows[0]) == 1 else [f"y{i}" for i in range(len(rows[0]))]
    document = {"predictions": [row[0] if len(row) == 1 else row for row in rows]}
    if proba:
        probabilities = numbers(outputs)
        document |= {"classes": classes_of(net), "probabilities": probabilities}
        header += map(str, classes_of(net))
        rows = [a + b for a, b in zip(rows, probabilities, strict=True)]
    if out:
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        serialization.write_atomically(out, text.getvalue().encode())
    if as_json:
        show(document, {}, as_json)
    elif not out:
        lines = [header, *rows] if proba else rows
        csv.writer(sys.stdout, lineterminator="\n").writerows(lines)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL")],
    out: Annotated[Path, typer.Argument(metavar="OUT")],
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Inputs are uint8 pixels, 0 to 255.")
    ] = False,
) -> None:
    """Write a saved network for other programs: an ONNX model (.onnx) or one C header (.h).

    \b
    fastmlp export mnist.safetensors mnist.onnx
    fastmlp export mnist.safetensors mnist.h --pixels
    """  # noqa: D301
    net = load_model(model)
    writers = {".onnx": net.to_onnx, ".h": net.to_c}
    if out.suffix not in writers:
        raise typer.BadParameter(f"ends in .onnx or .h, not {out.suffix!r}.", param_hint="OUT")
    with users_mistakes():
        writers[out.suffix](out, pixels=pixels)


@app.command()
def info(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL")] = None, as_json: Json = False
) -> None:
    """Show what a saved network is; without MODEL, what was built and what of it runs.

    \b
    fastmlp info
    fastmlp info mnist.safetensors
    """  # noqa: D301
    if model is None:
        with users_mistakes():
            show(runtime.configuration(), {}, True) if as_json else runtime.show_config()
        return
    net = load_model(model)
    parts = {"architecture": net.architecture.to_dict(), "parameters": net.arena.size}
    if not as_json:
        print(net)
    lines = {name: str(value) for name, value in net.metadata.items()}
    show({**parts, "metadata": net.metadata}, lines, as_json)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where run folders are.")],
    sort: Annotated[
        str, option("A score or a setting: val_loss, learning_rate...", metavar="NAME")
    ] = "run",
    plot: Annotated[Path | None, option("Draw the runs' curves to a file.", metavar="FILE")] = None,
    quantity: Annotated[
        str | None, option("What --plot draws; val_loss if there is.", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the experiments in a folder and below, and compare them.

    Losses are those of the last epoch's training, val columns the best of all epochs: of the
    validation part, or of the test set where none was split off. The best scores are bold.

    \b
    fastmlp runs runs
    fastmlp runs runs --sort val_loss --plot runs.png
    """  # noqa: D301
    from rich.console import Console

    with users_mistakes():
        if plot is not None:
            report.check_matplotlib()
            check_out(plot)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        experiments = find_experiments(folder)
        if not experiments:
            raise ValueError(f"{folder}: no experiments; fastmlp train --run-dir makes one")
        described = [comparison.describe(experiment, folder) for experiment in experiments]
        known = {*comparison.SCORES, "run", "epochs_done", *described[0]["settings"]}
        if sort not in known:
            raise ValueError(f"--sort: {sort!r} is none of {', '.join(sorted(known))}")
        ordered = sorted(described, key=comparison.sort_key(sort))
        if plot is not None:
            histories = {d["run"]: e.history for d, e in zip(described, experiments, strict=True)}
            report.draw_runs(plot, histories, quantity)
    if as_json:
        show({"runs": ordered}, {}, as_json)
        return
    table, lines = comparison.table_of(ordered)
    console = Console(highlight=False)
    console.print(table)
    print()
    for line in lines:
        console.print(line)


app.command()(bench)


def main() -> None:
    """Run the command line."""
    # Python's own form of a warning shows a line of this package's source.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    app()
