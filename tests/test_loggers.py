"""Logs of a fit: what is in them, after every epoch and over several fits."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastmlp import Dense, History, Network
from fastmlp.callbacks import LambdaCallback
from fastmlp.loggers import CSVLogger, JSONLinesLogger, TensorBoard

X, Y = np.ones((4, 2)), np.ones(4)


@pytest.fixture
def net():
    return Network(2, [Dense(1)], loss="mse", seed=0, backend="numpy")


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows]


def lines_of(path):
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return History.from_records([json.loads(line) for line in lines]).records


BOTH = pytest.mark.parametrize(
    ("kind", "read"), [(CSVLogger, rows_of), (JSONLinesLogger, lines_of)]
)


@BOTH
def test_every_epoch_is_there_when_it_ends(net, tmp_path, kind, read):
    path = tmp_path / "log"
    seen = []
    look = LambdaCallback(on_epoch_end=lambda network, record: seen.append(read(path)))
    look.order = 2
    net.fit(X, Y, epochs=3, callbacks=[kind(path), look])
    assert [len(rows) for rows in seen] == [1, 2, 3]
    assert seen[-1] == net.history.records


@BOTH
def test_it_goes_on_with_later_fits_and_new_quantities(net, tmp_path, kind, read):
    """Without rows of epochs that the network does not have, say after the last checkpoint."""
    path = str(tmp_path / "log")
    Path(path).write_text("of another run\n")
    net.fit(X, Y, epochs=1)
    net.fit(X, Y, epochs=2, callbacks=[kind(path)])
    with Path(path).open("a") as file:
        file.write("of an epoch after the last checkpoint")
    net.fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[kind(path)])
    assert read(path) == net.history.records
    assert len(net.history) == 5
    if kind is CSVLogger:
        with Path(path).open() as file:
            lines = file.read().splitlines()
        assert lines[0].split(",") == net.history.names
        assert all(line.count(",") == lines[0].count(",") for line in lines)


@BOTH
def test_numbers_that_are_not_finite(net, tmp_path, kind, read):
    path = tmp_path / "log"
    add = LambdaCallback(on_epoch_end=lambda network, record: record.update(a=np.nan, b=np.inf))
    net.fit(X, Y, epochs=2, callbacks=[add, kind(path)])
    (first, second) = read(path)
    assert np.isnan(first["a"])
    assert second["b"] == np.inf


@BOTH
def test_where_it_cannot_be_written(net, tmp_path, kind, read, state_of):
    before = net.arena.flat.tobytes()
    with pytest.raises(FileNotFoundError, match="missing"):
        net.fit(X, Y, callbacks=[kind(tmp_path / "missing" / "log")])
    assert net.arena.flat.tobytes() == before


def test_tensorboard(net, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 1):
        net.fit(X, Y, epochs=epochs, callbacks=[TensorBoard(tmp_path / "events")])
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "seconds", "samples_per_second"}
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3]
    np.testing.assert_allclose([event.value for event in losses], net.history["loss"], rtol=1e-6)


def test_tensorboard_needs_its_package(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="TensorBoard needs the package tensorboard: pip install"):
        TensorBoard(tmp_path)
