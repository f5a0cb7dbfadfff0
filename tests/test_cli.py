"""The command line: what it prints, what it writes, how it ends."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import fastmlp
from fastmlp import Dense, Network, cli, config
from fastmlp.backends import load_compiled
from fastmlp.cli import app
from fastmlp.datasets import Dataset, load_iris
from fastmlp.jobs import Job
from fastmlp.scaling import Scaling
from fastmlp.settings import OPTIMIZER_NAMES
from fastmlp.tables import holds_classes, split

TIMEOUT = 120
COMMANDS = ("train", "evaluate", "predict", "export", "info")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A folder of its own; no warning where the compiled core was not built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FASTMLP_BACKEND", "FASTMLP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if load_compiled() is None:
        monkeypatch.setenv("FASTMLP_BACKEND", "numpy")
    yield
    config.set_num_threads(None)


def run(*arguments):
    """A command in this process; an exception that a user would see as a traceback is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def text(*arguments):
    """What a command that must succeed prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def document(*arguments):
    """The one JSON document that a command prints, and nothing else."""
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout, parse_constant=pytest.fail)


@contextlib.contextmanager
def started(*arguments, **settings):
    """``python -m fastmlp`` in a process of its own, of which nothing is left at the end."""
    # Without -m's own start: a shell may have started the tests with Ctrl-C switched off.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import runpy; runpy.run_module('fastmlp', run_name='__main__')"
    )
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    settings["env"] = {**os.environ, "PYTHONPATH": str(Path(fastmlp.__file__).parents[1])}
    settings["env"].pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def in_terminal(*arguments, **settings):
    """The process and a function that reads what its terminal shows until it holds `wanted`."""
    terminal, inner = pty.openpty()
    shown = b""

    def read_until(wanted=None):
        nonlocal shown
        # The terminal gives an error, not an end of file, once the process has closed it.
        with contextlib.suppress(OSError):
            while wanted is None or wanted not in shown:
                part = os.read(terminal, 65536)
                if not part:
                    break
                shown += part
        return shown.decode()

    try:
        streams = {"stdin": inner, "stdout": inner, "stderr": inner, **settings}
        with started(*arguments, **streams) as process:
            os.close(inner)
            yield process, read_until
    finally:
        os.close(terminal)


def write_csv(path, rows, header=None):
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


def iris_rows(label_at=4):
    """Iris in raw units, the names of the species in column `label_at`."""
    iris = load_iris()
    X, y = np.concatenate([iris.X_train, iris.X_test]), np.concatenate([iris.y_train, iris.y_test])
    rows = X.astype(str).tolist()
    for row, species in zip(rows, y, strict=True):
        row.insert(label_at, iris.target_names[species])
    return rows


IRIS_HEADER = ["sepal length", "sepal width", "petal length", "petal width", "species"]


@pytest.fixture
def iris_csv():
    return write_csv("iris.csv", iris_rows(), IRIS_HEADER)


@pytest.fixture
def model(iris_csv):
    """A saved network that tells the species of the file."""
    text("train", iris_csv, "--out", "model.safetensors", "--epochs", 30)
    return "model.safetensors"


def linear_npz(path="linear.npz", n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal([5, -200, 0.01], [1, 30, 0.001], (n, 3))
    np.savez(path, X=X, y=5000 + X @ [70.0, 3.0, 20_000.0])
    return path


# --- train ----------------------------------------------------------------------------------------


def test_train_alone_learns_digits():
    result = document("train")
    assert result["dataset"] == "digits"
    assert (result["n_train"], result["n_test"]) == (1437, 360)
    assert result["test"]["accuracy"] > 0.97
    assert len(result["history"]) == result["epochs"]
    assert result["history"][-1]["val_accuracy"] == result["test"]["accuracy"]
    assert result["seconds"] == sum(record["seconds"] for record in result["history"])
    assert result["saved"] is None


def test_train_prints_a_summary():
    shown = text("train", "digits", "--epochs", 2, "--out", "digits.safetensors")
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert lines["data"] == "digits: 1,437 training and 360 test samples, 10 classes"
    assert lines["network"].startswith("64-256-10 relu, 19,210 parameters, ")
    assert lines["training"] == "Adam, learning rate 0.003 falling to 0, batch 32, 2 epochs"
    assert lines["time"].endswith(" samples/s")
    assert lines["test"].startswith("accuracy 9")
    assert lines["saved"] == "digits.safetensors"
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.skipif(not os.environ.get("FASTMLP_DATA"), reason="needs MNIST: set FASTMLP_DATA")
def test_train_mnist_with_the_defaults():
    result = document("train", "mnist")
    assert result["epochs"] == 3
    assert [layer["n_units"] for layer in result["architecture"]["layers"]] == [256, 128, 10]
    assert result["test"]["accuracy"] > 0.97


@pytest.mark.parametrize("name", ["fashion-mnist", "fashion_mnist", "Fashion-MNIST"])
def test_every_spelling_of_a_name(monkeypatch, name):
    images = np.arange(40 * 784, dtype=np.uint8).reshape(40, 784)
    labels = np.arange(40) % 10
    names = tuple("abcdefghij")
    data = Dataset("fashion_mnist", images, labels, images, labels, (), names)
    monkeypatch.setattr("fastmlp.datasets.load_fashion_mnist", lambda: data)
    result = document("train", name, "--epochs", 1)
    assert result["dataset"] == "fashion_mnist"
    assert result["standardize"] is False


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--layers", "7,5"], [7, 5, 3]),
        (["--layers", " 7 , 5 "], [7, 5, 3]),
        (["--layers", "none"], [3]),
        (["--layers", ""], [3]),
        ([], [16, 3]),
    ],
)
def test_layers(options, expected):
    layers = document("train", "iris", "--epochs", 1, *options)["architecture"]["layers"]
    assert [layer["n_units"] for layer in layers] == expected


@pytest.mark.parametrize("optimizer", OPTIMIZER_NAMES)
def test_every_optimizer_learns(optimizer):
    options = ("--learning-rate", 0.02, "--epochs", 200)
    result = document("train", "iris", "--optimizer", optimizer, *options)
    assert result["optimizer"]["name"].lower() == optimizer
    assert result["optimizer"]["lr"] == 0.02
    assert result["test"]["accuracy"] > 0.8


def test_the_recipes_learning_rate_is_not_for_plain_gradient_descent():
    assert document("train", "iris", "--epochs", 1)["optimizer"]["lr"] == 0.02
    assert document("train", "iris", "--epochs", 1, "--optimizer", "sgd")["optimizer"]["lr"] == 0.01


def test_options_reach_the_fit():
    options = "--optimizer sgd --learning-rate 0.5 --momentum 0.25 --epochs 3 --batch-size 50"
    more = "--activation tanh --dtype float64 --backend numpy --threads 1 --no-standardize --seed 9"
    result = document("train", "iris", *options.split(), *more.split())
    assert result["optimizer"]["momentum"] == 0.25
    assert result["optimizer"]["lr"] == 0.5
    assert (result["epochs"], result["batch_size"], result["seed"]) == (3, 50, 9)
    assert result["architecture"]["layers"][0]["activation"] == "tanh"
    assert result["architecture"]["dtype"] == "float64"
    assert (result["backend"], result["threads"]) == ("numpy", 1)
    assert result["standardize"] is False


def test_the_learning_rate_falls_to_zero_unless_it_shall_not():
    falling = [record["lr"] for record in document("train", "iris", "--epochs", 4)["history"]]
    # 120 samples in batches of 16: 8 steps an epoch, and the rate of an epoch's last one.
    np.testing.assert_allclose(falling, 0.02 * (1 - np.array([7, 15, 23, 31]) / 32))
    constant = document("train", "iris", "--epochs", 4, "--schedule", "constant")["history"]
    assert [record["lr"] for record in constant] == [0.02] * 4


def test_batches_larger_than_the_data_are_one_step_an_epoch():
    records = document("train", "iris", "--epochs", 4, "--batch-size", 1000)["history"]
    np.testing.assert_allclose([r["lr"] for r in records], 0.02 * np.array([1, 0.75, 0.5, 0.25]))


def test_the_same_seed_gives_the_same_network_and_another_one_another():
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        text("train", "iris", "--epochs", 2, "--seed", seed, "--out", name)
    a, b, c = (Network.load(name).arena.flat.tobytes() for name in "abc")
    assert a == b
    assert a != c


# --- train: tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(("label_at", "label"), [(4, None), (0, "species"), (0, "0"), (2, "-3")])
def test_labels_may_stand_in_any_column(label_at, label):
    header = IRIS_HEADER[:4]
    header.insert(label_at, "species")
    write_csv("iris.csv", iris_rows(label_at), header)
    option = [] if label is None else ["--label", label]
    result = document("train", "iris.csv", *option)
    assert result["classes"] == ["setosa", "versicolor", "virginica"]
    assert (result["n_train"], result["n_test"]) == (120, 30)
    assert result["standardize"] is True
    assert result["test"]["accuracy"] > 0.85


def test_quantities_in_large_units_are_learned():
    result = document("train", linear_npz(), "--out", "model")
    assert result["classes"] == []
    assert result["architecture"]["loss"] == "mse"
    assert result["test"]["r2"] > 0.95
    arrays = np.load("linear.npz")
    said = document("predict", "model", "linear.npz")["predictions"]
    assert np.corrcoef(said, arrays["y"])[0, 1] > 0.97
    assert abs(np.mean(said) - arrays["y"].mean()) < 0.1 * arrays["y"].std()


def test_r2_is_the_explained_share_of_the_variance():
    text("train", linear_npz(), "--epochs", 3, "--out", "model")
    y, said = np.load("linear.npz")["y"], document("predict", "model", "linear.npz")["predictions"]
    scores = document("evaluate", "model", "linear.npz")
    mse = np.mean((y - said) ** 2)
    assert scores["loss"] == pytest.approx(mse, rel=1e-4)
    assert scores["r2"] == pytest.approx(1 - mse / np.var(y), rel=1e-4)


def test_several_quantities_at_once():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    np.savez("two.npz", X=X, y=np.column_stack([X[:, 0] * 100, X[:, 1] + 7]))
    result = document("train", "two.npz", "--out", "model")
    assert result["architecture"]["layers"][-1]["n_units"] == 2
    assert np.shape(document("predict", "model", "two.npz")["predictions"]) == (200, 2)
    assert text("predict", "model", "two.npz", "--out", "said.csv") == ""
    assert Path("said.csv").read_text().splitlines()[0] == "y0,y1"


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array(["a", "b"]), True),
        (np.array([True, False]), True),
        (np.arange(100) % 10, True),
        (np.arange(100), False),  # as many numbers as rows
        (np.arange(1000) % 40, False),  # ages, say
        (np.array([0.0, 1.0]), False),
        (np.zeros((4, 2), dtype=np.int64), False),
    ],
)
def test_what_labels_suggest(y, expected):
    assert bool(holds_classes(y)) is expected


def test_task_decides_where_labels_suggest_otherwise():
    rng = np.random.default_rng(0)
    np.savez("stars.npz", X=rng.normal(size=(60, 2)), y=np.arange(60) % 5 + 1)
    options = ("--epochs", 1, "--task")
    assert document("train", "stars.npz", *options, "classification")["classes"] == [1, 2, 3, 4, 5]
    assert document("train", "stars.npz", *options, "regression")["classes"] == []
    np.savez("halves.npz", X=rng.normal(size=(60, 2)), y=np.arange(60) % 2 / 2)
    assert document("train", "halves.npz", *options, "classification")["classes"] == [0.0, 0.5]


@pytest.mark.parametrize(("fraction", "n_test"), [("0", 0), ("0.1", 15), ("0.5", 75)])
def test_test_fraction(iris_csv, fraction, n_test):
    options = ("train", iris_csv, "--epochs", 1, "--test-fraction", fraction)
    result = document(*options)
    assert (result["n_train"], result["n_test"]) == (150 - n_test, n_test)
    assert (result["test"] is None) is (n_test == 0)
    assert ("no samples held out" in text(*options)) is (n_test == 0)


@pytest.mark.parametrize("n", [2, 7, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.9])
def test_split_gives_every_row_to_one_part(n, fraction):
    y = np.arange(n) % 3
    train, test = split(y, fraction, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert len(test) == int(n * fraction + 1e-9)
    assert len(train) > 0


def test_split_keeps_the_proportions_and_follows_the_seed():
    y = np.repeat([0, 1, 2], [500, 300, 20])
    train, test = split(y, 0.2, seed=0)
    np.testing.assert_allclose(np.bincount(y[test]), [100, 60, 4], atol=1)
    assert not np.array_equal(test, np.sort(test)), "the rows are shuffled"
    assert set(test.tolist()) != set(split(y, 0.2, seed=1)[1].tolist())
    np.testing.assert_array_equal(train, split(y, 0.2, seed=0)[0])


# --- Standardisation ------------------------------------------------------------------------------


def raw_columns(n=50):
    """Columns of very different units, and two that are constant."""
    rng = np.random.default_rng(0)
    X = rng.normal([0, 100, -3, 0.5], [1e-3, 20, 50, 7], (n, 4))
    # The computed standard deviation of a column of 0.1 is about 1e-17, not 0.
    return np.column_stack([X, np.full(n, 0.1), np.full(n, -40.0)])


def random_network(n_inputs, dtype, seed=0, **settings):
    net = Network(n_inputs, [Dense(8, "tanh"), Dense(2)], loss="mse", dtype=dtype, **settings)
    rng = np.random.default_rng(seed)
    for W, b in net.parameters:
        W[...] = rng.normal(size=W.shape)
        b[...] = rng.normal(size=b.shape)
    return net


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-4), ("float64", 1e-11)])
def test_folding_into_the_inputs_is_exact(backend, dtype, atol):
    X = raw_columns()
    scaling = Scaling.of(X)
    net = random_network(6, dtype, backend=backend)
    expected = net.predict(scaling.apply(X))
    assert np.abs(net.predict(X) - expected).max() > 0.1, "not what the folding is there for"
    scaling.fold_into_inputs(net)
    np.testing.assert_allclose(net.predict(X), expected, rtol=0, atol=atol)


def test_folding_for_pixels():
    X = np.random.default_rng(0).integers(0, 256, (30, 6), dtype=np.uint8)
    X[:, 2] = 9
    scaling = Scaling.of(X)
    net = random_network(6, "float64")
    expected = net.predict(scaling.apply(X))
    scaling.fold_into_inputs(net)
    np.testing.assert_allclose(net.predict(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(net.predict(X / 255), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-13)])
def test_folding_into_the_outputs_is_exact(dtype, rtol):
    X = np.random.default_rng(0).normal(size=(30, 6))
    scaling = Scaling(np.array([2000.0, -7.0]), np.array([300.0, 0.01]))
    net = random_network(6, dtype)
    expected = scaling.mean + scaling.deviation * net.predict(X)
    scaling.fold_into_outputs(net)
    np.testing.assert_allclose(net.predict(X), expected, rtol=rtol)


def test_scaling_gives_mean_zero_and_deviation_one():
    z = Scaling.of(raw_columns()).apply(raw_columns())
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), [1, 1, 1, 1, 0, 0], atol=1e-12)


def test_training_uses_the_statistics_of_the_training_part_alone(monkeypatch):
    seen = []
    original = Scaling.of
    monkeypatch.setattr(Scaling, "of", lambda values: seen.append(values) or original(values))
    text("train", "iris", "--epochs", 1)
    np.testing.assert_array_equal(seen[0], load_iris().X_train)
    assert len(seen) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_that_the_type_cannot_tell_apart_are_reported(dtype):
    t = 1.7e9 + np.arange(200.0)  # seconds since 1970, four minutes of them
    write_csv("times.csv", [[f"{a:.0f}", 0, "late" if a > t[99] else "early"] for a in t])
    result = run("train", "times.csv", "--dtype", dtype)
    assert result.exit_code == 0
    assert ("use --dtype float64" in result.stderr) is (dtype == "float32")
    assert len(result.stderr.splitlines()) == (dtype == "float32")


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_finds_what_train_found():
    trained = document("train", "iris", "--out", "model")["test"]
    result = document("evaluate", "model")
    assert (result["dataset"], result["n"]) == ("iris", 30)
    assert {name: result[name] for name in trained} == trained
    assert document("evaluate", "model", "iris") == result
    assert "accuracy" in text("evaluate", "model")


def test_evaluate_takes_a_whole_file(model, iris_csv):
    result = document("evaluate", model, iris_csv)
    assert result["n"] == 150
    said = document("predict", model, iris_csv)["predictions"]
    species = [row[4] for row in iris_rows()]
    assert result["accuracy"] == pytest.approx(np.mean(np.array(said) == species))
    assert result["accuracy"] > 0.85


def test_evaluate_knows_the_label_column_of_the_training(iris_csv):
    write_csv("first.csv", iris_rows(0), ["species", *IRIS_HEADER[:4]])
    text("train", "first.csv", "--label", "species", "--out", "model")
    assert document("evaluate", "model", "first.csv")["accuracy"] > 0.85
    assert document("evaluate", "model", iris_csv)["accuracy"] > 0.85


def test_labels_of_a_named_set_are_matched_by_name():
    # The file's classes in the order of the alphabet are not those of the data set.
    swap = {"setosa": "virginica", "virginica": "setosa", "versicolor": "versicolor"}
    write_csv("swapped.csv", [[*row[:4], swap[row[4]]] for row in iris_rows()])
    text("train", "swapped.csv", "--out", "swapped")
    assert document("evaluate", "swapped", "iris")["accuracy"] < 0.5


def test_networks_made_in_python_are_evaluated_too(iris_csv):
    net = Network(4, [Dense(3, "softmax")], loss="cross_entropy", seed=0)
    net.save("plain")
    iris = load_iris()
    expected = net.evaluate(iris.X_test, iris.y_test)
    assert document("evaluate", "plain", "iris")["loss"] == pytest.approx(expected["loss"])
    result = run("evaluate", "plain", iris_csv)
    assert "error: label 'setosa': the model knows 0, 1, 2" in result.stderr


# --- predict --------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [[0, 1, 2, 3], [0, 1, 2, 3, 4]], ids=["inputs", "labels too"])
@pytest.mark.parametrize("header", [True, False])
def test_predict_prints_one_label_a_row(model, columns, header):
    rows = [[row[i] for i in columns] for row in iris_rows()[::20]]
    write_csv("some.csv", rows, [IRIS_HEADER[i] for i in columns] if header else None)
    shown = text("predict", model, "some.csv").splitlines()
    assert shown == document("predict", model, "some.csv")["predictions"]
    species = [row[4] for row in iris_rows()[::20]]
    assert sum(a == b for a, b in zip(shown, species, strict=True)) >= 7


def test_predict_leaves_out_the_labels_wherever_they_are(model, iris_csv):
    expected = text("predict", model, iris_csv)
    write_csv("first.csv", iris_rows(0), ["species", *IRIS_HEADER[:4]])
    assert text("predict", model, "first.csv", "--label", "species") == expected
    text("train", "first.csv", "--label", "0", "--out", "first")
    write_csv("bare.csv", [row[:4] for row in iris_rows()], IRIS_HEADER[:4])
    assert text("predict", "first", "bare.csv") == text("predict", "first", "first.csv")


def test_predict_takes_npz_with_and_without_labels(model, iris_csv):
    X = np.array([row[:4] for row in iris_rows()], dtype=np.float64)
    np.savez("inputs.npz", X=X)
    np.savez("both.npz", X=X, y=np.zeros(len(X)))
    expected = text("predict", model, iris_csv)
    assert text("predict", model, "inputs.npz") == expected
    assert text("predict", model, "both.npz") == expected


def test_probabilities(model, iris_csv):
    result = document("predict", model, iris_csv, "--proba")
    probabilities = np.array(result["probabilities"])
    assert probabilities.shape == (150, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    best = [result["classes"][i] for i in probabilities.argmax(axis=1)]
    assert best == result["predictions"]
    rows = list(csv.reader(text("predict", model, iris_csv, "--proba").splitlines()))
    assert rows[0] == ["prediction", "setosa", "versicolor", "virginica"]
    assert [row[0] for row in rows[1:]] == best
    np.testing.assert_array_equal(np.array(rows[1:])[:, 1:].astype(float), probabilities)


def test_predict_writes_csv(model, iris_csv):
    labels = text("predict", model, iris_csv).splitlines()
    assert text("predict", model, iris_csv, "--out", "said.csv") == ""
    assert Path("said.csv").read_text().splitlines() == ["prediction", *labels]


def test_labels_with_commas_stay_one_cell(iris_csv):
    rows = [[*row[:4], f"Iris, {row[4]}"] for row in iris_rows()]
    write_csv("commas.csv", rows)
    text("train", "commas.csv", "--epochs", 5, "--out", "model")
    text("predict", "model", "commas.csv", "--out", "said.csv", "--proba")
    with Path("said.csv").open(newline="") as file:
        said = list(csv.reader(file))
    assert said[0] == ["prediction", "Iris, setosa", "Iris, versicolor", "Iris, virginica"]
    assert {len(row) for row in said} == {4}


def test_whole_numbers_as_labels_come_back_as_numbers():
    rng = np.random.default_rng(0)
    np.savez("numbers.npz", X=rng.normal(size=(40, 2)), y=np.arange(40) % 2 * 10 - 5)
    text("train", "numbers.npz", "--epochs", 1, "--out", "model")
    assert set(document("predict", "model", "numbers.npz")["predictions"]) <= {-5, 5}
    assert set(text("predict", "model", "numbers.npz").split()) <= {"-5", "5"}


def test_numbers_have_no_more_digits_than_the_network():
    net = Network(2, [Dense(1)], loss="mse")
    (W, b), *_ = net.parameters
    W[...], b[...] = 0, 0.1
    net.save("constant")
    write_csv("two.csv", [[1, 2], [3, 4]])
    assert text("predict", "constant", "two.csv") == "0.1\n0.1\n"
    assert document("predict", "constant", "two.csv")["predictions"] == [0.1, 0.1]


def test_yes_or_no_outputs():
    net = Network(2, [Dense(2, "sigmoid")], loss="binary_cross_entropy")
    (W, b), *_ = net.parameters
    W[...], b[...] = np.eye(2), 0
    net.save("multilabel")
    write_csv("two.csv", [[-1, 2], [3, -4]])
    assert text("predict", "multilabel", "two.csv") == "0,1\n1,0\n"


@pytest.fixture
def pixel_model():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = (rng.integers(0, 100, (200, 6)) + 120 * y[:, None]).astype(np.uint8)
    np.savez("images.npz", X=X, y=y)
    text("train", "images.npz", "--out", "pixels", "--epochs", 5)
    return X


def test_pixels_of_a_csv_file_are_those_of_an_array(pixel_model):
    X = pixel_model
    write_csv("bytes.csv", X.tolist())
    write_csv("fractions.csv", (X / 255).tolist())
    expected = document("predict", "pixels", "images.npz", "--proba")["probabilities"]
    for name in ("bytes.csv", "fractions.csv"):
        said = document("predict", "pixels", name, "--proba")["probabilities"]
        np.testing.assert_allclose(said, expected, atol=1e-6)


@pytest.mark.parametrize("value", [0.5, 256, -1])
def test_what_cannot_be_pixels_is_refused(pixel_model, value):
    write_csv("odd.csv", [[value, 0, 0, 0, 0, 200]])
    result = run("predict", "pixels", "odd.csv")
    assert result.exit_code == 1
    assert "expected pixels" in result.stderr


# --- export ---------------------------------------------------------------------------------------


def test_export(model):
    """The files are those that the network writes."""
    pytest.importorskip("onnx")
    net = Network.load(model)
    for name, write in (("model.onnx", net.to_onnx), ("model.h", net.to_c)):
        for options in ([], ["--pixels"]):
            assert text("export", model, name, *options) == ""
            written = Path(name).read_bytes()
            write(name, pixels=bool(options))
            assert written == Path(name).read_bytes()


def test_export_refuses(model):
    result = run("export", model, "model.pt")
    assert result.exit_code == 2
    assert "ends in .onnx or .h, not '.pt'." in result.stderr
    result = run("export", model, "my-model.h")
    assert result.exit_code != 0
    assert "name: expected a C identifier, got 'my-model'" in result.stderr
    assert not Path("my-model.h").exists()


# --- info, version, help --------------------------------------------------------------------------


def test_info_without_a_model():
    assert document("info")["fastmlp"] == fastmlp.__version__
    assert fastmlp.__version__ in text("info")


def test_info_of_a_model(model):
    result = document("info", model)
    assert result["architecture"]["n_inputs"] == 4
    assert result["parameters"] == 4 * 64 + 64 + 64 * 3 + 3
    assert result["metadata"]["classes"] == ["setosa", "versicolor", "virginica"]
    shown = text("info", model)
    assert "4 -> 64" in shown
    assert "virginica" in shown


def test_version():
    assert text("--version") == f"fastmlp {fastmlp.__version__}\n"


def test_every_command_is_in_the_help():
    shown = text("--help")
    assert all(f"  {command} " in shown for command in COMMANDS)
    assert run().stdout + run().stderr == shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_screen_and_its_examples_are_right(command):
    shown = text(command, "--help")
    assert max(map(len, shown.splitlines())) <= 80
    examples = [line.split() for line in shown.splitlines() if line.startswith("  fastmlp ")]
    assert len(examples) >= 2
    group = typer.main.get_command(app)
    for _, name, *arguments in examples:
        assert name == command
        group.commands[name].make_context(name, arguments)  # raises where one is wrong


# --- Mistakes of the user -------------------------------------------------------------------------

USAGE = [
    ("train nothing", "'nothing' is none of digits, iris, mnist, fashion_mnist, nor a file"),
    ("train --layers 3,x", "'3,x': expected units such as 256,128, or none"),
    ("train --layers 3,0", "expected units"),
    ("train --activation step", "'step' is none of"),
    ("train --optimizer lbfgs", "'lbfgs' is none of sgd, "),
    ("train --backend gpu", "'gpu' is none of auto, compiled, numpy"),
    ("train --dtype float16", "'float16' is none of float32, float64"),
    ("train --epochs 0", "--epochs"),
    ("train --batch-size 0", "--batch-size"),
    ("train --threads 0", "--threads"),
    ("train --seed -1", "--seed"),
    ("train --learning-rate -1", "--learning-rate"),
    ("train --learning-rate inf", "[0, inf)"),
    ("train --momentum 0.9", "is for sgd, not for adam"),
    ("train --optimizer sgd --momentum 2", "momentum: expected a number in [0, 1]"),
    ("train digits --label x", "--label: is for CSV and npz files, not for digits"),
    ("train digits --task regression", "--task: is for CSV and npz files"),
    ("train digits --test-fraction 0.5", "--test-fraction: is for CSV and npz files"),
    ("train iris.csv --test-fraction 1", "--test-fraction"),
    ("train iris.csv --task clustering", "'clustering' is none of"),
    ("evaluate", "MODEL"),
    ("evaluate model.safetensors", "the network learned from a file"),
    ("evaluate model.safetensors nothing", "'nothing' is none of"),
    ("predict model.safetensors", "FILE"),
    ("paint", "No such command 'paint'"),
    ("train --colour red", "No such option"),
]


@pytest.mark.parametrize(("line", "message"), USAGE, ids=[line for line, _ in USAGE])
def test_wrong_usage(model, line, message):
    result = run(*shlex.split(line))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def prepare_mistakes():
    Path("text").write_text("no model")
    Path("cut").write_bytes(Path("model.safetensors").read_bytes()[:-8])
    Path("folder").mkdir()
    os.mkfifo("pipe")
    write_csv("ragged.csv", [["1", "2"], ["3"]])
    write_csv("word.csv", [["1", "2", "a"], ["x", "2", "b"]])
    write_csv("alone.csv", [["1", "2", "a"], ["3", "4", "a"]])
    write_csv("huge.csv", [["1e300", "0", "a"], ["2", "3", "b"]])
    write_csv("other.csv", [["1", "2", "3", "4", "cactus"]])
    np.savez("text.npz", X=np.zeros((3, 2)), y=np.array([["a", "b"]] * 3))
    lying = Network(4, [Dense(3, "softmax")], loss="cross_entropy")
    lying.metadata["classes"] = ["a", "b"]
    lying.save("lying")


FAILURES = [
    ("train missing.csv", "missing.csv: No such file or directory"),
    ("train folder", "folder: Is a directory"),
    ("train ragged.csv", "ragged.csv, line 2: 1 columns, expected 2"),
    ("train word.csv", "'x' is not a finite number"),
    ("train alone.csv", "expected at least 2 classes, every label is 'a'"),
    ("train huge.csv", "expected numbers that float32 can hold, got 1e+300"),
    ("train iris.csv --label colour", "iris.csv has no column 'colour'"),
    ("train iris.csv --task regression", "expected numbers as labels for regression, got 'setosa'"),
    ("train text.npz", "expected one label a row for classes, got 2"),
    ("train text.npz --task regression", "expected numbers as labels for regression, got 'a'"),
    ("train --out nowhere/model", "--out: cannot write nowhere/model: No such file"),
    ("train --out text/model", "--out: cannot write text/model: Not a directory"),
    ("train --out folder", "--out: cannot write folder: not a regular file"),
    ("train --out pipe", "--out: cannot write pipe: not a regular file"),
    ("train --optimizer sgd --learning-rate 1e30", "training diverged in epoch 1"),
    ("train --layers 9000000,9000000", "not enough memory"),
    ("evaluate missing iris", "missing: No such file or directory"),
    ("evaluate text iris", "text: no model file, or a damaged one"),
    ("evaluate cut iris", "cut: no model file, or a damaged one"),
    ("evaluate lying iris", "lying: expected a class for each output in the metadata"),
    ("evaluate model.safetensors digits", "expected 4 columns, got shape (360, 64)"),
    ("evaluate model.safetensors other.csv", "label 'cactus': the model knows setosa, versicolor"),
    ("predict model.safetensors missing.csv", "missing.csv: No such file or directory"),
    ("predict model.safetensors ragged.csv", "ragged.csv, line 2"),
    ("predict model.safetensors alone.csv", "expected 4 columns"),
    (
        "predict model.safetensors iris.csv --out nowhere/x",
        "--out: cannot write nowhere/x: No such file",
    ),
    ("info missing", "missing: No such file or directory"),
    ("info text", "no model file, or a damaged one"),
]


@pytest.mark.parametrize(("line", "message"), FAILURES, ids=[line for line, _ in FAILURES])
def test_failures_are_one_line(model, line, message):
    prepare_mistakes()
    result = run(*shlex.split(line))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_probabilities_of_quantities_are_refused():
    text("train", linear_npz(), "--epochs", 1, "--out", "model")
    result = run("predict", "model", "linear.npz", "--proba")
    assert result.exit_code == 2
    assert "--proba: is for networks that tell classes apart" in result.stderr


@pytest.mark.parametrize("name", ["FASTMLP_BACKEND", "FASTMLP_NUM_THREADS"])
def test_a_wrong_environment_is_reported(monkeypatch, name):
    if name == "FASTMLP_NUM_THREADS" and load_compiled() is None:
        pytest.skip("NumPy has threads of its own and does not ask for their number")
    monkeypatch.setenv(name, "wrong")
    result = run("train")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {name}: expected ")


def test_a_download_that_fails_is_one_line(monkeypatch):
    def load_mnist():
        raise OSError("mnist is missing and could not be downloaded:\n no network")

    monkeypatch.setattr("fastmlp.datasets.load_mnist", load_mnist)
    result = run("train", "mnist")
    assert result.exit_code == 1
    assert result.stderr == "error: mnist is missing and could not be downloaded: no network\n"


@pytest.mark.parametrize("command", ["train digits", "predict model.safetensors iris.csv"])
def test_a_file_that_cannot_be_written_is_found_before_the_work(model, monkeypatch, command):
    worked = []
    monkeypatch.setattr(cli, "Job", lambda *_, **__: worked.append("fit"))
    monkeypatch.setattr(cli, "load_model", lambda *_: worked.append("load"))
    monkeypatch.setattr(cli, "load_named", lambda *_: worked.append("data"))
    assert run(*command.split(), "--out", "nowhere/x").exit_code == 1
    assert worked == []


def test_checking_leaves_nothing_behind_and_keeps_an_old_file():
    Path("results").mkdir()
    Path("results/old").write_text("old")
    assert run("train", "missing.csv", "--out", "results/new").exit_code == 1
    assert run("train", "missing.csv", "--out", "results/old").exit_code == 1
    assert [path.name for path in Path("results").iterdir()] == ["old"]
    assert Path("results/old").read_text() == "old"


@pytest.mark.parametrize("mistake", [ValueError, TypeError, KeyError, AssertionError])
def test_mistakes_of_this_package_keep_their_traceback(monkeypatch, mistake):
    def fit(*_, **__):
        raise mistake("ours")

    monkeypatch.setattr(Job, "fit", fit)
    with pytest.raises(mistake, match="ours"):
        run("train", "iris")


def test_values_that_json_lacks_are_an_error():
    net = Network(2, [Dense(1)], loss="mse")
    net.parameters[0][0][...] = 3e38
    net.save("large")
    write_csv("two.csv", [[1e3, 1e3]])
    result = run("predict", "large", "two.csv", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


# --- Real processes -------------------------------------------------------------------------------


def test_a_process_without_a_terminal_draws_nothing():
    with started("train", "--epochs", 2, "--json") as process:
        out, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, error) == (0, b"")
    assert json.loads(out)["epochs"] == 2


def test_a_traceback_never_reaches_the_user():
    with started("train", "missing.csv") as process:
        out, error = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (1, b"")
    assert error == b"error: missing.csv: No such file or directory\n"


def test_warnings_are_one_line(start_python):
    code = """
        import warnings
        from fastmlp import cli

        cli.app = lambda: warnings.warn("odd")
        cli.main()
    """
    with start_python(code) as process:
        assert process.communicate(timeout=TIMEOUT) == ("", "warning: odd\n")


@pytest.mark.parametrize("colour", [True, False])
def test_the_bar_is_drawn_in_a_terminal(monkeypatch, colour):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    with in_terminal("train", "--epochs", 20) as (process, read_until):
        shown = read_until()
        assert process.wait(TIMEOUT) == 0
    last = shown.split("data ")[0].split("\r")[-2]
    assert "20/20" in last
    for word in ("━", "loss 0.", "accuracy 0.9", "val_accuracy 0.9", "samples/s"):
        assert word in last
    assert ("\x1b[3" in shown) is colour
    assert "Traceback" not in shown


def test_the_bar_leaves_standard_output_alone():
    arguments = ("train", "--epochs", 2, "--json")
    with in_terminal(*arguments, stdout=subprocess.PIPE) as (process, read_until):
        assert "2/2" in read_until()
        assert json.loads(process.stdout.read())["epochs"] == 2
        assert process.wait(TIMEOUT) == 0


def test_ctrl_c_ends_with_130():
    with in_terminal("train", "--epochs", 10**6, "--out", "model") as (process, read_until):
        read_until(b"/1000000")
        process.send_signal(signal.SIGINT)
        shown = read_until()
        assert process.wait(TIMEOUT) == 130
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert os.listdir() == []  # noqa: PTH208


def test_a_reader_that_leaves_early_is_no_error(model):
    np.savez("many.npz", X=np.zeros((50_000, 4)))  # more lines than a pipe holds
    with started("predict", model, "many.npz") as process:
        assert process.stdout.readline().strip() in (b"setosa", b"versicolor", b"virginica")
        process.stdout.close()
        assert process.wait(TIMEOUT) == 1
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
@pytest.mark.parametrize("n", [1, 50_000])
def test_a_full_disk_is_reported(model, n):
    np.savez("many.npz", X=np.zeros((n, 4)))
    with (
        Path("/dev/full").open("wb") as full,
        started("predict", model, "many.npz", stdout=full) as process,
    ):
        error = process.stderr.read()
        assert process.wait(TIMEOUT) == 1
    assert error == b"error: No space left on device\n"


def test_import_fastmlp_leaves_out_what_only_the_command_line_needs(run_python):
    code = "import fastmlp, sys; print(*{'typer', 'rich', 'sklearn', 'pooch'} & {*sys.modules})"
    assert run_python(code).strip() == ""
