"""Experiment folders, from Python and from the command line; `fastmlp runs`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fastmlp import Network, config, report
from fastmlp.backends import load_compiled
from fastmlp.callbacks import Checkpoint
from fastmlp.cli import app
from fastmlp.comparison import sort_key
from fastmlp.experiments import Experiment, find_experiments
from fastmlp.schedules import CosineDecay, WarmUp
from fastmlp.settings import ENDING, SCHEDULES

EVERYTHING = {
    *("settings.json", "environment.json", "history.jsonl", "result.json", "curves.png"),
    *("checkpoint.safetensors", "best.safetensors", "last.safetensors"),
}


@pytest.fixture
def pictures():
    """For tests that draw; in the others a run's curves.png stays empty: it takes 0.9 of a run."""
    pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path, request):
    monkeypatch.chdir(tmp_path)
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(report, "draw_curves", lambda path, history: path.touch())
    monkeypatch.setenv("COLUMNS", "80")
    if load_compiled() is None:
        monkeypatch.setenv("FASTMLP_BACKEND", "numpy")
    yield
    config.set_num_threads(None)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def text(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def document(*arguments):
    return json.loads(text(*arguments, "--json"), parse_constant=pytest.fail)


def failure(*arguments, code=1):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    return result.stderr


# --- Folders --------------------------------------------------------------------------------------


def test_a_folder_is_made_and_opened_again(tmp_path):
    made = Experiment.create(tmp_path / "deep" / "folder", {"epochs": 3, "layers": [4]})
    opened = Experiment.open(made.folder)
    assert opened == made
    assert opened.result is None
    assert opened.history.records == []
    assert "numpy" in json.loads(made.path("environment.json").read_text())
    assert find_experiments(tmp_path) == [made]


def test_nothing_is_overwritten_without_being_asked(tmp_path):
    folder = tmp_path / "a"
    Experiment.create(folder, {"epochs": 3}).write("result.json", {})
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="a holds an experiment already"):
        Experiment.create(folder, {"epochs": 4})
    assert Experiment.open(folder).settings == {"epochs": 3}
    again = Experiment.create(folder, {"epochs": 4}, overwrite=True)
    assert again.result is None
    assert (folder / "notes.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other is there, not empty, and holds no experi"):
            Experiment.create(other, {}, overwrite=overwrite)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_a_last_line_that_is_cut_does_not_count(tmp_path):
    experiment = Experiment.create(tmp_path, {})
    lines = '{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": "nan"}\n{"epoch": 3, "lo'
    experiment.path("history.jsonl").write_text(lines)
    assert experiment.history["epoch"] == [1, 2]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x80", "[" * 100_000])
def test_damaged_settings_are_refused(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings.json: "):
        Experiment.open(tmp_path)


# --- train --run-dir ------------------------------------------------------------------------------


def test_everything_is_in_the_folder(pictures):
    result = document(
        "train", "iris", "--epochs", 4, "--run-dir", "a", "--validation-fraction", 0.2
    )
    assert {path.name for path in Path("a").iterdir()} == EVERYTHING
    experiment = Experiment.open("a")
    assert experiment.history.to_json() == json.dumps(result["history"])
    assert experiment.result == {"test": result["test"], "stop_reason": "epochs", "epochs": 4}
    settings = experiment.settings
    assert (settings["layers"], settings["learning_rate"], settings["epochs"]) == ([16], 0.02, 4)
    assert result["run_dir"] == "a"
    assert Path("a/curves.png").read_bytes().startswith(b"\x89PNG")


def test_best_and_last_model_are_ready_to_use():
    """Standardisation is folded in; the best is that of the least validation loss."""
    options = ("--validation-fraction", 0.3, "--learning-rate", 0.3, "--schedule", "constant")
    result = document("train", "iris", "--epochs", 30, "--run-dir", "a", *options)
    losses = [record["val_loss"] for record in result["history"]]
    assert min(losses) < losses[-1]
    assert document("evaluate", "a/last.safetensors")["loss"] == result["test"]["loss"]
    best = document("evaluate", "a/best.safetensors")
    assert best["loss"] != result["test"]["loss"]
    stopped = document(
        "train", "iris", "--epochs", 30, "--run-dir", "b", *options, "--patience", 30
    )
    assert stopped["history"][-1]["val_loss"] == losses[-1]
    assert stopped["test"]["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert document("evaluate", "b/last.safetensors")["loss"] == result["test"]["loss"]


def test_a_folder_is_not_overwritten():
    text("train", "iris", "--epochs", 2, "--run-dir", "a")
    before = {path: path.read_bytes() for path in Path("a").iterdir()}
    said = failure("train", "iris", "--epochs", 3, "--run-dir", "a")
    assert said == (
        "error: --run-dir: a holds an experiment already; go on with --resume, or --overwrite it\n"
    )
    assert {path: path.read_bytes() for path in Path("a").iterdir()} == before
    text("train", "iris", "--epochs", 3, "--run-dir", "a", "--overwrite")
    assert Experiment.open("a").history.last_epoch == 3
    Path("b").mkdir()
    Path("b/thesis").touch()
    assert "holds no experiment" in failure("train", "iris", "--run-dir", "b", "--overwrite")
    Path("file").touch()
    assert "file: File exists" in failure("train", "iris", "--run-dir", "file")
    assert "--overwrite" in failure("train", "iris", "--overwrite", code=2)


def test_mistakes_leave_no_folder():
    failure("train", "missing.csv", "--run-dir", "a")
    assert list(Path().iterdir()) == []


# --- train --resume -------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def interrupted(monkeypatch, after, *arguments):
    """A training that dies right after the checkpoint of an epoch; None: right before the first."""
    original = Checkpoint._save

    def save(self, network, epoch):
        if after is None:
            raise Killed
        original(self, network, epoch)
        if epoch == after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "_save", save)
        with pytest.raises(Killed):
            run(*arguments)


def without_times(path):
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    times = ("seconds", "samples_per_second")
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


def assert_same_runs(one, other):
    assert without_times(f"{one}/history.jsonl") == without_times(f"{other}/history.jsonl")
    for name in ("best.safetensors", "last.safetensors", "checkpoint.safetensors"):
        a, b = (Network.load(f"{folder}/{name}") for folder in (one, other))
        assert a.arena.flat.tobytes() == b.arena.flat.tobytes()
        assert a.rng.bit_generator.state == b.rng.bit_generator.state or "check" not in name
        assert a.metadata == b.metadata
    assert Experiment.open(one).result == Experiment.open(other).result


@pytest.mark.parametrize("after", [None, 1, 3, 5])
@pytest.mark.parametrize(
    "options",
    [
        "--epochs 6",
        "--epochs 6 --schedule plateau --optimizer sgd --momentum 0.9 --learning-rate 0.05",
        "--epochs 6 --schedule cosine --warmup 1.5 --patience 2 --learning-rate 0.2",
        "--epochs 6 --learning-rate auto --validation-fraction 0.3 --dtype float64",
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(monkeypatch, options, after):
    options = options.split()
    ended = document("train", "iris", *options, "--run-dir", "whole")
    if after is not None and after >= len(ended["history"]):
        pytest.skip("early stopping ends it before")
    interrupted(monkeypatch, after, "train", "iris", *options, "--run-dir", "cut")
    assert Experiment.open("cut").result is None
    result = document("train", "--resume", "cut")
    assert result["test"] == ended["test"]
    assert result["optimizer"] == ended["optimizer"]
    assert_same_runs("whole", "cut")
    assert Experiment.open("whole").settings == Experiment.open("cut").settings


def test_leftovers_of_a_killed_write_are_removed(monkeypatch):
    interrupted(monkeypatch, 1, "train", "iris", "--epochs", 3, "--run-dir", "a")
    leftover = Path("a/.checkpoint.safetensors.abc.tmp")
    leftover.write_bytes(b"half")
    text("train", "--resume", "a")
    assert not leftover.exists()


def test_a_finished_run_goes_on_where_its_schedule_can():
    options = ("--run-dir", "a", "--schedule", "constant")
    text("train", "iris", "--epochs", 3, *options)
    said = failure("train", "--resume", "a")
    assert said == "error: a: finished, after 3 of 3 epochs; --epochs N for more\n"
    assert "finished" in failure("train", "--resume", "a", "--epochs", 2)
    longer = document("train", "--resume", "a", "--epochs", 5)
    assert len(longer["history"]) == longer["epochs"] == 5
    text("train", "iris", "--epochs", 5, "--run-dir", "b", "--schedule", "constant")
    assert_same_runs("a", "b")
    assert Experiment.open("a").settings == Experiment.open("b").settings


@pytest.mark.parametrize("schedule", ENDING)
def test_a_rate_that_has_come_to_its_end_cannot_go_on(schedule):
    text("train", "iris", "--epochs", 2, "--run-dir", "a", "--schedule", schedule)
    said = failure("train", "--resume", "a", "--epochs", 9)
    assert "--epochs: the learning rate was to end after 2 epochs; only a training with" in said
    assert Experiment.open("a").settings["epochs"] == 2


@pytest.mark.parametrize(
    "option", ["iris", "--layers 3", "--optimizer sgd", "--run-dir b", "--seed 0", "--overwrite"]
)
def test_settings_cannot_be_changed_on_the_way(option):
    text("train", "iris", "--epochs", 2, "--run-dir", "a")
    said = failure("train", "--resume", "a", *option.split(), code=2)
    assert "is in the folder of --resume already" in said


def test_other_data_is_noticed(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3))
    np.savez("data.npz", X=X, y=X[:, 0])
    interrupted(monkeypatch, 1, "train", "data.npz", "--epochs", 3, "--run-dir", "a")
    np.savez("data.npz", X=X, y=X[:, 1])
    assert "data.npz: the data is not what it was" in failure("train", "--resume", "a")
    np.savez("data.npz", X=X, y=X[:, 0])
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    text("train", "--resume", "../a")


def test_folders_that_cannot_be_resumed():
    assert "settings.json: No such file" in failure("train", "--resume", "missing")
    Path("a").mkdir()
    Path("a/settings.json").write_text("{")
    assert "settings.json: no JSON, or damaged" in failure("train", "--resume", "a")
    Path("a/settings.json").write_text('{"data": "iris"}')
    assert "settings.json lacks 'label'" in failure("train", "--resume", "a")
    text("train", "iris", "--epochs", 2, "--run-dir", "b", "--schedule", "constant")
    path = Path("b/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    said = failure("train", "--resume", "b", "--epochs", 3)
    assert "checkpoint.safetensors: no model file, or a damaged one" in said


# --- train: schedules, early stopping, budget, plots ----------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains(schedule):
    options = ("--schedule", schedule, "--learning-rate", 0.05, "--epochs", 30)
    result = document("train", "iris", *options)
    rates = [record["lr"] for record in result["history"]]
    assert max(rates) <= 0.05
    assert result["schedule"] == schedule
    assert result["test"]["accuracy"] > 0.8
    if schedule == "constant":
        assert set(rates) == {0.05}
    if schedule in ENDING:
        assert rates[-1] < 0.05 / 100
    assert f"0.05{'' if schedule == 'constant' else ' '}" in text("train", "iris", *options)


def test_the_rates_of_a_warm_up():
    options = ("--schedule", "cosine", "--warmup", 1.5, "--learning-rate", 0.05, "--epochs", 4)
    history = document("train", "iris", *options)["history"]
    schedule = WarmUp(CosineDecay(0.05, 20), 12)  # 120 samples in batches of 16: 8 steps an epoch
    assert [record["lr"] for record in history] == [schedule(8 * n - 1) for n in (1, 2, 3, 4)]


def test_a_learning_rate_is_found():
    result = document("train", "iris", "--learning-rate", "auto", "--epochs", 100)
    assert 1e-3 < result["optimizer"]["lr"] < 1
    assert result["test"]["accuracy"] > 0.8
    assert "expected a number in" in failure("train", "--learning-rate", "much", code=2)


def test_early_stopping():
    options = ("--learning-rate", 0.3, "--schedule", "constant", "--epochs", 300, "--patience", 3)
    result = document("train", "iris", *options)
    assert result["stop_reason"] == "EarlyStopping"
    assert result["n_train"] == 108
    losses = [record["val_loss"] for record in result["history"]]
    assert len(losses) == np.argmin(losses) + 4 < 300
    assert "epochs of 300 (no improvement any more)" in text("train", "iris", *options)
    whole = ("--validation-fraction", 0)
    assert document("train", "iris", *options, *whole)["n_train"] == 120


def test_time_budget():
    result = document("train", "iris", "--epochs", 100_000, "--time-budget", 0.05)
    assert result["stop_reason"] == "TimeBudget"
    assert 1 <= len(result["history"]) < 100_000


def test_validation_parts_keep_the_proportions():
    result = document("train", "iris", "--epochs", 1, "--validation-fraction", 0.5)
    assert (result["n_train"], result["n_test"]) == (60, 30)
    said = failure("train", "iris", "--epochs", 1, "--validation-fraction", 0.001)
    assert "validation_fraction: expected a larger share of 120 samples" in said


@pytest.mark.parametrize(
    ("data", "drawn"),
    [
        ("digits", {"curves", "weights", "confusion", "mistakes", "probabilities"}),
        ("iris", {"curves", "confusion"}),
        ("plane.npz", {"curves", "confusion", "boundary"}),
        ("quantity.npz", {"curves"}),
    ],
)
def test_pictures(pictures, data, drawn):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    np.savez("plane.npz", X=X, y=(X[:, 0] > 0).astype(int))
    np.savez("quantity.npz", X=rng.standard_normal((60, 3)), y=X[:, 0])
    options = ("--epochs", 2, "--learning-rate", "auto", "--plot", "deep/pictures")
    said = text("train", data, *options)
    files = list(Path("deep/pictures").iterdir())
    assert {path.name for path in files} == {f"{name}.png" for name in {*drawn, "finder"}}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert "pictures  deep/pictures: curves.png, finder.png" in said


def test_tensorboard():
    pytest.importorskip("tensorboard")
    text("train", "iris", "--epochs", 2, "--tensorboard", "events")
    assert [path.name.startswith("events.out") for path in Path("events").iterdir()] == [True]


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def three_runs(monkeypatch):
    text("train", "iris", "--epochs", 3, "--run-dir", "runs/a")
    text("train", "iris", "--epochs", 30, "--run-dir", "runs/deep/b", "--layers", "8,4")
    cut = ("train", "iris", "--epochs", 5, "--run-dir", "runs/[c]", "--optimizer", "sgd")
    interrupted(monkeypatch, 2, *cut)


@pytest.mark.usefixtures("three_runs")
def test_runs_are_compared():
    shown = text("runs", "runs")
    assert max(map(len, shown.splitlines())) <= 80
    head, *rows = shown.split("\n\n")[0].splitlines()
    assert head.split()[:3] == ["run", "epochs", "loss"]
    assert [row.split()[0] for row in rows] == ["[c]", "a", "deep/b"]
    assert rows[0].split()[1:4] == ["2", "of", "5"]
    settings = " ".join(shown.split("\n\n")[1].split())
    assert "deep/b: layers 8-4, optimizer adam, learning rate 0.02, epochs 30" in settings
    assert "[c]: layers 16, optimizer sgd, learning rate 0.01, epochs 5" in settings
    assert "all: data iris, activation relu, dtype float32, schedule linear" in settings
    assert "checksum" not in settings
    alone = text("runs", "runs/a")
    assert "all:" not in alone
    assert "a: data iris, layers 16" in alone


@pytest.mark.usefixtures("three_runs")
def test_runs_as_json():
    result = document("runs", "runs")["runs"]
    assert [run["run"] for run in result] == ["[c]", "a", "deep/b"]
    assert [(run["finished"], run["epochs_done"]) for run in result] == [
        *((False, 2), (True, 3), (True, 30)),
    ]
    history = Experiment.open("runs/deep/b").history
    assert result[2]["scores"]["val_loss"] == min(history["val_loss"])
    assert result[2]["scores"]["val_accuracy"] == max(history["val_accuracy"])
    test = Experiment.open("runs/deep/b").result["test"]
    assert result[2]["scores"]["test_accuracy"] == test["accuracy"]
    assert "test_loss" not in result[0]["scores"]


@pytest.mark.usefixtures("three_runs")
@pytest.mark.parametrize(
    ("name", "first"), [("loss", "deep/b"), ("val_accuracy", "deep/b"), ("learning_rate", "[c]")]
)
def test_runs_are_sorted(name, first):
    assert document("runs", "runs", "--sort", name)["runs"][0]["run"] == first


def test_runs_without_a_score_come_last():
    runs = [
        {"run": name, "settings": {}, "scores": scores}
        for name, scores in (("a", {}), ("b", {"val_accuracy": 0.5}), ("c", {"val_accuracy": 0.7}))
    ]
    assert [r["run"] for r in sorted(runs, key=sort_key("val_accuracy"))] == ["c", "b", "a"]
    assert [r["run"] for r in sorted(runs, key=sort_key("patience"))] == ["a", "b", "c"]


@pytest.mark.usefixtures("three_runs")
def test_runs_are_drawn(pictures):
    for i, options in enumerate([[], ["--quantity", "accuracy"]]):
        text("runs", "runs", "--plot", f"{i}.png", *options)
        assert Path(f"{i}.png").read_bytes().startswith(b"\x89PNG")
    assert Path("0.png").read_bytes() != Path("1.png").read_bytes()
    said = failure("runs", "runs", "--plot", "2.png", "--quantity", "f1")
    assert "expected one that a run recorded, got 'f1'" in said


def test_runs_that_are_not_there():
    assert "error: nowhere: no such folder" in failure("runs", "nowhere")
    Path("empty").mkdir()
    assert "empty: no experiments" in failure("runs", "empty")
    text("train", "iris", "--epochs", 1, "--run-dir", "empty/a")
    assert "--sort: 'luck' is none of" in failure("runs", "empty", "--sort", "luck")
    shutil.copytree("empty/a", "empty/b")
    Path("empty/b/settings.json").write_text("{")
    assert "no JSON, or damaged" in failure("runs", "empty")


@pytest.mark.parametrize(
    ("options", "layers", "optimizer"),
    [
        ("--dropout 0.2", "Dense Dropout Dense", "Adam"),
        ("--normalization layer", "Dense LayerNorm Dense", "Adam"),
        ("--normalization batch --dropout 0.1", "Dense BatchNorm Dropout Dense", "Adam"),
        ("--l2 0.001 --weight-decay 0.01 --clip-norm 1", "Dense Dense", "Adam"),
        ("--label-smoothing 0.1 --average 0.9", "Dense Dense", "Averaged"),
    ],
)
def test_regularisation(options, layers, optimizer, monkeypatch):
    """Each changes what is learned, is kept in the folder, and goes on bit for bit."""
    command = ["train", "iris", "--epochs", 4, "--schedule", "constant"]
    text(*command, "--run-dir", "plain")
    text(*command, *options.split(), "--run-dir", "whole")
    interrupted(monkeypatch, 2, *command, *options.split(), "--run-dir", "cut")
    text("train", "--resume", "cut")
    plain, whole, cut = (
        Network.load(f"{folder}/checkpoint.safetensors") for folder in ("plain", "whole", "cut")
    )
    assert [type(layer).__name__ for layer in whole.architecture.layers] == layers.split()
    assert type(whole.optimizer_state.optimizer).__name__ == optimizer
    assert whole.history["loss"] != plain.history["loss"]
    np.testing.assert_array_equal(whole.arena.flat, cut.arena.flat)


def test_label_smoothing_is_for_classes():
    np.savez("numbers.npz", X=np.arange(30.0).reshape(10, 3), y=np.arange(10.0))
    said = failure("train", "numbers.npz", "--label-smoothing", 0.1)
    assert "--label-smoothing is for classes" in said
