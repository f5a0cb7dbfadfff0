"""Dense neural networks, trained on the CPU at the speed of the hardware.

>>> from fastmlp import Adam, Dense, Network
>>> from fastmlp.datasets import load_digits
>>> digits = load_digits()
>>> net = Network(64, [Dense(64, "relu"), Dense(10, "softmax")], loss="cross_entropy", seed=0)
>>> history = net.fit(digits.X_train, digits.y_train, optimizer=Adam(1e-3), epochs=20)
>>> net.evaluate(digits.X_test, digits.y_test)["accuracy"] > 0.95
True
"""

from importlib import import_module
from typing import Any

from fastmlp.activations import Activation
from fastmlp.callbacks import Callback, Checkpoint, EarlyStopping
from fastmlp.config import set_num_threads
from fastmlp.custom_layer import Layer
from fastmlp.gradient_check import check_gradient
from fastmlp.history import History
from fastmlp.layers import BatchNorm, Dense, Dropout, LayerNorm
from fastmlp.losses import (
    BinaryCrossEntropy,
    BinaryFocal,
    CrossEntropy,
    Focal,
    Huber,
    Loss,
    Quantile,
)
from fastmlp.lr_finder import find_learning_rate
from fastmlp.network import Network
from fastmlp.optimizers import SGD, Adagrad, Adam, AdamW, Averaged, Nadam, RMSprop
from fastmlp.runtime import get_num_threads, show_config
from fastmlp.training import DivergenceError
from fastmlp.version import __version__

__all__ = [
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "Averaged",
    "BatchNorm",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "Callback",
    "Checkpoint",
    "CrossEntropy",
    "Dense",
    "DivergenceError",
    "Dropout",
    "EarlyStopping",
    "Focal",
    "History",
    "Huber",
    "Layer",
    "LayerNorm",
    "Loss",
    "MLPClassifier",
    "MLPFeatures",
    "MLPRegressor",
    "Nadam",
    "Network",
    "Quantile",
    "RMSprop",
    "__version__",
    "check_gradient",
    "find_learning_rate",
    "get_num_threads",
    "set_num_threads",
    "show_config",
]

# Imported at the first use: module, what it imports besides NumPy, the package that brings it. What
# is no dependency of fastmlp is not in __all__ either: `import *` would import it.
_LAZY = {
    "MLPClassifier": ("fastmlp.estimators", ["sklearn"], "scikit-learn"),
    "MLPFeatures": ("fastmlp.estimators", ["sklearn"], "scikit-learn"),
    "MLPRegressor": ("fastmlp.estimators", ["sklearn"], "scikit-learn"),
    "register_skl2onnx": ("fastmlp.exchange.pipelines", ["skl2onnx", "onnx"], "skl2onnx"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, needed, package = _LAZY[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in needed:
            raise
        hint = f"fastmlp.{name} needs {package}: pip install {package}"
        raise ImportError(hint, name=error.name) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
