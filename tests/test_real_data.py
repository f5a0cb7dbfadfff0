"""Accuracy on MNIST and Fashion-MNIST, from the first weights on."""

from __future__ import annotations

from statistics import median

import pytest

from fastmlp import SGD, Adam, Dense, Network, config, datasets, set_num_threads
from fastmlp.backends import compiled_error, load_compiled

pytestmark = pytest.mark.skipif(
    load_compiled() is None, reason=f"needs the compiled core: {compiled_error()}"
)

FILES = ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """``load(name)``: the data set from FASTMLP_DATA; unpacked into a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))

        def load(name):
            folder = config.data_folder()
            if folder is None:
                pytest.skip("needs data sets: FASTMLP_DATA is not set")
            for file in FILES:
                if not any((folder / name / (file + end)).is_file() for end in ("", ".gz")):
                    pytest.skip(f"needs data sets: FASTMLP_DATA has no {name}/{file}")
            return getattr(datasets, f"load_{name}")()

        yield load


@pytest.fixture
def accuracy():
    """``accuracy(data, layers, seed=0, **options)`` on the test set, after a fit.

    On one thread: the bits do not depend on their number, and a busy machine does not matter.
    """

    def fit_and_evaluate(data, layers, seed=0, **options):
        net = Network(784, layers, loss="cross_entropy", seed=seed, backend="compiled")
        net.fit(data.X_train, data.y_train, **options)
        return net.evaluate(data.X_test, data.y_test)["accuracy"]

    set_num_threads(1)
    yield fit_and_evaluate
    set_num_threads(None)


def test_mnist_sample_by_sample(load, accuracy):
    """Sigmoid layers, the order given, weights from N(0, 1 / max(n_in, n_out))."""
    layers = [Dense(32, "sigmoid", "max_fan_normal"), Dense(32, "sigmoid", "max_fan_normal")]
    layers.append(Dense(10, "softmax", "max_fan_normal"))
    options = {"optimizer": SGD(0.003), "epochs": 3, "batch_size": 1, "shuffle": False}
    assert accuracy(load("mnist"), layers, **options) >= 0.91


def test_mnist_in_batches(load, accuracy):
    """The median of three seeds: single ones scatter by half a percent after so few epochs."""
    data = load("mnist")
    layers = [Dense(256, "relu"), Dense(128, "relu"), Dense(10, "softmax")]
    options = {"optimizer": Adam(1e-3), "epochs": 3, "batch_size": 64}
    assert median(accuracy(data, layers, seed, **options) for seed in range(3)) >= 0.97


def test_fashion_mnist(load, accuracy):
    layers = [Dense(256, "relu"), Dense(128, "relu"), Dense(64, "relu"), Dense(10, "softmax")]
    options = {"optimizer": SGD(0.02), "epochs": 5, "batch_size": 64}
    assert accuracy(load("fashion_mnist"), layers, **options) >= 0.82
