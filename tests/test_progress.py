"""What a fit shows while it runs."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp import Dense, Network
from fastmlp.progress import format_record

RECORD = {
    "epoch": 3,
    "loss": 0.12345,
    "accuracy": 0.5,
    "val_loss": 0.25,
    "val_accuracy": 0.75,
    "lr": 0.001,
    "seconds": 2.0,
    "samples_per_second": 1_234_567.8,
}
RATE = "1,234,568 samples/s"
EVERYTHING = f"loss 0.1235  accuracy 0.5000  val_accuracy 0.7500  val_loss 0.2500  {RATE}"


def test_a_record_in_one_line():
    assert format_record(RECORD) == EVERYTHING
    regression = {"loss": 1.5, "val_loss": 2.0, "samples_per_second": 10.0}
    assert format_record(regression) == "loss 1.5000  val_loss 2.0000         10 samples/s"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (len(EVERYTHING), EVERYTHING),
        (len(EVERYTHING) - 1, f"loss 0.1235  accuracy 0.5000  val_accuracy 0.7500  {RATE}"),
        (69, f"loss 0.1235  accuracy 0.5000  {RATE}"),
        (40, f"loss 0.1235  {RATE}"),
        (0, f"loss 0.1235  {RATE}"),
    ],
)
def test_a_narrow_line_keeps_what_tells_most(width, shown):
    assert format_record(RECORD, width) == shown


def fit(**settings):
    net = Network(2, [Dense(2, "softmax")], loss="cross_entropy", seed=0, backend="numpy")
    X, y = np.zeros((10, 2), dtype=np.float32), np.arange(10) % 2
    return net.fit(X, y, epochs=12, **settings)


def test_a_line_an_epoch(capsys):
    history = fit(verbose=2)
    out, error = capsys.readouterr()
    lines = out.splitlines()
    assert [line[:14] for line in lines] == [f"epoch {n:>2}/12  lo"[:14] for n in range(1, 13)]
    assert lines[-1].endswith(format_record(history.records[-1]))
    assert error == ""


@pytest.mark.parametrize("verbose", [0, 1])
def test_nothing_is_drawn_without_a_terminal(capsys, monkeypatch, verbose):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # they make rich take anything for a terminal
        monkeypatch.delenv(name, raising=False)
    fit(verbose=verbose)
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_put_away_when_the_fit_fails(monkeypatch):
    from rich.progress import Progress

    stopped = []
    original = Progress.stop
    monkeypatch.setattr(Progress, "stop", lambda self: stopped.append(self) or original(self))

    class Failing:
        def on_fit_begin(self, network, **_):
            pass

        def on_epoch_end(self, network, record):
            raise KeyboardInterrupt

        def on_fit_end(self, network, history):
            pass

    with pytest.raises(KeyboardInterrupt):
        fit(verbose=1, callbacks=[Failing()])
    assert len(stopped) == 1
