"""MLPClassifier against scikit-learn's, with equal parameters and results, in one run.

    python benchmarks/bench_estimators.py [REPEATS]

Each has a process of its own, and they take turns: BLAS's threads go on spinning for a while after
scikit-learn's work and would slow whatever comes next in their process.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[1]))  # where fastmlp is built in place, not installed

import numpy as np
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as Theirs

from fastmlp import MLPClassifier
from fastmlp.bench.problems import load_problem
from fastmlp.bench.terminal import wide_console

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PAUSE = 0.05
GRID = {
    "alpha": [1e-4, 1e-3, 1e-2],
    "learning_rate_init": [1e-3, 3e-3],
    "hidden_layer_sizes": [(50,), (100,)],
}


@dataclass(frozen=True)
class Row:
    """One comparison: `prepare` makes what is timed, which returns a figure that has to agree."""

    name: str
    target: float
    prepare: Callable[[Any], Callable[[], float]]
    calls: int = 1
    tolerance: float = 1e-6


def fit_mnist(kind: Any) -> Callable[[], float]:
    mnist = load_problem("mnist", "float32")
    settings = {"batch_size": 64, "max_iter": 1, "random_state": 0}
    return lambda: kind((256, 128), **settings).fit(mnist.X, mnist.y).loss_


def fit_digits(kind: Any) -> Callable[[], float]:
    X, y = load_digits(return_X_y=True)
    return lambda: kind(random_state=0).fit(X, y).loss_


def predict_a_row(kind: Any) -> Callable[[], float]:
    X, y = load_digits(return_X_y=True)
    model = kind(random_state=0, max_iter=20).fit(X, y)
    return lambda: float(model.predict(X[:1])[0])


def partial_fit(kind: Any) -> Callable[[], float]:
    mnist = load_problem("mnist", "float32")
    model = kind((256, 128), random_state=0)
    batches = iter(range(10**9))

    def next_batch() -> float:
        start = next(batches) % 200 * 256
        rows = slice(start, start + 256)
        model.partial_fit(mnist.X[rows], mnist.y[rows], classes=np.arange(10))
        return model.loss_

    return next_batch


def search(kind: Any) -> Callable[[], float]:
    X, y = load_digits(return_X_y=True)
    return lambda: (
        GridSearchCV(kind(random_state=0, max_iter=40), GRID, cv=3, n_jobs=2).fit(X, y).best_score_
    )


ROWS = (
    Row("fit MNIST, 784-256-128-10, batch 64, float32", 7, fit_mnist, 1, 1e-3),
    Row("fit digits, all defaults, float64", 5, fit_digits),
    Row("predict one row", 8, predict_a_row, 500),
    Row("partial_fit, 256 rows of MNIST, float32", 6, partial_fit, 50, 1e-2),
    Row("GridSearchCV, 12 candidates, n_jobs=2", 5, search, 1, 5e-3),
)


def serve(pipe: Connection, ours: bool) -> None:
    """A child: prepares the row it is told, then times it as often as it is asked."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    kind = MLPClassifier if ours else Theirs
    with suppress(EOFError):  # the parent has closed its end
        while True:
            row = ROWS[pipe.recv()]
            call = row.prepare(kind)
            while pipe.recv():
                began = perf_counter()
                for _ in range(row.calls):
                    figure = call()
                pipe.send(((perf_counter() - began) / row.calls, figure))


def measure(number: int, pipes: list[Connection], repeats: int) -> list[float]:
    """Median seconds a call, theirs and ours; an error where the figures do not agree."""
    seconds: list[list[float]] = [[], []]
    for pipe in pipes:
        pipe.send(number)
    for turn in range(repeats + 1):  # the first one does not count
        figures = []
        for pipe, times in zip(pipes, seconds, strict=True):
            sleep(PAUSE)
            pipe.send(True)
            took, figure = pipe.recv()
            figures.append(figure)
            if turn:
                times.append(took)
        row = ROWS[number]
        np.testing.assert_allclose(*figures, rtol=row.tolerance, err_msg=row.name)
    for pipe in pipes:
        pipe.send(False)
    return [median(times) for times in seconds]


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    columns = Table(box=None, pad_edge=False)
    for name in ("", "scikit-learn", "fastmlp", "ratio", "target"):
        columns.add_column(name, justify="right" if name else "left")
    context = get_context("spawn")
    pipes, failed = [], 0
    for ours in (False, True):
        pipe, other_end = context.Pipe()
        context.Process(target=serve, args=(other_end, ours)).start()
        other_end.close()
        pipes.append(pipe)
    try:
        for number, row in enumerate(ROWS):
            theirs, ours = measure(number, pipes, repeats)
            failed += theirs / ours < row.target
            figures = f"{theirs * 1e3:.4g} ms", f"{ours * 1e3:.4g} ms", f"{theirs / ours:.1f}x"
            columns.add_row(row.name, *figures, f"{row.target:g}x")
    finally:
        for pipe in pipes:
            pipe.close()  # ends the children
    wide_console().print(columns)
    return failed


if __name__ == "__main__":
    sys.exit(main())
