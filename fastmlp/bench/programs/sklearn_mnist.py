import json
import sys
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

folder, accuracy, most_epochs, threads, seed = sys.argv[1:]
files = Path(folder, "mnist")


def read(part):
    images = np.fromfile(files / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(files / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
    return images.reshape(-1, 784) * np.float32(1 / 255), labels


X, y = read("train")
X_test, y_test = read("t10k")
model = MLPClassifier((256, 128), alpha=0.0, batch_size=64, random_state=int(seed))
epochs, score = 0, 0.0
while score < float(accuracy) and epochs < int(most_epochs):
    epochs += 1
    model.partial_fit(X, y, classes=np.arange(10))
    score = model.score(X_test, y_test)
print(json.dumps({"accuracy": score, "epochs": epochs}), flush=True)
sys.stdin.read()
