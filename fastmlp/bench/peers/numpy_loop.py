"""What one writes without a library: the network's formulas in a NumPy loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.bench.peers.base import Job, Peer
from fastmlp.optimizers import SGD, Adam

if TYPE_CHECKING:
    from fastmlp.backends.base import Array

__all__ = ["NumpyLoop"]


def sigmoid(Z: Any) -> Any:
    return 1 / (1 + np.exp(-Z))


def softmax(Z: Any) -> Any:
    E = np.exp(Z - Z.max(axis=-1, keepdims=True))
    return E / E.sum(axis=-1, keepdims=True)


def relu(Z: Any) -> Any:
    return np.maximum(Z, 0)


# (activation, derivative from its value)
Function = Callable[[Any], Any]
ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (sigmoid, lambda A: A * (1 - A)),
    "relu": (relu, lambda A: A > 0),
    "tanh": (np.tanh, lambda A: 1 - A * A),
}


class NumpyLoop(Peer):
    """Batches as matrices; batches of one as vectors, which NumPy does faster than rows of one."""

    def __init__(self, job: Job):
        super().__init__(job)
        problem = job.problem
        self.activation, self.derivative = ACTIVATIONS[self.workload.activation]
        self.output = sigmoid if problem.n_outputs == 1 else softmax
        Y = problem.y
        if Y.ndim == 1:
            Y = np.eye(problem.n_outputs)[Y]
        self.X, self.Y = problem.X, Y.astype(self.workload.dtype)
        self.update = self._adam if isinstance(self.workload.optimizer, Adam) else self._sgd
        self.reset()

    def reset(self) -> None:
        self.layers = [(W.copy(), b.copy()) for W, b in self.job.network().parameters]
        self.parameters = [array for layer in self.layers for array in layer]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self.step = 0

    def weights(self) -> list[tuple[Array, Array]]:
        return self.layers

    def inputs(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Any:
        *hidden, (W, b) = self.layers
        for V, c in hidden:
            X = self.activation(X @ V + c)
        return self.output(X @ W + b)

    def train(self, order: Array) -> None:
        size = self.workload.batch_size
        if size == 1 and self.update == self._sgd:
            for i in order:
                self._sample(self.X[i], self.Y[i])
            return
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            self._batch(self.X[batch], self.Y[batch])

    def _batch(self, X: Array, Y: Array) -> None:
        outputs = [X]
        for W, b in self.layers[:-1]:
            outputs.append(self.activation(outputs[-1] @ W + b))
        W, b = self.layers[-1]
        dZ = (self.output(outputs[-1] @ W + b) - Y) / np.float32(len(X))
        gradients = []
        for i in reversed(range(len(self.layers))):
            gradients += [dZ.sum(axis=0), outputs[i].T @ dZ]
            if i:
                dZ = (dZ @ self.layers[i][0].T) * self.derivative(outputs[i])
        self.update(gradients[::-1])

    def _sample(self, x: Array, y: Array) -> None:
        lr = self._rate()
        outputs = [x]
        for W, b in self.layers[:-1]:
            outputs.append(self.activation(outputs[-1] @ W + b))
        W, b = self.layers[-1]
        d = self.output(outputs[-1] @ W + b) - y
        for i in reversed(range(len(self.layers))):
            W, b = self.layers[i]
            a = outputs[i]
            before = (W @ d) * self.derivative(a) if i else d
            W -= np.multiply.outer(a, lr * d)
            b -= lr * d
            d = before

    def _rate(self) -> Any:
        # A Python float would do as well; one of the arrays' own type is quicker to multiply by.
        return self.parameters[0].dtype.type(self.workload.optimizer.lr)

    def _sgd(self, gradients: list[Array]) -> None:
        optimizer = self.workload.optimizer
        assert isinstance(optimizer, SGD)
        lr = self._rate()
        for p, g, (v, _) in zip(self.parameters, gradients, self.moments, strict=True):
            g *= lr
            if optimizer.momentum:
                v *= optimizer.momentum
                v -= g
                p += v
            else:
                p -= g

    def _adam(self, gradients: list[Array]) -> None:
        optimizer = self.workload.optimizer
        assert isinstance(optimizer, Adam)
        self.step += 1
        c = (1 - optimizer.beta2**self.step) ** 0.5
        rate = float(self._rate()) * c / (1 - optimizer.beta1**self.step)
        epsilon = c * optimizer.epsilon
        for p, g, (m, v) in zip(self.parameters, gradients, self.moments, strict=True):
            m *= optimizer.beta1
            m += (1 - optimizer.beta1) * g
            v *= optimizer.beta2
            g *= g
            g *= 1 - optimizer.beta2
            v += g
            np.sqrt(v, out=g)
            g += epsilon
            np.divide(m, g, out=g)
            g *= rate
            p -= g
