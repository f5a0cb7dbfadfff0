import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

folder, accuracy, most_epochs, threads, seed = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.manual_seed(int(seed))
files = Path(folder, "mnist")


def read(part):
    images = np.fromfile(files / f"{part}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(files / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
    X = torch.from_numpy(images).view(-1, 784).to(torch.float32).mul_(1 / 255)
    return X, torch.from_numpy(labels).long()


X, y = read("train")
X_test, y_test = read("t10k")
model = nn.Sequential(
    nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
)
for layer in model[::2]:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
loss = nn.CrossEntropyLoss()

epochs, score = 0, 0.0
while score < float(accuracy) and epochs < int(most_epochs):
    epochs += 1
    for batch in torch.randperm(len(X)).split(64):
        optimizer.zero_grad(set_to_none=True)
        loss(model(X.index_select(0, batch)), y.index_select(0, batch)).backward()
        optimizer.step()
    with torch.inference_mode():
        score = (model(X_test).argmax(1) == y_test).double().mean().item()
print(json.dumps({"accuracy": score, "epochs": epochs}), flush=True)
sys.stdin.read()
