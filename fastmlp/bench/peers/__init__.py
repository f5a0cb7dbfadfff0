"""Who is measured: one record a peer, its class in a module of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastmlp.bench.peers.base import Job, Peer

__all__ = ["PEERS", "PeerRecord"]


@dataclass(frozen=True)
class PeerRecord:
    """A peer and its best form.

    Attributes
    ----------
    name : str
        For ``--peer``.
    label : str
        In tables and charts.
    form : str
        What it is given to be at its best.
    module : str
        In this package.
    kind : str
        Name of the class there.
    requires : tuple of str
        Modules that have to be installed.
    options : mapping
        Keyword arguments of the class.
    threads : int or None
        Fewer threads than the workload allows.
    pixels : bool
        Gets images as uint8.
    program : str
        In `bench.programs`, for whole processes.
    quick : bool
        Whether it takes part where nobody named it.
    """

    name: str
    label: str
    form: str
    module: str
    kind: str
    requires: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    pixels: bool = False
    program: str = ""
    quick: bool = True

    def missing(self) -> str:
        """Why this peer cannot be measured here, empty where it can."""
        absent = [name for name in self.requires if find_spec(name) is None]
        return f"{' and '.join(absent)} not installed" if absent else ""

    def make(self, job: Job) -> Peer:
        module = import_module(f"{__name__}.{self.module}")
        peer: Peer = getattr(module, self.kind)(job, **self.options)
        return peer


_FASTMLP = PeerRecord(
    "fastmlp",
    "fastmlp",
    "Network.fit and Network.predict on the compiled core",
    "fastmlp_peer",
    "FastmlpPeer",
    program="fastmlp_mnist",
)
_TORCH = PeerRecord(
    "torch",
    "PyTorch",
    "eager; tensors in memory, rows by index_select; fused optimizer; gradients set to None",
    "torch_peer",
    "TorchPeer",
    requires=("torch",),
    program="torch_mnist",
)

_RECORDS = [
    _FASTMLP,
    replace(
        _FASTMLP,
        name="fastmlp-1",
        label="fastmlp, 1 thread",
        form="the same, held to one thread",
        threads=1,
    ),
    replace(
        _FASTMLP,
        name="fastmlp-uint8",
        label="fastmlp, uint8",
        form="the same, images as uint8",
        pixels=True,
        quick=False,
    ),
    replace(
        _FASTMLP,
        name="numpy",
        label="fastmlp on NumPy",
        form="Network.fit and Network.predict with backend='numpy'",
        options={"backend": "numpy"},
    ),
    PeerRecord(
        "numpy-loop",
        "NumPy loop",
        "a loop written for this network by hand, no library around it",
        "numpy_loop",
        "NumpyLoop",
    ),
    _TORCH,
    replace(
        _TORCH,
        name="torch-compiled",
        label="PyTorch compiled",
        form="torch.compile of the whole step, gradients and optimizer included",
        kind="CompiledTorchPeer",
        quick=False,  # half a minute of compilation
    ),
    PeerRecord(
        "jax",
        "JAX",
        "the whole epoch under jit: lax.scan over the batches, donated buffers, compiled before",
        "jax_peer",
        "JaxPeer",
        requires=("jax",),
        program="jax_mnist",
    ),
    PeerRecord(
        "sklearn",
        "scikit-learn",
        "MLPClassifier; an epoch is one partial_fit, without the check for finite input",
        "sklearn_peer",
        "SklearnPeer",
        requires=("sklearn",),
        program="sklearn_mnist",
    ),
    PeerRecord(
        "onnxruntime",
        "onnxruntime",
        "a session with all graph optimizations",
        "onnx_peer",
        "OnnxPeer",
        requires=("onnxruntime", "onnx"),
    ),
]

PEERS = {record.name: record for record in _RECORDS}
