import json
import os
import sys

folder, accuracy, most_epochs, threads, seed = sys.argv[1:]
os.environ |= {"FASTMLP_DATA": folder, "FASTMLP_NUM_THREADS": threads}

from fastmlp import Adam, Callback, Dense, Network  # noqa: E402
from fastmlp.datasets import load_mnist  # noqa: E402


class UntilAccurate(Callback):
    def on_epoch_end(self, network, record):
        return record["val_accuracy"] >= float(accuracy)


mnist = load_mnist()
net = Network(
    784,
    [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")],
    loss="cross_entropy",
    seed=int(seed),
)
history = net.fit(
    mnist.X_train,
    mnist.y_train,
    optimizer=Adam(1e-3),
    epochs=int(most_epochs),
    batch_size=64,
    validation_data=(mnist.X_test, mnist.y_test),
    callbacks=[UntilAccurate()],
)
print(json.dumps({"accuracy": history["val_accuracy"][-1], "epochs": len(history)}), flush=True)
sys.stdin.read()
