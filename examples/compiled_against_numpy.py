# %% [markdown]
# # Compiled against NumPy
#
# The same network, the same seed, the same batches, on both backends: NumPy, where every kernel is
# its formula, and the compiled core. How equal are the results, how far apart the times, and where
# does the time go?

# %%
from functools import partial
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from fastmlp import Adam, Dense, Network, get_num_threads, set_num_threads
from fastmlp.backends import get_backend
from fastmlp.datasets import load_mnist

EPOCHS = 2
BATCH = 64
REPEATS = 300

# %% [markdown]
# ## Equal losses
#
# Initial weights and the order of samples come from the seed, not from the backend. The two add in
# different orders, so the losses agree to rounding: in float64 to all digits that count, in float32
# to what 900 updates an epoch make of the last digit. Both get one thread.

# %%
data = load_mnist()
layers = [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")]


def fit(backend, dtype):
    net = Network(784, layers, loss="cross_entropy", dtype=dtype, seed=0, backend=backend)
    options = {"optimizer": Adam(), "epochs": EPOCHS, "batch_size": BATCH}
    return net.fit(data.X_train, data.y_train, **options)


set_num_threads(1)
one_thread = threadpool_limits(1, user_api="blas")  # of NumPy's matrix product
print(f"784-256-128-10, Adam, batches of {BATCH}, one thread")
print("                loss, NumPy      compiled   difference  seconds, NumPy  compiled  ratio")
for dtype in ("float64", "float32"):
    histories = {backend: fit(backend, dtype) for backend in ("numpy", "compiled")}
    for a, b in zip(*(history.records for history in histories.values())):
        print(f"{dtype} epoch {a['epoch']} {a['loss']:12.9f} {b['loss']:13.9f}", end=" ")
        print(f"{abs(a['loss'] - b['loss']):12.1e} {a['seconds']:15.2f}", end=" ")
        print(f"{b['seconds']:9.2f} {a['seconds'] / b['seconds']:6.1f}")

# %% [markdown]
# ## Where the time goes
#
# Both backends have the same kernels with the same arguments, so each can be timed alone: one batch
# through the layers, back again, and the update. The best of many runs, in microseconds a step.

# %%
rng = np.random.default_rng(0)


def best_time(call):
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return 1e6 * min(times)


def kernel_times(backend):
    """Microseconds a step, by kernel."""
    backend = get_backend(backend)
    arena = Network(784, layers, loss="cross_entropy").arena
    step = dict.fromkeys(["forward", "activation", "backward", "optimizer"], 0.0)
    X = data.X_train[:BATCH] / np.float32(255)
    for i, (layer, (W, b)) in enumerate(zip(layers, arena.pairs())):
        Z, A, dZ = (rng.standard_normal((BATCH, layer.n_units), np.float32) for _ in range(3))
        dW, db, dX = np.empty_like(W), np.empty_like(b), np.empty_like(X) if i else None
        step["forward"] += best_time(partial(backend.affine_forward, X, W, b, Z))
        step["backward"] += best_time(partial(backend.affine_backward, X, W, dZ, dW, db, dX))
        for call in (
            partial(backend.activation_forward, layer.activation, Z, A),
            partial(backend.activation_backward, layer.activation, dZ, Z, A, dZ),
        ):
            step["activation"] += best_time(call)
        X = A
    w, g, m, v = (np.full(arena.flat.size, 0.1, np.float32) for _ in range(4))
    step["optimizer"] = best_time(
        partial(backend.optimizer_update, Adam(), w, g, [m, v], 1e-3, 1, True)
    )
    return step


steps = -(-len(data.X_train) // BATCH)
times = {backend: kernel_times(backend) for backend in histories}
whole = {name: 1e6 * min(history["seconds"]) / steps for name, history in histories.items()}
print("\nmicroseconds a step     NumPy  compiled   ratio")
for kernel in times["numpy"]:
    a, b = (times[backend][kernel] for backend in times)
    print(f"{kernel:20}{a:9.0f} {b:9.0f} {a / b:7.1f}")
sums = [sum(times[backend].values()) for backend in times]
print(f"{'sum of the kernels':20}{sums[0]:9.0f} {sums[1]:9.0f} {sums[0] / sums[1]:7.1f}")
a, b = whole.values()
print(f"{'a step of the fit':20}{a:9.0f} {b:9.0f} {a / b:7.1f}")
set_num_threads(None)
one_thread.restore_original_limits()
seconds = min(fit("compiled", "float32")["seconds"])
print(
    f"compiled, {get_num_threads()} threads: {seconds:.2f} s, {1e6 * seconds / steps:.0f} us a step"
)

# %% [markdown]
# NumPy's step costs more than its kernels: between them Python gathers the batch, makes arrays,
# looks things up. The compiled step costs less than its kernels: the epoch is one call, in which
# threads meet twice a step, a tile of the gradient goes into the optimizer while it is in
# registers, and pixels that are 0 are left out of the products.

# %%
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
left = np.zeros(2)
for kernel, color in zip(times["numpy"], ("#0072B2", "#E69F00", "#56B4E9", "#009E73")):
    widths = [times[backend][kernel] for backend in times]
    ax.barh([3, 1], widths, left=left, color=color, label=kernel)
    left += widths
ax.barh([2, 0], whole.values(), color="0.7", label="a step of the fit")
ax.set(xlabel="microseconds a step", yticks=[0.5, 2.5], yticklabels=["compiled", "NumPy"])
ax.legend(ncols=2, fontsize=8)
figure.savefig("compiled_against_numpy.png")
