# %% [markdown]
# # MNIST from scratch, sample by sample
#
# After the first homework of the deep learning course at New York University (fall 2021): a
# 784-32-32-10 network of sigmoids with softmax, weights from N(0, 1 / max(n_in, n_out)), one update
# a sample at rate 0.003, three epochs in the order given. Its NumPy loop takes minutes and ends
# near 70%. The same updates end above 91% here. This example finds out where the rest went.

# %%
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from fastmlp import SGD, Dense, Network
from fastmlp.activations import ACTIVATIONS
from fastmlp.datasets import load_mnist

EPOCHS = 3
data = load_mnist()
softmax, sigmoid = ACTIVATIONS["softmax"].forward, ACTIVATIONS["sigmoid"].forward


# %% [markdown]
# ## Two runs
#
# Once with pixels from 0 to 1, once with the bytes as they are, 0 to 255. (Arrays of type uint8
# count as pixels and are divided by 255; as float32 they keep their values.)
#
# After each epoch the test images are judged twice: by the network's own output, and as the source
# does it, with one more sigmoid between the last layer's sums and softmax.


# %%
def judge(Z, y):
    """Accuracy and mean loss for pre-activations of the output, plain and through a sigmoid."""
    scores = []
    for P in (softmax(Z), softmax(sigmoid(Z))):
        scores += [(P.argmax(axis=1) == y).mean(), -np.log(P[np.arange(len(y)), y]).mean()]
    return scores


def run(X, X_test):
    layers = [Dense(32, "sigmoid", "max_fan_normal"), Dense(32, "sigmoid", "max_fan_normal")]
    layers += [Dense(10, "softmax", "max_fan_normal")]
    net = Network(784, layers, loss="cross_entropy", seed=0)
    scores = []
    for epoch in range(EPOCHS + 1):
        start = perf_counter()
        if epoch > 0:
            net.fit(X, data.y_train, optimizer=SGD(0.003), epochs=1, batch_size=1, shuffle=False)
        seconds = perf_counter() - start
        _, caches = net.forward(X_test, return_cache=True)
        scores.append(judge(caches[-1].Z.astype("float64"), data.y_test))
        print("{:5} {:9.3f} {:7.3f} {:16.3f} {:7.3f}".format(epoch, *scores[-1]), end=" ")
        print(f"{seconds:9.3f}")
    return np.array(scores), caches


results = {}
for name, dtype in (("pixels from 0 to 1", "uint8"), ("pixels from 0 to 255", "float32")):
    print(f"\n{name}\nepoch  accuracy    loss  with a sigmoid:     loss   seconds")
    results[name] = run(data.X_train.astype(dtype), data.X_test.astype(dtype))

# %% [markdown]
# ## Where the accuracy goes
#
# The sums of the first layer scale with the pixels. With pixels up to 255 nearly all of its
# sigmoids sit at 0 or 1, where the slope `a (1 - a)` is next to nothing: the first layer stays what
# chance made it, and only the layers behind it learn.

# %%
print("\nfirst layer after training: share of outputs within 0.01 of 0 or 1, mean slope")
for name, (_, caches) in results.items():
    A = caches[0].A
    print(f"{name:21} {((A < 0.01) | (A > 0.99)).mean():.3f} {(A * (1 - A)).mean():.1e}")

# %% [markdown]
# ## What the extra sigmoid does
#
# A sigmoid keeps the order of the sums, so the largest stays the largest and the accuracy is the
# same. But softmax then sees numbers between 0 and 1 only: the best possible probability of a class
# is `e / (e + 9) = 0.23`, and the loss cannot fall below 1.46 whatever the network learns. A loss
# that barely moves looks like a network that barely learns.

# %%
plt.style.use("tableau-colorblind10")
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for (name, (scores, _)), color, marker in zip(results.items(), ("C0", "C1"), "os"):
    left.plot(scores[:, 0], color=color, marker=marker, label=name)
    right.plot(scores[:, 1], color=color, marker=marker)
    right.plot(scores[:, 3], ":", color=color, marker=marker)
left.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1), xticks=range(EPOCHS + 1))
right.set(xlabel="epoch", ylabel="test loss", ylim=(0, 2.7), xticks=range(EPOCHS + 1))
right.axhline(np.log(np.e + 9) - 1, color="0.7", linewidth=1, zorder=0)
right.text(EPOCHS, 2.02, "with the extra sigmoid", ha="right", va="bottom")
right.text(EPOCHS, 1.46, "its least possible loss", color="0.4", ha="right", va="bottom")
left.legend(loc="lower right")
figure.savefig("mnist_sample_by_sample.png")
