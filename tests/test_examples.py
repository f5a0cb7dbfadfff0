"""Every example runs, with smaller settings, and finds what it says; the notebooks are its own.

Data are the real ones where FASTMLP_DATA has them, cut short, and a stand-in otherwise.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fastmlp import Network, config, datasets, set_num_threads
from fastmlp.backends import compiled_error, load_compiled
from fastmlp.experiments import find_experiments

FOLDER = Path(__file__).parents[1] / "examples"

if not FOLDER.is_dir():
    pytest.skip("needs the examples of the source tree", allow_module_level=True)
matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

N_TRAIN, N_TEST = 3000, 600


def load_generator():
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()
EXAMPLES = [path.stem for path in generator.examples()]


def stand_in(name):
    """A bright square in a place of its own for each class, on noise; one label in ten is wrong."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, N_TRAIN + N_TEST)
    images = rng.integers(0, 60, (len(y), 28, 28), dtype=np.uint8)
    for image, label in zip(images, y, strict=True):
        row, col = 2 + 12 * (label // 5), 5 * (label % 5)
        image[row : row + 8, col : col + 8] += 180
    X, y = images.reshape(-1, 784), np.where(rng.random(len(y)) < 0.1, rng.permutation(y), y)
    names = tuple(map(str, range(10)))
    parts = X[:N_TRAIN], y[:N_TRAIN], X[N_TRAIN:], y[N_TRAIN:]
    return datasets.Dataset(name, *parts, tuple(f"pixel_{i}" for i in range(784)), names)


def first_samples(load, name, *, real):
    if not real:
        return stand_in(name)
    data = load()
    parts = data.X_train[:N_TRAIN], data.y_train[:N_TRAIN], data.X_test[:N_TEST]
    return datasets.Dataset(
        name, *parts, data.y_test[:N_TEST], data.feature_names, data.target_names
    )


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
    """``run(name, **settings)``: the names an example leaves; constants at its top are replaced."""
    from matplotlib import pyplot as plt

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = config.data_folder()
    for name in ("mnist", "fashion_mnist"):
        real = folder is not None and (folder / name).is_dir()
        load = getattr(datasets, f"load_{name}")
        monkeypatch.setattr(
            datasets,
            f"load_{name}",
            lambda load=load, n=name, r=real: first_samples(load, n, real=r),
        )

    def run_example(name, **settings):
        path = FOLDER / f"{name}.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in settings:
                value = settings.pop(ast.unparse(node.targets[0]))
                node.value = ast.parse(repr(value), mode="eval").body
        assert not settings, f"{name} has no such constants at its top"
        names = {"__name__": "__main__"}
        with plt.rc_context():
            exec(compile(tree, path, "exec"), names)
        plt.close("all")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        return names

    with threadpool_limits(1, user_api="blas"):  # its threads spin, which slows what runs beside
        yield run_example
    set_num_threads(None)


def test_feed_forward_by_hand(run, capsys):
    pytest.importorskip("autograd")
    names = run("feed_forward_by_hand", EPOCHS=750)
    assert 0.28 < np.mean(names["untrained"]) < 0.38
    assert names["accuracies"][-1] >= 0.96
    assert names["costs"][-1] < 20
    assert "agrees: False" not in capsys.readouterr().out


def test_backpropagation_by_hand(run, capsys):
    pytest.importorskip("autograd")
    names = run("backpropagation_by_hand", SEEDS=2, EPOCHS=60)
    assert names["worst"] < 1e-12
    assert names["agreement"] < 1e-12
    out = capsys.readouterr().out
    assert [float(line.split()[-1]) < 1e-12 for line in out.splitlines() if "largest" in line] == [
        *(True, True)
    ]
    assert names["accuracies"].shape == (2, 60)
    assert names["accuracies"][:, -1].min() > 0.95


def test_layers_and_hyperparameters(run):
    names = run("layers_and_hyperparameters", EPOCHS=40)
    (dW1, db1), (dW2, db2) = names["together"]
    for name, expected in (("dW1", dW1), ("db1", db1), ("dW2", dW2), ("db2", db2)):
        np.testing.assert_allclose(names[name], expected, rtol=0, atol=1e-12)
    experiments = {e.folder.name: e for e in find_experiments("iris_runs")}
    assert set(experiments) == {*names["runs"], "petal width"}
    for name, experiment in experiments.items():
        assert set(experiment.result) == {"training", "validation", "test"}
        assert experiment.result["training"] < (0.1 if name == "petal width" else 0.2)
        assert len(experiment.history) == 40
        net = Network.load(experiment.path("last.safetensors"))
        predictions = np.loadtxt(experiment.path("predictions.csv"), delimiter=",", ndmin=2)
        X = names["X_test"][:, : net.architecture.n_inputs]
        np.testing.assert_allclose(net.predict(X), predictions.reshape(len(X), -1), rtol=1e-6)
        assert experiment.path("curves.png").stat().st_size > 5000
    decaying = experiments["100 units, 0.1 decaying"].history["lr"]
    assert decaying[-1] == pytest.approx(0.001, rel=0.02)


def test_fashion_mnist_adam(run):
    names = run("fashion_mnist_adam", EPOCHS=3)
    assert len(names["history"]) == 3
    assert names["history"]["val_accuracy"][-1] > 0.6
    assert names["mistakes"].total() == N_TEST
    assert Path("fashion_mnist_adam_mistakes.png").is_file()


def test_fashion_mnist_sgd(run):
    names = run("fashion_mnist_sgd", EPOCHS=4)
    assert names["history"]["loss"][-1] < 0.9 * names["history"]["loss"][0]
    np.testing.assert_allclose(names["probabilities"].sum(axis=1), 1, rtol=1e-5)
    chosen = names["chosen"]
    assert not names["is_right"][chosen["sure and wrong"]]
    assert Path("fashion_mnist_sgd_probabilities.png").is_file()


def test_mnist_sample_by_sample(run):
    names = run("mnist_sample_by_sample", EPOCHS=2)
    (scaled, _), (raw, caches) = names["results"].values()
    assert scaled.shape == raw.shape == (3, 4)
    np.testing.assert_allclose(scaled[:, 0], scaled[:, 2], atol=0.02)  # sigmoid keeps the order
    assert (scaled[:, 3] > 1.46).all()
    A = caches[0].A
    assert ((A < 0.01) | (A > 0.99)).mean() > 0.9


def test_what_a_network_can_express(run):
    names = run("what_a_network_can_express", EPOCHS=1, COUNTS=[4, 8, 16])
    np.testing.assert_array_equal(names["box"][[0, 1101, 1899, 2000]], [0, 2, 2, 0])
    errors = np.array(names["box_errors"])
    assert ((errors[:-1] / errors[1:] > 1.7) & (errors[:-1] / errors[1:] < 2.1)).all()
    points, g = names["points"], names["g"]
    assert names["largest_error"](names["box_grid"](32), points, g(points)) < 0.08


def test_softmax_jacobian(run):
    names = run("softmax_jacobian")
    assert min(names["errors"]) < 1e-10
    assert names["fast"] < 1e-15
    assert names["fused"] < 1e-15


@pytest.mark.skipif(load_compiled() is None, reason=f"needs the compiled core: {compiled_error()}")
def test_compiled_against_numpy(run):
    names = run("compiled_against_numpy", EPOCHS=1, REPEATS=2)
    numpy_loss, compiled_loss = (history["loss"][-1] for history in names["histories"].values())
    assert numpy_loss == pytest.approx(compiled_loss, rel=1e-3)
    assert all(time > 0 for step in names["times"].values() for time in step.values())


def test_every_example_is_tested():
    assert {f"test_{name}" for name in EXAMPLES} <= set(globals())


every_example = pytest.mark.parametrize("name", EXAMPLES)


@every_example
def test_length(name):
    assert 40 <= len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 150


@every_example
def test_notebook(name):
    """The script's cells, executed in order, without an error, with a figure."""
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    notebook = json.loads((FOLDER / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    written = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert written == generator.cells(source), "run python examples/make_notebooks.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@every_example
def test_page(name):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part in (f"{name}.py", f"notebooks/{name}.ipynb", f"thumbnails/{name}.png"):
        assert f"({part})" in page
        assert (FOLDER / part).is_file()


def test_sizes():
    files = [*FOLDER.glob("notebooks/*"), *FOLDER.glob("thumbnails/*")]
    assert sum(file.stat().st_size for file in files) < 3e6


def test_cells():
    source = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n\n\n# %% [markdown]\n# End.\n"
    assert generator.cells(source) == [
        *(("markdown", "# Title\n\nText."), ("code", "x = 1"), ("markdown", "End.")),
    ]
