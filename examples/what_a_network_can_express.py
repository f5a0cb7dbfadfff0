# %% [markdown]
# # What a network can express
#
# After the first homework of the deep learning course at New York University (fall 2021).
# With one hidden layer of unit steps and weights set by hand, a network draws any function on an
# interval as closely as one likes. How many units does that take, and what does training do better?

# %%
import matplotlib.pyplot as plt
import numpy as np

from fastmlp import Adam, Dense, Network

EPOCHS = 75
COUNTS = [4, 8, 16, 32, 64, 128]

# %% [markdown]
# ## A box from two neurons
#
# `step(x - s)` switches on at `s`. One neuron that switches on at `s` and one that switches on at
# `s + d`, the second subtracted: a box of height `h` from `s` to `s + d`.


# %%
def boxes(starts, width, heights):
    """A network that is heights[i] from starts[i] to starts[i] + width, and 0 elsewhere."""
    net = Network(1, [Dense(2 * len(starts), "step"), Dense(1)], loss="mse", dtype="float64")
    (W1, b1), (W2, _) = net.parameters
    W1[:] = 1
    b1[:] = -np.concatenate([starts, starts + width])
    W2[:, 0] = np.concatenate([heights, -heights])
    return net


x = np.linspace(-0.25, 1.25, 3001)[:, None]
box = boxes(np.array([0.3]), 0.4, np.array([2.0])).predict(x)[:, 0]
print("a box of height 2 from 0.3 to 0.7:", box[[0, 1101, 1899, 2000]])

# %% [markdown]
# ## A function as a sum of boxes
#
# Each box takes the height of the function in its middle. The error is at most half a box times the
# steepest slope, so it halves when the number of boxes doubles: error times boxes stays the same.


# %%
def f(x):
    return np.sin(2 * np.pi * x) + 0.5 * np.sin(7 * x) + x


def box_network(n):
    starts = np.arange(n) / n
    return boxes(starts, 1 / n, f(starts + 0.5 / n))


def largest_error(net, inputs, values):
    return np.abs(net.predict(inputs)[:, 0] - values).max()


grid = np.linspace(0, 1, 2000, endpoint=False)[:, None]
box_errors = [largest_error(box_network(n), grid, f(grid[:, 0])) for n in COUNTS]

# %% [markdown]
# ## A trained relu network of equal size
#
# Two steps a box make 2 n hidden units. As many relu units draw straight pieces instead of flat
# ones, and training puts the bends where the function turns.


# %%
def train(net, inputs, values, rate):
    for phase in range(4):
        optimizer = Adam(rate / 4**phase)
        net.fit(inputs, values, optimizer=optimizer, epochs=EPOCHS, batch_size=50)
    return net


def relu_network(n_units):
    net = Network(1, [Dense(n_units, "relu"), Dense(1)], loss="mse", seed=1)
    ((W, b), _) = net.parameters
    b[:] = -W[0] * net.rng.uniform(0, 1, n_units)  # a bend somewhere in the interval for each unit
    return train(net, grid, f(grid), rate=0.02)


relu_errors = [largest_error(relu_network(2 * n), grid, f(grid[:, 0])) for n in COUNTS]
print("\nboxes   hidden units   largest error   times boxes   relu net of as many units, trained")
for n, error, trained in zip(COUNTS, box_errors, relu_errors):
    print(f"{n:5} {2 * n:11} {error:16.4f} {error * n:13.2f} {trained:19.4f}")

# %% [markdown]
# ## Two inputs
#
# Four steps, two for each axis, sum to 2 inside a rectangle and to 1 or 0 outside; a second layer
# of steps from 1.5 on makes the box. A grid of k by k boxes shares its 2 (k + 1) lines, but each
# box needs a unit of its own. To halve the error takes 4 times as many; with d inputs, 2^d times.


# %%
def g(points):
    return np.sin(3 * points[:, 0] + 1) * np.cos(4 * points[:, 1] * points[:, 0])


def box_grid(k):
    layers = [Dense(2 * (k + 1), "step", "zeros"), Dense(k * k, "step", "zeros"), Dense(1)]
    net = Network(2, layers, loss="mse", dtype="float64")
    (W1, b1), (W2, b2), (W3, _) = net.parameters
    lines, cells = np.arange(k + 1), np.arange(k * k)
    W1[0, : k + 1] = W1[1, k + 1 :] = 1
    b1[:] = -np.tile(lines / k, 2)
    for row, sign in ((cells // k, 1), (cells // k + 1, -1)):
        W2[row, cells] = sign
    for row, sign in ((cells % k, 1), (cells % k + 1, -1)):
        W2[k + 1 + row, cells] = sign
    b2[:] = -1.5
    W3[:, 0] = g((np.stack([cells // k, cells % k], axis=1) + 0.5) / k)
    return net


ticks = np.linspace(0, 1, 128, endpoint=False)
points = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
print("\nboxes    hidden units   largest error")
for k in (4, 8, 16, 32):
    net = box_grid(k)
    print(f"{k:2} x {k:2} {2 * (k + 1) + k * k:11} {largest_error(net, points, g(points)):16.4f}")
flat = box_grid(16)
smooth = Network(2, [Dense(145, "relu"), Dense(145, "relu"), Dense(1)], loss="mse", seed=0)
train(smooth, points, g(points), rate=0.002)
print(f"relu 145 + 145  290 {largest_error(smooth, points, g(points)):16.4f}, trained")
print("ten boxes an axis:", ", ".join(f"{10**d:,} for {d} inputs" for d in (2, 3, 10)))

# %%
plt.style.use("tableau-colorblind10")
figure, ax = plt.subplot_mosaic("AAABBB;CCDDEE", figsize=(8, 5.5), layout="constrained")
ax["A"].plot(grid, f(grid), color="0.7", linewidth=4, label="function")
ax["A"].plot(grid, box_network(16).predict(grid), label="16 boxes")
ax["A"].plot(grid, relu_network(32).predict(grid), label="32 relu units")
ax["A"].legend()
ax["B"].loglog(2 * np.array(COUNTS), box_errors, "o-", label="boxes")
ax["B"].loglog(2 * np.array(COUNTS), relu_errors, "s-", label="relu, trained")
ax["B"].set(xlabel="hidden units", ylabel="largest error")
ax["B"].legend()
for key, title, values in (
    ("C", "function of two inputs", g(points)),
    ("D", "16 x 16 boxes", flat.predict(points)),
    ("E", "trained relu network", smooth.predict(points)),
):
    ax[key].imshow(values.reshape(128, 128).T, origin="lower", extent=(0, 1, 0, 1), vmin=-1, vmax=1)
    ax[key].set_title(title)
figure.savefig("what_a_network_can_express.png")
