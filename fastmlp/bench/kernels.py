"""Kernel by kernel: the compiled backend against NumPy.

Every kernel of `backends.base.Backend`, on the shapes of a batch of 64 in 784-256-128-10, both
backends in turn, on one thread: NumPy's own threads would spin into the other's time. The work is
done in a process of its own, ``python -m fastmlp.bench.kernels``, which gives JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from fastmlp.activations import ACTIVATIONS
from fastmlp.arena import Arena
from fastmlp.backends import get_backend
from fastmlp.bench.machine import cpus_for
from fastmlp.bench.remote import environment
from fastmlp.losses import LOSSES
from fastmlp.optimizers import SGD, Adagrad, Adam, AdamW, Nadam, RMSprop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastmlp.backends.base import Backend

__all__ = ["KernelResult", "kernel_table", "run_kernels"]

Array = np.ndarray

ROWS, N_IN, N_UNITS, N_OUT = 64, 784, 256, 10
SECONDS = 2e-3
"""One turn is so many calls that NumPy takes about this long for them."""


@dataclass(frozen=True)
class Kernel:
    """One call of a backend's function.

    Attributes
    ----------
    name : str
        Of the function, and what it is told.
    call : callable
        ``call(backend)``.
    flop : int
        Floating-point operations of matrix products; 0: none.
    """

    name: str
    call: Callable[[Backend], None]
    flop: int = 0


@dataclass(frozen=True)
class KernelResult:
    """Seconds of one call on both backends, a value a turn."""

    name: str
    compiled: list[float]
    numpy: list[float]
    flop: int

    @property
    def ratio(self) -> float:
        """How many times as long NumPy takes."""
        return median(self.numpy) / median(self.compiled)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def run_kernels(repeats: int = 5) -> list[KernelResult]:
    """Measure in a process that has one thread.

    Raises
    ------
    RuntimeError
        Without the compiled core.
    """
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "fastmlp.bench.kernels", str(repeats)],
        env=environment(1, None),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip().splitlines()[-1])
    return [KernelResult(**result) for result in json.loads(answer.stdout)]


def kernel_table(results: Sequence[KernelResult]) -> Table:
    columns = Table(box=None, header_style="bold", pad_edge=False)
    columns.add_column("kernel, one call", no_wrap=True)
    for name in ("compiled", "NumPy", "ratio", "GFLOP/s"):
        columns.add_column(name, justify="right", no_wrap=True)
    for result in results:
        seconds = median(result.compiled)
        columns.add_row(
            result.name,
            f"{seconds * 1e6:.2f} us",
            f"{median(result.numpy) * 1e6:.2f} us",
            f"{result.ratio:.3g}x",
            f"{result.flop / seconds / 1e9:.0f}" if result.flop else "",
        )
    return columns


def kernels() -> Iterator[Kernel]:
    yield from _affine()
    yield from _activations()
    yield from _losses()
    yield from _optimizers()


def _normal(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def _kernel(name: str, variant: str, *told: Any, flop: int = 0) -> Kernel:
    def call(backend: Backend) -> None:
        getattr(backend, name)(*told)

    return Kernel(f"{name}, {variant}" if variant else name, call, flop)


def _affine() -> Iterator[Kernel]:
    # Parameters and gradients with their rows apart as in a network.
    shapes = [("W", (N_IN, N_UNITS), True), ("b", (N_UNITS,), False)]
    (W, b), (dW, db) = (Arena(shapes, np.dtype("f4")).views for _ in range(2))
    W[...], b[...] = _normal(N_IN, N_UNITS), _normal(N_UNITS)
    X, Z, dZ = _normal(ROWS, N_IN), _normal(ROWS, N_UNITS), _normal(ROWS, N_UNITS)
    dX = np.empty_like(X)
    flop = 2 * ROWS * N_IN * N_UNITS
    yield _kernel("affine_forward", "", X, W, b, Z, flop=flop)
    yield _kernel("affine_backward", "dW, db", X, W, dZ, dW, db, None, flop=flop)
    yield _kernel("affine_backward", "dW, db, dX", X, W, dZ, dW, db, dX, flop=2 * flop)


def _activations() -> Iterator[Kernel]:
    Z, dA = _normal(ROWS, N_UNITS), _normal(ROWS, N_UNITS)
    dZ = np.empty_like(Z)
    for name, activation in ACTIVATIONS.items():
        A = np.empty_like(Z)
        yield _kernel("activation_forward", name, activation, Z, A)
        if activation.differentiable:
            yield _kernel("activation_backward", name, activation, dA, Z, A, dZ)


def _losses() -> Iterator[Kernel]:
    Z = _normal(ROWS, N_OUT)
    values, scale, dZ = np.empty(ROWS), np.full(ROWS, 1 / ROWS), np.empty_like(Z)
    for name, loss in LOSSES.items():
        activation = ACTIVATIONS[loss.fused_with or "identity"]
        A = activation.forward(Z)
        Y = np.arange(ROWS) % N_OUT if loss.labels else (Z > 0).astype(np.float32)
        yield _kernel("loss_forward", name, loss, activation, A, Z, Y, values)
        yield _kernel("loss_backward", name, loss, activation, A, Z, Y, scale, dZ)


def _optimizers() -> Iterator[Kernel]:
    # So small a gradient and rate that thousands of calls leave the parameters where they are.
    w, g = _normal(N_IN * N_UNITS), _normal(N_IN * N_UNITS) * np.float32(1e-3)
    rules = [SGD(), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True)]
    for optimizer in [*rules, RMSprop(), Adagrad(), Adam(), AdamW(), Nadam()]:
        states = [np.zeros_like(w) for _ in range(optimizer.rule.n_states)]
        kind = type(optimizer).__name__
        if isinstance(optimizer, SGD) and optimizer.momentum:
            kind += ", Nesterov" if optimizer.nesterov else ", momentum"
        yield _kernel("optimizer_update", kind, optimizer, w, g, states, 1e-9, 10, True)


def _measure(kernel: Kernel, backends: Sequence[Backend], repeats: int) -> KernelResult:
    compiled, numpy = backends

    def turn(backend: Backend, calls: int) -> float:
        began = perf_counter()
        for _ in range(calls):
            kernel.call(backend)
        return (perf_counter() - began) / calls

    turn(compiled, 3)
    calls = max(3, int(SECONDS / turn(numpy, 3)))
    result = KernelResult(kernel.name, [], [], kernel.flop)
    for _ in range(repeats):
        result.compiled.append(turn(compiled, calls))
        result.numpy.append(turn(numpy, calls))
    return result


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus_for(1))
    backends = get_backend("compiled"), get_backend("numpy")
    results = [_measure(kernel, backends, int(sys.argv[1])) for kernel in kernels()]
    json.dump([asdict(result) for result in results], sys.stdout)


if __name__ == "__main__":
    main()
