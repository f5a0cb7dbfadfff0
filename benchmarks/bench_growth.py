"""Whether cost grows linearly: time per sample over rows, per multiply-add over units.

    python benchmarks/bench_growth.py [REPEATS]

Rows are MNIST's as uint8, over and over, in one array; the largest takes 784 MB. For units they are
normal numbers: zeros of images, which are left out in the first layer, would make small nets cheap.
Multiply-adds are those of the matrix products: forward, dW, and dX of all layers but the first.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).parents[1]))  # where fastmlp is built in place, not installed

import numpy as np
from rich.table import Table

from fastmlp import Adam, Dense, Network, get_num_threads
from fastmlp.bench.problems import load_problem
from fastmlp.bench.terminal import wide_console

if TYPE_CHECKING:
    from rich.console import Console

Array = np.ndarray

ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
UNITS = (256, 512, 1024, 2048)
FLAT = 0.10


@dataclass(frozen=True)
class Point:
    """Epochs of one size, which take turns with the others: units of cost, and seconds."""

    size: int
    cost: float
    seconds: list[float]

    @property
    def per_unit(self) -> float:
        return median(self.seconds) / self.cost


def epoch(X: Array, y: Array, hidden: tuple[int, ...], batch_size: int) -> float:
    """Seconds of a second epoch."""
    layers = [*(Dense(units, "relu") for units in hidden), Dense(10, "softmax")]
    net = Network(X.shape[1], layers, loss="cross_entropy", seed=0)
    return net.fit(X, y, optimizer=Adam(1e-3), epochs=2, batch_size=batch_size)["seconds"][1]


def over_rows(repeats: int) -> list[Point]:
    problem = load_problem("mnist", "float32", pixels=True)
    X, y = np.resize(problem.X, (ROWS[-1], problem.n_inputs)), np.resize(problem.y, ROWS[-1])
    points = [Point(rows, rows, []) for rows in ROWS]
    for point in points * repeats:
        point.seconds.append(epoch(X[: point.size], y[: point.size], (256, 128), 64))
    return points


def over_units(repeats: int) -> list[Point]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((10_000, 784), dtype=np.float32)
    y = rng.integers(0, 10, len(X))
    points = []
    for units in UNITS:
        first, *others = (a * b for a, b in pairwise((784, units, units, 10)))
        points.append(Point(units, len(X) * (2 * first + 3 * sum(others)), []))
    for point in points * repeats:
        point.seconds.append(epoch(X, y, (point.size, point.size), 128))
    return points


def show(console: Console, title: str, size: str, cost: str, points: list[Point]) -> None:
    console.print(title)
    columns = Table(box=None, pad_edge=False)
    for name in (size, "epoch", f"per {cost}", f"of {points[0].size:,} {size}"):
        columns.add_column(name, justify="right")
    for point in points:
        ratio = point.per_unit / points[0].per_unit
        columns.add_row(
            f"{point.size:,}",
            f"{median(point.seconds):.4f} s",
            f"{point.per_unit * 1e9:.4g} ns",
            f"{ratio:.2f}{'' if ratio <= 1 + FLAT else '  not flat'}",
        )
    console.print(columns)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    console = wide_console()
    threads = f"{get_num_threads()} threads"
    rows = over_rows(repeats)
    show(console, f"784-256-128-10 relu, Adam, batch 64, {threads}", "rows", "sample", rows)
    units = over_units(repeats)
    title = f"\n784-units-units-10 relu, Adam, batch 128, 10,000 dense rows, {threads}"
    show(console, title, "units", "multiply-add", units)


if __name__ == "__main__":
    main()
