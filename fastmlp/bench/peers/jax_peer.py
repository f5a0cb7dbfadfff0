"""JAX: the whole epoch is one compiled program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.bench.peers.base import Job, Peer
from fastmlp.optimizers import SGD, Adam

if TYPE_CHECKING:
    from fastmlp.backends.base import Array

__all__ = ["JaxPeer"]


class JaxPeer(Peer):
    """``lax.scan`` over the batches, rows taken by index inside it, parameters and moments donated.

    Compiled for this data set's shapes before anything is timed. Batches of one are vectors, four
    to a turn of the loop: a matrix of one row took 1.3 times as long.
    """

    def __init__(self, job: Job):
        super().__init__(job)
        import jax

        jax.config.update("jax_enable_x64", self.workload.dtype == "float64")
        self.jax = jax
        problem = job.problem
        kind = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jax.numpy.tanh}
        self.activation = kind[self.workload.activation]
        self.binary = problem.n_outputs == 1
        self.X = jax.device_put(problem.X)
        self.y = jax.device_put(problem.y if self.binary else problem.y.astype(np.int32))
        self.update = self._adam if isinstance(self.workload.optimizer, Adam) else self._sgd
        self.reset()
        self._epoch = jax.jit(self._pass_over, donate_argnums=0)
        self._predict = jax.jit(self._outputs)
        if self.workload.batch_size:
            order = np.arange(job.n_samples, dtype=np.int32)
            self._epoch = self._epoch.lower(self.state, self.X, self.y, order).compile()

    def reset(self) -> None:
        put = self.jax.device_put
        parameters = [
            (put(np.array(W)), put(np.array(b))) for W, b in self.job.network().parameters
        ]
        zeros = self.jax.tree.map(self.jax.numpy.zeros_like, parameters)
        moments = (zeros, self.jax.tree.map(self.jax.numpy.zeros_like, parameters))
        self.state = (parameters, moments, self.jax.numpy.zeros((), parameters[0][0].dtype))

    def weights(self) -> list[tuple[Any, Any]]:
        return [(np.asarray(W), np.asarray(b)) for W, b in self.state[0]]

    def inputs(self, X: Array) -> Any:
        return self.jax.device_put(X)

    def predict(self, X: Any) -> Any:
        return self._predict(self.state[0], X).block_until_ready()

    def train(self, order: Array) -> None:
        self.state = self._epoch(self.state, self.X, self.y, order.astype(np.int32))
        self.jax.block_until_ready(self.state)

    # --- Traced -----------------------------------------------------------------------------------

    def _pass_over(self, state: Any, X: Any, y: Any, order: Any) -> Any:
        size = self.workload.batch_size

        def step(state: Any, batch: Any) -> Any:
            gradients = self.jax.grad(self._loss)(state[0], X[batch], y[batch])
            return self.update(state, gradients), None

        if size == 1:
            return self.jax.lax.scan(step, state, order, unroll=4)[0]
        whole = len(order) // size * size
        state, _ = self.jax.lax.scan(step, state, order[:whole].reshape(-1, size))
        return step(state, order[whole:])[0] if whole < len(order) else state

    def _logits(self, parameters: Any, X: Any) -> Any:
        *hidden, (W, b) = parameters
        for V, c in hidden:
            X = self.activation(X @ V + c)
        return X @ W + b

    def _outputs(self, parameters: Any, X: Any) -> Any:
        Z = self._logits(parameters, X)
        return self.jax.nn.sigmoid(Z) if self.binary else self.jax.nn.softmax(Z)

    def _loss(self, parameters: Any, X: Any, y: Any) -> Any:
        Z, nn, numpy = self._logits(parameters, X), self.jax.nn, self.jax.numpy
        if self.binary:
            return numpy.mean(nn.softplus(Z) - Z * y)
        chosen = numpy.take_along_axis(Z, y[..., None], -1)[..., 0]
        return numpy.mean(nn.logsumexp(Z, axis=-1) - chosen)

    def _sgd(self, state: Any, gradients: Any) -> Any:
        ours, map_ = self.workload.optimizer, self.jax.tree.map
        assert isinstance(ours, SGD)
        parameters, (v, unused), t = state
        if not ours.momentum:
            return map_(lambda p, g: p - ours.lr * g, parameters, gradients), (v, unused), t
        v = map_(lambda v, g: ours.momentum * v - ours.lr * g, v, gradients)
        return map_(lambda p, v: p + v, parameters, v), (v, unused), t

    def _adam(self, state: Any, gradients: Any) -> Any:
        ours, map_, numpy = self.workload.optimizer, self.jax.tree.map, self.jax.numpy
        assert isinstance(ours, Adam)
        parameters, (m, v), t = state
        t = t + 1
        m = map_(lambda m, g: ours.beta1 * m + (1 - ours.beta1) * g, m, gradients)
        v = map_(lambda v, g: ours.beta2 * v + (1 - ours.beta2) * g * g, v, gradients)
        c = numpy.sqrt(1 - ours.beta2**t)
        rate = ours.lr * c / (1 - ours.beta1**t)
        epsilon = c * ours.epsilon
        change = map_(lambda p, m, v: p - rate * m / (numpy.sqrt(v) + epsilon), parameters, m, v)
        return change, (m, v), t
