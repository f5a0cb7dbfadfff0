# %% [markdown]
# # Backpropagation by hand
#
# After weeks 42 and 43 of the machine learning course at the University of Oslo
# ([FYS-STK](https://compphysics.github.io/MachineLearning/doc/web/course.html)): the chain rule
# through one layer, two, any number; then descent on Iris, outside of the network and inside.

# %%
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from sklearn.datasets import load_iris

from fastmlp import SGD, Dense, Network
from fastmlp.losses import LOSSES

EPOCHS = 300
SEEDS = 9
mse = LOSSES["mse"]
rng = np.random.default_rng(42)


def autograd_gradient(net, X, Y):
    return grad(lambda parameters: mse.value(net.apply(parameters, X), Y).mean())(net.parameters)


def difference(ours, theirs):
    return max(np.abs(a - b).max() for p, q in zip(ours, theirs) for a, b in zip(p, q))


def show(title, ours, theirs):
    print(f"{title}: ours, autograd's")
    for i, pairs in enumerate(zip(ours, theirs), start=1):
        for name, a, b in zip(("dW", "db"), *pairs):
            for row, other in zip(np.atleast_2d(a), np.atleast_2d(b)):
                print(f"{name}{i}", row.round(6), other.round(6))
    print(f"largest difference: {difference(ours, theirs):.1e}\n")


# %% [markdown]
# ## One layer, one input
#
# With `Z = X W + b` and `A = sigmoid(Z)` the chain rule gives `dZ = dA * sigmoid'(Z)`, then
# `dW = X^T dZ` and `db = dZ`. A loss's `gradient` is `dA`, an activation's `backward` gives `dZ`.

# %%
net = Network(2, [Dense(3, "sigmoid")], loss="mse", dtype="float64", seed=0)
sigmoid = net.architecture.layers[0].activation
((W, b),) = net.parameters
X, Y = rng.standard_normal((1, 2)), rng.standard_normal((1, 3))
Z = X @ W + b
A = sigmoid.forward(Z)
dZ = sigmoid.backward(mse.gradient(A, Y), Z, A)
show("one layer", [(X.T @ dZ, dZ[0])], autograd_gradient(net, X, Y))

# %% [markdown]
# ## Two layers
#
# The second layer hands down the gradient of its input, `dA1 = dZ2 W2^T`; the first goes on alike.

# %%
net = Network(2, [Dense(3, "relu"), Dense(3, "sigmoid")], loss="mse", dtype="float64", seed=3)
relu = net.architecture.layers[0].activation
(W1, b1), (W2, b2) = net.parameters
Z1 = X @ W1 + b1
A1 = relu.forward(Z1)
Z2 = A1 @ W2 + b2
A2 = sigmoid.forward(Z2)
dZ2 = sigmoid.backward(mse.gradient(A2, Y), Z2, A2)
dZ1 = relu.backward(dZ2 @ W2.T, Z1, A1)
show("two layers", [(X.T @ dZ1, dZ1[0]), (A1.T @ dZ2, dZ2[0])], autograd_gradient(net, X, Y))

# %% [markdown]
# ## Any number of layers, batches
#
# Keep the input of each layer on the way forward and walk back through the list. In a batch
# `X^T dZ` sums over its rows, and so does `db`; the mean over the samples brings a factor 1 / n.


# %%
def backpropagate(net, X, Y):
    layers, inputs = net.architecture.layers, [X]
    for layer, parameters in zip(layers, net.parameters):
        inputs.append(layer.apply(parameters, inputs[-1]))
    dA = mse.gradient(inputs.pop(), Y) / len(X)
    gradients = []
    for layer, parameters in zip(layers[::-1], net.parameters[::-1]):
        dA, gradient = layer.apply_backward(parameters, inputs.pop(), dA)
        gradients.append(gradient)
    return gradients[::-1]


worst = 0.0
for activations in (["identity"], ["sigmoid", "relu"], ["relu", "sigmoid", "relu", "identity"]):
    net = Network(2, [Dense(4, a) for a in activations], loss="mse", dtype="float64", seed=2)
    for n in (1, 100):
        X, Y = rng.standard_normal((n, 2)), rng.standard_normal((n, 4))
        for other in (autograd_gradient(net, X, Y), net.compute_gradient(X, Y)):
            worst = max(worst, difference(backpropagate(net, X, Y), other))
print(f"one to four layers, 1 and 100 samples, autograd and compute_gradient: {worst:.1e}")

# %% [markdown]
# ## Iris, outside of the network and inside
#
# `compute_gradient` gives the gradient of the mean loss, `update_weights` adds what any method
# makes of it: momentum takes three lines. `fit` with the same order of samples does the same.

# %%
iris = load_iris()
X, y = (iris.data - iris.data.mean(axis=0)) / iris.data.std(axis=0), iris.target


def new_network(seed):
    layers = [Dense(16, "relu", "standard_normal"), Dense(3, "softmax", "standard_normal")]
    return Network(4, layers, loss="cross_entropy", dtype="float64", seed=seed)


outside, inside = new_network(0), new_network(0)
velocity = [[np.zeros_like(values) for values in pair] for pair in outside.parameters]
for start in range(0, len(X), 32):
    gradient = outside.compute_gradient(X[start : start + 32], y[start : start + 32])
    velocity = [[0.9 * v - 0.05 * g for v, g in zip(*pairs)] for pairs in zip(velocity, gradient)]
    outside.update_weights(velocity)
inside.fit(X, y, optimizer=SGD(0.05, momentum=0.9), epochs=1, batch_size=32, shuffle=False)
agreement = difference(outside.parameters, inside.parameters)
print(f"an epoch of momentum, outside and inside: {agreement:.1e}\n")

# %% [markdown]
# ## 300 epochs with and without momentum
#
# Batches of 32, rate 0.05. Where a run ends depends on its first weights: one, dark, among others.

# %%
plt.style.use("tableau-colorblind10")
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for name, momentum, color in (("SGD", 0.0, "C0"), ("momentum 0.9", 0.9, "C1")):
    options = {"optimizer": SGD(0.05, momentum=momentum), "epochs": EPOCHS, "batch_size": 32}
    histories = [new_network(s).fit(X, y, **options, validation_data=(X, y)) for s in range(SEEDS)]
    losses = np.array([history["val_loss"] for history in histories]) * len(X)
    accuracies = np.array([history["val_accuracy"] for history in histories])
    for ax, curves in ((left, losses), (right, accuracies)):
        ax.plot(curves.T, color=color, alpha=0.15)
        ax.plot(curves[-1], color=color, label=name, zorder=3)
    loss, accuracy = losses[:, -1], accuracies[:, -1]
    print(f"{name:13} summed loss {loss[-1]:.2f}, accuracy {accuracy[-1]:.3f}", end="; ")
    print(f"{SEEDS} seeds: median {np.median(loss):.2f} and {np.median(accuracy):.3f}")
left.set(xlabel="epoch", ylabel="summed cross-entropy", yscale="log")
right.set(xlabel="epoch", ylabel="accuracy", ylim=(0.8, 1.01))
right.legend()
figure.savefig("backpropagation_by_hand.png")
