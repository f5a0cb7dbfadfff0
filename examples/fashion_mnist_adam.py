# %% [markdown]
# # Fashion-MNIST with Adam
#
# After a homework of CS 189, the machine learning course at Berkeley: a 784-256-128-10 network of
# relu units, Adam at 0.001, batches of 64, ten epochs. The homework asks for 82% on held-out
# images.

# %%
from collections import Counter

import matplotlib.pyplot as plt

from fastmlp import Adam, Dense, Network
from fastmlp.datasets import load_fashion_mnist
from fastmlp.plots import confusion_matrix, learning_curves

EPOCHS = 10

# %% [markdown]
# ## Data
#
# 60,000 training images of 28x28 pixels in ten classes of clothing. One in six is kept back for
# validation: it takes no part in training and tells how well the network does on what it has not
# seen. Pixels stay bytes; the kernels divide them by 255 as they read them.

# %%
data = load_fashion_mnist()
n_validation = len(data.X_train) // 6
X, y = data.X_train[:-n_validation], data.y_train[:-n_validation]
validation = data.X_train[-n_validation:], data.y_train[-n_validation:]
print(data)
print(f"{len(X):,} images to train on, {n_validation:,} for validation")

# %% [markdown]
# ## Training

# %%
layers = [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")]
net = Network(784, layers, loss="cross_entropy", seed=0)
print(net)
history = net.fit(
    X, y, optimizer=Adam(0.001), epochs=EPOCHS, batch_size=64, validation_data=validation
)

print("\nepoch   training loss  accuracy   validation loss  accuracy   seconds")
for r in history.records:
    print(f"{r['epoch']:5} {r['loss']:15.3f} {r['accuracy']:9.3f}", end=" ")
    print(f"{r['val_loss']:17.3f} {r['val_accuracy']:9.3f} {r['seconds']:9.2f}")
test = net.evaluate(data.X_test, data.y_test)
print(f"test images: loss {test['loss']:.3f}, accuracy {test['accuracy']:.3f}")

# %% [markdown]
# The training loss keeps falling while the validation loss only wavers: more and more of what the
# network learns is true of its own images alone. The training columns are means over an epoch, each
# batch before its update; so early on the validation, measured after the epoch, is ahead.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
learning_curves(history, "loss", ax=axes[0])
learning_curves(history, "accuracy", ax=axes[1])
figure.savefig("fashion_mnist_adam.png")

# %% [markdown]
# ## Which classes are mistaken for which
#
# Rows are what the picture shows, columns what the network takes it for.

# %%
predicted = net.predict(data.X_test).argmax(axis=1)
ax = confusion_matrix(data.y_test, predicted, data.target_names)
ax.figure.savefig("fashion_mnist_adam_mistakes.png")

print("\nmost frequent mistakes on the test images")
mistakes = Counter(zip(data.y_test, predicted))
for (true, taken), count in mistakes.most_common():
    if true != taken and count > 60:
        print(f"{count:5} times {data.target_names[true]} taken for {data.target_names[taken]}")
