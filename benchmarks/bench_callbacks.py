"""What callbacks cost: time of an epoch with each of them, less that of an epoch without.

    python benchmarks/bench_callbacks.py [FOLDER]

Files are written to FOLDER, else to the one for temporary files.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from fastmlp import Adam, Callback, Checkpoint, Dense, EarlyStopping, Network, callbacks, loggers
from fastmlp.datasets import load_iris, load_mnist

TURNS = 9


class EverySteps(Callback):
    def __init__(self, n):
        self.every_n_steps = n


def problems():
    """Name, widths, data, batch size, epochs of a turn."""
    mnist, iris = load_mnist(), load_iris()
    # A tenth of MNIST: what callbacks cost depends on the network, and the noise on the epoch.
    X, y = mnist.X_train[:6400], mnist.y_train[:6400]
    yield "6,400 of MNIST, 784-256-128-10, batch 64", (256, 128, 10), X, y, 64, 15
    iris_X = iris.X_train.astype(np.float32)
    yield "Iris 4-16-3, batch 32", (16, 3), iris_X, iris.y_train, 32, 200


def kinds(folder):
    """Names and what makes new callbacks."""
    yield "none (the noise)", list
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
            problem = widths, X, y, batch_size, epochs
            fitted(*problem, [])  # warms up
            plain, more = [], {}
            for kind, make in kinds(Path(folder)):
                # In turns: what slows the machine slows both.
                pairs = [(fitted(*problem, []), fitted(*problem, make())) for _ in range(TURNS)]
                plain += [without for without, _ in pairs]
                more[kind] = [with_it - without for without, with_it in pairs]
            epoch, n_steps = statistics.median(plain), -(-len(X) // batch_size)
            print(f"{name}: an epoch of {n_steps} steps takes {epoch * 1e3:.4g} ms; more with")
            for kind, values in more.items():
                cost = statistics.median(values)
                print(f"  {kind:<38}{cost * 1e6:>10.0f} us {cost / epoch:>9.1%}")


if __name__ == "__main__":
    main()
