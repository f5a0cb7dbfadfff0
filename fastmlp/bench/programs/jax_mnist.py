import itertools
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

folder, accuracy, most_epochs, threads, seed = sys.argv[1:]
files = Path(folder, "mnist")
BATCH = 64


def read(part):
    images = np.fromfile(files / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(files / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
    X = images.reshape(-1, 784) * np.float32(1 / 255)
    return jax.device_put(X), jax.device_put(labels.astype(np.int32))


def logits(parameters, X):
    *hidden, (W, b) = parameters
    for V, c in hidden:
        X = jax.nn.relu(X @ V + c)
    return X @ W + b


def loss(parameters, X, y):
    Z = logits(parameters, X)
    chosen = jnp.take_along_axis(Z, y[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(Z, axis=1) - chosen)


@partial(jax.jit, donate_argnums=0)
def pass_over(state, X, y, order):
    def step(state, batch):
        p, m, v, t = state
        g = jax.grad(loss)(p, X[batch], y[batch])
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        c = jnp.sqrt(1 - 0.999**t)
        rate = 1e-3 * c / (1 - 0.9**t)
        p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + c * 1e-8), p, m, v)
        return (p, m, v, t), None

    whole = len(order) // BATCH * BATCH
    state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH))
    return step(state, order[whole:])[0] if whole < len(order) else state


@jax.jit
def score_of(parameters, X, y):
    return jnp.mean(jnp.argmax(logits(parameters, X), axis=1) == y)


X, y = read("train")
X_test, y_test = read("t10k")
rng = np.random.default_rng(int(seed))
widths = (784, 256, 128, 10)
parameters = [
    (jnp.asarray(rng.normal(0, (2 / a) ** 0.5, (a, b)), jnp.float32), jnp.zeros(b))
    for a, b in itertools.pairwise(widths)
]
zeros = jax.tree.map(jnp.zeros_like, parameters)
state = (parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros(()))
epochs, score = 0, 0.0
while score < float(accuracy) and epochs < int(most_epochs):
    epochs += 1
    state = pass_over(state, X, y, rng.permutation(len(X)).astype(np.int32))
    score = float(score_of(state[0], X_test, y_test))
print(json.dumps({"accuracy": score, "epochs": epochs}), flush=True)
sys.stdin.read()
