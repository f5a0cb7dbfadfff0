# %% [markdown]
# # Fashion-MNIST with plain SGD
#
# After the first homework of the deep learning course at New York University (fall 2021): three
# hidden layers, 784-256-128-64-10, plain gradient descent at 0.01, batches of 64. The loss is drawn
# for training and test images, and three test images are looked at closely. The source ends at a
# training loss of 0.256, a test loss of 0.357 and 86% after 50 epochs.

# %%
import matplotlib.pyplot as plt
import numpy as np

from fastmlp import SGD, Dense, Network
from fastmlp.datasets import load_fashion_mnist
from fastmlp.plots import class_probabilities, learning_curves

EPOCHS = 50

# %%
data = load_fashion_mnist()
layers = [Dense(256, "relu"), Dense(128, "relu"), Dense(64, "relu"), Dense(10, "softmax")]
net = Network(784, layers, loss="cross_entropy", seed=0)
history = net.fit(
    data.X_train,
    data.y_train,
    optimizer=SGD(0.01),
    epochs=EPOCHS,
    batch_size=64,
    validation_data=(data.X_test, data.y_test),
)
print("epoch   training loss   test loss   test accuracy")
for r in history.records:
    if r["epoch"] == 1 or r["epoch"] % 5 == 0:
        print(f"{r['epoch']:5} {r['loss']:13.3f} {r['val_loss']:13.3f} {r['val_accuracy']:13.3f}")
print(f"{sum(history['seconds']):.1f} s of training")

# %% [markdown]
# The training loss falls steadily. The test loss stops falling after some 30 epochs and then only
# wavers: the rest of the training is spent on these 60,000 images rather than on clothing.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
learning_curves(history, "loss", ax=axes[0])
learning_curves(history, "accuracy", ax=axes[1])
figure.savefig("fashion_mnist_sgd.png")

# %% [markdown]
# ## Three images
#
# Softmax gives a probability for each class. One image here the network is sure of, one it gets
# wrong with confidence, and one it cannot decide: where the two largest probabilities are closest.

# %%
probabilities = net.predict(data.X_test)
ranked = np.sort(probabilities, axis=1)
is_right = probabilities.argmax(axis=1) == data.y_test
chosen = {
    "sure": 0,
    "sure and wrong": np.where(is_right, 0, ranked[:, -1]).argmax(),
    "undecided": (ranked[:, -1] - ranked[:, -2]).argmin(),
}
for name, i in chosen.items():
    print(f"\ntest image {i}, {name}: {data.target_names[data.y_test[i]]}")
    for k in probabilities[i].argsort()[:-4:-1]:
        print(f"  {data.target_names[k]:12} {probabilities[i, k]:.3f}")

# %%
rows = list(chosen.values())
ax = class_probabilities(
    data.X_test[rows], probabilities[rows], data.y_test[rows], data.target_names
)
ax.figure.savefig("fashion_mnist_sgd_probabilities.png")
