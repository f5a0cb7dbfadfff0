"""What callbacks cost: time of an epoch with each of them, less that of an epoch without."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from fastmlp import Adam, Callback, Checkpoint, Dense, EarlyStopping, Network, callbacks, loggers
from fastmlp.datasets import load_iris, load_mnist

TURNS = 7


class EverySteps(Callback):
    def __init__(self, n):
        self.every_n_steps = n


def problems():
    """Name, widths, data, batch size, epochs of a turn."""
    mnist, iris = load_mnist(), load_iris()
    yield "MNIST 784-256-128-10, batch 64", (256, 128, 10), mnist.X_train, mnist.y_train, 64, 2
    iris_X = iris.X_train.astype(np.float32)
    yield "Iris 4-16-3, batch 32", (16, 3), iris_X, iris.y_train, 32, 200


def kinds(folder):
    """Names and what makes new callbacks."""
    yield "none", list
    yield "early stopping, each epoch the best", lambda: [EarlyStopping("epoch", mode="max")]
    yield "time budget", lambda: [callbacks.TimeBudget(1e6)]
    yield "CSV log", lambda: [loggers.CSVLogger(folder / "log.csv")]
    yield "JSON lines", lambda: [loggers.JSONLinesLogger(folder / "log.jsonl")]
    yield "checkpoint, each epoch", lambda: [Checkpoint(folder / "last")]
    for n in (100, 10, 1):
        yield f"a hook every {n} steps", lambda n=n: [EverySteps(n)]


def fitted(widths, X, y, batch_size, epochs, chosen):
    """Seconds an epoch of a whole fit."""
    *hidden, last = widths
    layers = [*(Dense(n, "relu") for n in hidden), Dense(last, "softmax")]
    net = Network(X.shape[1], layers, loss="cross_entropy", seed=0)
    began = perf_counter()
    net.fit(X, y, optimizer=Adam(), epochs=epochs, batch_size=batch_size, callbacks=chosen)
    return (perf_counter() - began) / epochs


def main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        for name, widths, X, y, batch_size, epochs in problems():
            makers = dict(kinds(Path(folder)))
            times = {kind: [] for kind in makers}
            for turn in range(TURNS + 1):
                for kind, make in makers.items():
                    seconds = fitted(widths, X, y, batch_size, epochs, make())
                    if turn:  # the first warms up
                        times[kind].append(seconds)
            plain = statistics.median(times["none"])
            steps = -(-len(X) // batch_size)
            print(f"{name}: an epoch of {steps} steps takes {plain * 1e3:.4g} ms; more with")
            for kind, values in times.items():
                if kind != "none":
                    # Differences within a turn: what slows the machine slows both.
                    differences = [a - b for a, b in zip(values, times["none"], strict=True)]
                    more = statistics.median(differences)
                    print(f"  {kind:<38}{more * 1e6:>10.0f} us {more / plain:>9.1%}")


if __name__ == "__main__":
    main()
