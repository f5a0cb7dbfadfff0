# %% [markdown]
# # Feed-forward by hand
#
# After the exercises of week 41 of the machine learning course at the University of Oslo
# ([FYS-STK3155/4155](https://compphysics.github.io/MachineLearning/doc/web/course.html)): what
# shapes go through a layer, how layers make a network, and how gradient descent trains it when
# something else works out the gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np
from autograd import grad
from sklearn.datasets import load_iris

from fastmlp import Dense, Network
from fastmlp.losses import LOSSES

EPOCHS = 1500
LEARNING_RATE = 0.001
rng = np.random.default_rng(2024)

# %% [markdown]
# ## One layer
#
# A dense layer computes `activation(X W + b)`. `X` holds one sample a row, so a single sample is a
# batch of one, and every row meets the same `W` (inputs by units) and `b` (one a unit).

# %%
layer = Dense(4, "relu")
W, b = rng.standard_normal((2, 4)), rng.standard_normal(4)
sample, batch = rng.standard_normal((1, 2)), rng.standard_normal((6, 2))
print(f"W {W.shape}, b {b.shape}")
for name, X in [("one sample", sample), ("a batch", batch)]:
    A = layer.apply((W, b), X)
    print(f"{name}: X {X.shape} -> A {A.shape}, the formula agrees:", end=" ")
    print(np.allclose(A, np.maximum(X @ W + b, 0)))

# %% [markdown]
# ## A list of layers
#
# The units of one layer are the inputs of the next. Nothing else is needed for a network of any
# depth; activations can be swapped one by one. Behind softmax each row sums to 1; behind the others
# it does not.

# %%
print("\nhidden   output   widths        row sums of the output")
for hidden in ("relu", "sigmoid"):
    for output in ("softmax", "sigmoid", "relu"):
        layers = [Dense(8, hidden), Dense(8, hidden), Dense(3, output)]
        A, n_in = batch, 2
        for layer in layers:
            parameters = rng.standard_normal((n_in, layer.n_units)), np.zeros(layer.n_units)
            A, n_in = layer.apply(parameters, A), layer.n_units
        print(f"{hidden:8} {output:8} 2-8-8-3 {A.shape}", A.sum(axis=1)[:3].round(3))

# %% [markdown]
# ## An untrained network on Iris
#
# `Network` draws the weights and keeps them in `parameters`, a list of `(W, b)`. Three classes: a
# network that knows nothing is right a third of the time, and scatters around that.

# %%
iris = load_iris()
X, y, Y = iris.data, iris.target, np.eye(3)[iris.target]


def new_network(seed):
    layers = [Dense(8, "sigmoid", "standard_normal"), Dense(3, "softmax", "standard_normal")]
    return Network(4, layers, loss="cross_entropy", dtype="float64", seed=seed)


untrained = [new_network(seed).evaluate(X, y)["accuracy"] for seed in range(100)]
print(f"\nuntrained, 100 seeds: mean accuracy {np.mean(untrained):.3f}", end=", ")
print(f"from {min(untrained):.3f} to {max(untrained):.3f}")

# %% [markdown]
# ## Gradient descent, with autograd for the gradient
#
# `net.apply(parameters, X)` is the same forward pass as a pure function of its arguments, written
# in NumPy. Autograd runs it with arrays of its own that note every operation, and plays the notes
# backwards. The loss is the cross-entropy, summed over all 150 flowers, each step on all of them.

# %%
net = new_network(seed=0)
cross_entropy = LOSSES["cross_entropy"].value


def cost(parameters):
    return cross_entropy(net.apply(parameters, X), Y).sum()


gradient = grad(cost)
costs, accuracies = [], []
for _ in range(EPOCHS):
    costs.append(cost(net.parameters))
    accuracies.append(net.evaluate(X, y)["accuracy"])
    net.update_weights(
        [(-LEARNING_RATE * dW, -LEARNING_RATE * db) for dW, db in gradient(net.parameters)]
    )
costs.append(cost(net.parameters))
accuracies.append(net.evaluate(X, y)["accuracy"])

print("\nepoch   summed cross-entropy   accuracy")
for epoch in range(0, EPOCHS + 1, max(EPOCHS // 6, 1)):
    print(f"{epoch:5} {costs[epoch]:15.2f} {accuracies[epoch]:18.3f}")

# %%
plt.style.use("tableau-colorblind10")
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(costs)
left.set(xlabel="epoch", ylabel="summed cross-entropy", yscale="log")
right.plot(accuracies)
right.axhline(1 / 3, color="0.6", linestyle=":")
right.text(EPOCHS, 1 / 3, "chance", color="0.4", ha="right", va="bottom")
right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
figure.savefig("feed_forward_by_hand.png")
