# %% [markdown]
# # Layers, Iris, hyperparameters
#
# After a homework of CS 189, the machine learning course at Berkeley: the parts of a network one
# by one, forward and backward, on batches; then four runs on Iris that differ in their
# hyperparameters, each kept in a folder of its own.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from fastmlp import SGD, Dense, Network
from fastmlp.activations import ACTIVATIONS, softmax_jacobian
from fastmlp.datasets import load_iris
from fastmlp.experiments import Experiment, find_experiments
from fastmlp.loggers import JSONLinesLogger
from fastmlp.losses import LOSSES
from fastmlp.plots import compare_runs, learning_curves
from fastmlp.schedules import ExponentialDecay

EPOCHS = 200

# %% [markdown]
# ## Data
#
# 90 flowers to train on, 30 to choose hyperparameters by (validation), 30 to report (test). Mean
# and deviation come from the training flowers alone: the others are not supposed to be known yet.

# %%
data = load_iris()
X, X_val, y, y_val = train_test_split(
    data.X_train, data.y_train, test_size=0.25, random_state=0, stratify=data.y_train
)
mean, deviation = X.mean(axis=0), X.std(axis=0)
X, X_val, X_test = ((values - mean) / deviation for values in (X, X_val, data.X_test))
print(f"{len(X)} training, {len(X_val)} validation, {len(X_test)} test flowers")

# %% [markdown]
# ## The parts, forward
#
# Fully connected (`Dense` with the identity), relu, fully connected, softmax, cross-entropy: each
# takes a batch and gives a batch.

# %%
relu, softmax, cross_entropy = ACTIVATIONS["relu"], ACTIVATIONS["softmax"], LOSSES["cross_entropy"]
layers = [Dense(25, "relu"), Dense(3, "softmax")]
net = Network(4, layers, loss="cross_entropy", dtype="float64", seed=0)
first, second = net.parameters
connected = Dense(25), Dense(3)
Y = np.eye(3)[y]

Z1 = connected[0].apply(first, X)
A1 = relu.forward(Z1)
Z2 = connected[1].apply(second, A1)
P = softmax.forward(Z2)
losses = cross_entropy.value(P, Y)
for name, value in {"X": X, "Z1": Z1, "A1": A1, "Z2": Z2, "P": P, "losses": losses}.items():
    print(f"{name:7} {value.shape!s:9} of the first flower: {np.ravel(value[0])[:3].round(3)}")

# %% [markdown]
# ## The parts, backward
#
# Each takes the gradient of what it gave and gives the gradient of what it took. Softmax by its
# Jacobian, a 3x3 matrix for each flower.

# %%
dP = cross_entropy.gradient(P, Y) / len(Y)
J = softmax_jacobian(P)
dZ2 = np.einsum("nij,ni->nj", J, dP)
dA1, (dW2, db2) = connected[1].apply_backward(second, A1, dZ2)
dZ1 = relu.backward(dA1, Z1, A1)
dX, (dW1, db1) = connected[0].apply_backward(first, X, dZ1)
print("Jacobians", J.shape, "of the first flower:", *J[0].round(3).tolist())
print("without the matrix:", np.allclose(dZ2, softmax.backward(dP, Z2, P)))
together = net.compute_gradient(X, y)
for i, pair in enumerate([(dW1, db1), (dW2, db2)]):
    difference = max(np.abs(a - b).max() for a, b in zip(pair, together[i]))
    print(
        f"dW{i + 1} {pair[0].shape}, db{i + 1} {pair[1].shape}: {difference:.1e} from the network's"
    )

# %% [markdown]
# ## A run and its folder
#
# `Experiment` makes a folder with the settings and the versions of everything; into it go the
# parameters, the loss curves, the predictions and the scores. The error is 1 - accuracy for
# classes, and for numbers the mean squared error, which is then the loss.


# %%
def error(net, X, y):
    scores = net.evaluate(X, y)
    return 1 - scores["accuracy"] if "accuracy" in scores else scores["loss"]


def run(name, output, loss, train, validation, test, *, units=25, rate=0.1, decay=False):
    settings = {"loss": loss, "units": units, "rate": rate, "decay": decay, "epochs": EPOCHS}
    experiment = Experiment.create(f"iris_runs/{name}", settings, overwrite=True)
    net = Network(train[0].shape[1], [Dense(units, "relu"), output], loss=loss, seed=0)
    # Batches of 10: 9 steps an epoch. The decaying rate ends at a hundredth.
    lr = ExponentialDecay(rate, n_steps=9 * EPOCHS, factor=0.01) if decay else rate
    options = {"optimizer": SGD(lr), "epochs": EPOCHS, "batch_size": 10}
    log = JSONLinesLogger(experiment.path("history.jsonl"))
    history = net.fit(*train, **options, validation_data=validation, callbacks=[log])
    net.save(experiment.path("last.safetensors"))
    curves = learning_curves(history).figure
    curves.savefig(experiment.path("curves.png"))
    plt.close(curves)
    np.savetxt(experiment.path("predictions.csv"), net.predict(test[0]), delimiter=",")
    parts = {"training": train, "validation": validation, "test": test}
    experiment.write("result.json", {part: error(net, *xy) for part, xy in parts.items()})
    return history


flowers = (X, y), (X_val, y_val), (X_test, data.y_test)
runs = {
    "25 units, 0.01": {"rate": 0.01},
    "25 units, 0.1": {},
    "100 units, 0.1": {"units": 100},
    "100 units, 0.1 decaying": {"units": 100, "decay": True},
}
histories = {
    name: run(name, Dense(3, "softmax"), "cross_entropy", *flowers, **settings)
    for name, settings in runs.items()
}

# %% [markdown]
# The same parts fit numbers: the width of the petal (standardised) from the other three measures.

# %%
petals = [(values[:, :3], values[:, 3]) for values in (X, X_val, X_test)]
run("petal width", Dense(1), "mse", *petals)

print("\nexperiment                  training  validation   test error")
for experiment in find_experiments("iris_runs"):
    errors = experiment.result
    print(f"{experiment.folder.name:26}", *(f"{value:10.3f}" for value in errors.values()))
print("in each folder:", *sorted(path.name for path in experiment.folder.iterdir()))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
compare_runs(histories, "loss", ax=left)
compare_runs(histories, "val_loss", ax=right)
figure.savefig("layers_and_hyperparameters.png")
