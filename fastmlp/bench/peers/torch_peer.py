"""PyTorch, eager and compiled."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.bench.peers.base import Job, Peer
from fastmlp.bench.workloads import Task
from fastmlp.optimizers import SGD, Adam

if TYPE_CHECKING:
    from fastmlp.backends.base import Array

__all__ = ["CompiledTorchPeer", "TorchPeer"]


class TorchPeer(Peer):
    """``torch.nn`` modules, ``torch.optim`` with ``fused=True``, all data in memory as tensors."""

    def __init__(self, job: Job):
        super().__init__(job)
        import torch

        self.torch = torch
        # Set by OMP_NUM_THREADS too; between operations it needs no second thread.
        torch.set_num_threads(int(job.threads))
        torch.set_num_interop_threads(1)
        self.X, self.y = torch.from_numpy(job.problem.X), torch.from_numpy(job.problem.y)
        self.loss = self._loss()
        self.logits = self._modules()
        self.linears = self.logits[::2]
        self.reset()

    def reset(self) -> None:
        for linear, (W, b) in zip(self.linears, self.job.network().parameters, strict=True):
            with self.torch.no_grad():
                linear.weight.copy_(self.torch.from_numpy(np.ascontiguousarray(W.T)))
                linear.bias.copy_(self.torch.from_numpy(np.array(b)))
        self.optimizer = self._optimizer()

    def weights(self) -> list[tuple[Array, Array]]:
        return [(m.weight.detach().numpy().T, m.bias.detach().numpy()) for m in self.linears]

    def inputs(self, X: Array) -> Any:
        return self.torch.from_numpy(X)

    def predict(self, X: Any) -> Any:
        with self.torch.inference_mode():
            Z = self.logits(X)
            return Z.sigmoid() if self.job.problem.n_outputs == 1 else Z.softmax(1)

    def train(self, order: Array) -> None:
        X, y, optimizer = self.X, self.y, self.optimizer
        for batch in self.torch.from_numpy(order).split(self.workload.batch_size):
            optimizer.zero_grad(set_to_none=True)
            self.loss(self.logits(X.index_select(0, batch)), y.index_select(0, batch)).backward()
            optimizer.step()

    def _modules(self) -> Any:
        nn, workload = self.torch.nn, self.workload
        kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[workload.activation]
        widths = workload.widths(self.job.problem.n_inputs, self.job.problem.n_outputs)
        dtype = getattr(self.torch, workload.dtype)
        modules = []
        for n_in, n_out in itertools.pairwise(widths):
            modules += [nn.Linear(n_in, n_out, dtype=dtype), kind()]
        return nn.Sequential(*modules[:-1])

    def _loss(self) -> Any:
        functional = self.torch.nn.functional
        if self.job.problem.n_outputs == 1:
            return functional.binary_cross_entropy_with_logits
        return functional.cross_entropy

    def _optimizer(self) -> Any:
        optim, ours, parameters = (
            self.torch.optim,
            self.workload.optimizer,
            self.logits.parameters(),
        )
        if isinstance(ours, Adam):
            return optim.Adam(
                parameters,
                lr=ours.lr,
                betas=(ours.beta1, ours.beta2),
                eps=ours.epsilon,
                fused=True,
            )
        assert isinstance(ours, SGD)
        return optim.SGD(parameters, lr=ours.lr, momentum=ours.momentum, fused=True)


class CompiledTorchPeer(TorchPeer):
    """``torch.compile`` of the step as one graph: rows taken, loss, gradients, update in place.

    One graph with the update in it, because at these sizes it is the calls that cost; compiled for
    whole batches and for the last one before anything is timed.
    """

    def __init__(self, job: Job):
        super().__init__(job)
        if self.workload.task is Task.PREDICT:
            self.forward = self.torch.compile(super().predict, dynamic=False)
            self.predict(self.inputs(job.blocks()[0]))
            return
        # The same memory as the modules' parameters, without their history.
        self.values = [p.detach() for p in self.logits.parameters()]
        self.first = [self.torch.zeros_like(p) for p in self.values]
        self.second = [self.torch.zeros_like(p) for p in self.values]
        self.t = self.torch.zeros((), dtype=self.values[0].dtype)
        self.step = self.torch.compile(
            self._step, dynamic=False, fullgraph=True, options={"cpp_wrapper": True}
        )
        size = min(self.workload.batch_size, job.n_samples)
        for length in {size, job.n_samples % size or size}:
            self.train(np.arange(length))
        self.reset()

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "step"):
            for moment in (*self.first, *self.second, self.t):
                moment.zero_()

    def predict(self, X: Any) -> Any:
        return self.forward(X)

    def train(self, order: Array) -> None:
        for batch in self.torch.from_numpy(order).split(self.workload.batch_size):
            self.step(batch)

    def _step(self, batch: Any) -> None:
        X, y = self.X.index_select(0, batch), self.y.index_select(0, batch)
        gradients = self.torch.func.grad(self._loss_of)(self.values, X, y)
        ours = self.workload.optimizer
        if isinstance(ours, Adam):
            self._adam(ours, gradients)
            return
        assert isinstance(ours, SGD)
        for p, v, g in zip(self.values, self.first, gradients, strict=True):
            if ours.momentum:
                g = v.mul_(ours.momentum).add_(g)
            p.sub_(g, alpha=ours.lr)

    def _loss_of(self, values: list[Any], X: Any, y: Any) -> Any:
        linear, activation = (
            self.torch.nn.functional.linear,
            getattr(self.torch, self.workload.activation),
        )
        *hidden, (W, b) = zip(values[::2], values[1::2], strict=True)
        for V, c in hidden:
            X = activation(linear(X, V, c))
        return self.loss(linear(X, W, b), y)

    def _adam(self, ours: Adam, gradients: list[Any]) -> None:
        self.t.add_(1)
        c = self.torch.sqrt(1 - ours.beta2**self.t)
        rate = ours.lr * c / (1 - ours.beta1**self.t)
        for p, m, v, g in zip(self.values, self.first, self.second, gradients, strict=True):
            m.mul_(ours.beta1).add_(g, alpha=1 - ours.beta1)
            v.mul_(ours.beta2).addcmul_(g, g, value=1 - ours.beta2)
            p.sub_(rate * m / (v.sqrt() + c * ours.epsilon))
