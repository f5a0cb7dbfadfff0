"""What is measured: one record a row of the table.

Targets are ratios: a peer's time divided by fastmlp's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from fastmlp.layers import Dense
from fastmlp.network import Network
from fastmlp.optimizers import SGD, Adam, Optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QUICK", "WORKLOADS", "Task", "Workload"]


class Task(StrEnum):
    """What one measurement is."""

    EPOCH = "epoch"  # a pass over the data, inside a running fit
    FIT = "fit"  # a whole fit, from fresh weights
    PREDICT = "predict"  # one call
    START = "start"  # a whole process, until the accuracy on the test set is reached
    MEMORY = "memory"  # a whole process; its memory, not its time


@dataclass(frozen=True)
class Workload:
    """A row of the table.

    Attributes
    ----------
    name : str
        For ``--workload``.
    task : Task
    data : str
        Name of a problem in `problems`.
    hidden : tuple of int
        Units of the hidden layers.
    activation : str
        Of the hidden layers.
    peers : tuple of str
        Who can do it, fastmlp first.
    targets : mapping of peer to float
        Smallest ratio that is wanted.
    optimizer : Optimizer
    batch_size : int
    epochs : int
        Of one measurement.
    rows : int
        Of one call to predict.
    threads : int
        At most, for everybody.
    dtype : str
    isa : str or None
        Value of ``FASTMLP_ISA``.
    slices : mapping of peer to int
        Into so many parts an epoch may be cut for a peer that takes many seconds for one; the
        time of a part is scaled up.
    slow : tuple of str
        Peers whose turns take seconds, and that nobody is waiting for: left out where no peer is
        named.
    tolerance : float
        By how much accuracies on the same work may differ.
    accuracy : float
        On the test set, at which a whole process may stop.
    limit : float or None
        What fastmlp's own median has to stay below: seconds, megabytes for memory.
    share_of_peak : float or None
        That fastmlp has to reach.
    """

    name: str
    task: Task
    data: str
    hidden: tuple[int, ...]
    activation: str
    peers: tuple[str, ...]
    targets: Mapping[str, float] = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Adam)
    batch_size: int = 64
    epochs: int = 1
    rows: int = 1
    threads: int = 2
    dtype: str = "float32"
    isa: str | None = None
    slices: Mapping[str, int] = field(default_factory=dict)
    slow: tuple[str, ...] = ()
    tolerance: float = 0.015
    accuracy: float = 1.0
    limit: float | None = None
    share_of_peak: float | None = None

    def widths(self, n_inputs: int, n_outputs: int) -> tuple[int, ...]:
        return (n_inputs, *self.hidden, n_outputs)

    def network(self, n_inputs: int, n_outputs: int, backend: str = "numpy") -> Network:
        """The network with its initial weights: the same in every process and for every peer.

        Its generator draws the order of samples next, as a fit of this network would.
        """
        layers = [Dense(n_units, self.activation) for n_units in self.hidden]
        binary = n_outputs == 1
        layers.append(Dense(n_outputs, "sigmoid" if binary else "softmax"))
        loss = "binary_cross_entropy" if binary else "cross_entropy"
        return Network(n_inputs, layers, loss=loss, dtype=self.dtype, seed=SEED, backend=backend)

    def flop(self, n_inputs: int, n_outputs: int, n_samples: int) -> int:
        """Floating-point operations of one measurement, two a multiply-add; 0 where not counted.

        Of the matrix products alone: forward, dW, and dX of every layer but the first. Zeros that
        are skipped count as work done.
        """
        widths = self.widths(n_inputs, n_outputs)
        layers = [a * b for a, b in itertools.pairwise(widths)]
        if self.task is Task.PREDICT:
            return 2 * sum(layers) * self.rows
        if self.task in (Task.EPOCH, Task.FIT):
            return 2 * (3 * sum(layers) - layers[0]) * n_samples * self.epochs
        return 0


SEED = 0

TRAINERS = (
    *("fastmlp", "fastmlp-1", "fastmlp-uint8", "numpy", "numpy-loop"),
    *("torch", "torch-compiled", "jax", "sklearn"),
)
PREDICTORS = ("fastmlp", "numpy-loop", "onnxruntime", "torch", "torch-compiled", "jax", "sklearn")


def without(peers: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(peer for peer in peers if peer not in names)


MINIBATCH = Workload(
    "minibatch",
    Task.EPOCH,
    "mnist",
    (256, 128),
    "relu",
    TRAINERS,
    targets={"jax": 2.5, "torch": 5, "sklearn": 10, "fastmlp-1": 1.8},
    optimizer=Adam(1e-3),
    batch_size=64,
    slow=("numpy",),
)
PREDICT = replace(
    MINIBATCH,
    name="predict-one",
    task=Task.PREDICT,
    peers=PREDICTORS,
    targets={"onnxruntime": 3, "numpy-loop": 3},
    rows=1,
    threads=1,
)

_RECORDS = [
    Workload(
        "per-sample",
        Task.EPOCH,
        "mnist",
        (32, 32),
        "sigmoid",
        without(TRAINERS, "fastmlp-1"),
        targets={"jax": 7, "torch": 220, "numpy-loop": 55},
        optimizer=SGD(0.03),
        batch_size=1,
        threads=1,
        slow=("numpy", "sklearn"),
        slices={"torch": 10, "torch-compiled": 10, "sklearn": 10, "numpy": 10, "numpy-loop": 5},
    ),
    MINIBATCH,
    replace(
        MINIBATCH,
        name="minibatch-1-thread",
        peers=without(TRAINERS, "fastmlp-1"),
        targets={"jax": 1.9, "torch": 4},
        threads=1,
    ),
    Workload(
        "fashion",
        Task.EPOCH,
        "fashion_mnist",
        (256, 128, 64),
        "relu",
        TRAINERS,
        targets={"jax": 1.7, "torch": 4, "fastmlp-1": 1.8},
        optimizer=SGD(0.05),
        batch_size=64,
        tolerance=0.03,  # plain SGD is restless: epochs in different orders differ by as much
    ),
    Workload(
        "wide",
        Task.EPOCH,
        "mnist",
        (1024, 1024),
        "relu",
        without(TRAINERS, "fastmlp-uint8"),
        targets={"jax": 1.5, "torch": 2.7, "fastmlp-1": 1.8},
        share_of_peak=0.8,
        optimizer=Adam(1e-3),
        batch_size=128,
    ),
    Workload(
        "small-batch",
        Task.EPOCH,
        "mnist",
        (32, 32),
        "relu",
        TRAINERS,
        # With one thread allowed it must not be quicker than with two.
        targets={"jax": 2.5, "torch": 7, "fastmlp-1": 0.95},
        optimizer=SGD(0.1),
        batch_size=32,
    ),
    Workload(
        "higgs",
        Task.EPOCH,
        "collisions",
        (300, 300, 300, 300, 300),
        "tanh",
        without(TRAINERS, "fastmlp-uint8"),
        targets={"jax": 1.5, "torch": 3.3, "fastmlp-1": 1.8},
        optimizer=Adam(1e-3),
        batch_size=100,
    ),
    Workload(
        "iris",
        Task.FIT,
        "iris",
        (16,),
        "relu",
        without(TRAINERS, "fastmlp-1", "fastmlp-uint8"),
        targets={"numpy-loop": 12, "torch": 100},
        optimizer=SGD(0.01, momentum=0.9),
        batch_size=32,
        epochs=300,
        threads=1,
        tolerance=0.07,  # two of the 30 flowers held out
    ),
    replace(
        PREDICT,
        name="predict-one-dense",
        data="dense",
        targets={"onnxruntime": 1.8, "numpy-loop": 1.8},
    ),
    PREDICT,
    replace(
        PREDICT,
        name="predict-many",
        targets={"onnxruntime": 1.8, "torch": 3},
        rows=10_000,
        threads=2,
    ),
    replace(
        MINIBATCH,
        name="start-to-97",
        task=Task.START,
        peers=("fastmlp", "torch", "jax", "sklearn"),
        targets={"torch": 4},
        limit=1.0,
        accuracy=0.97,
    ),
    replace(
        MINIBATCH,
        name="minibatch-avx2",
        peers=("fastmlp", "numpy-loop", "torch", "jax"),
        targets={"torch": 1.8},
        isa="avx2",
    ),
    replace(
        MINIBATCH,
        name="minibatch-float64",
        peers=("fastmlp", "numpy", "numpy-loop", "torch", "jax", "sklearn"),
        targets={"sklearn": 3},
        dtype="float64",
    ),
    replace(
        MINIBATCH,
        name="memory",
        task=Task.MEMORY,
        peers=("fastmlp", "torch", "jax", "sklearn"),
        targets={},
        limit=60.0,
    ),
    # Small, and of data that is always there: for a first look, and for tests.
    Workload(
        "digits",
        Task.EPOCH,
        "digits",
        (64,),
        "relu",
        without(TRAINERS, "fastmlp-1", "fastmlp-uint8"),
        optimizer=Adam(1e-3),
        batch_size=32,
        threads=1,
        tolerance=0.1,
    ),
]

WORKLOADS = {workload.name: workload for workload in _RECORDS}
QUICK = ("per-sample", "minibatch", "predict-one")
