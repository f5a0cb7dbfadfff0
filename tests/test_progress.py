"""What a fit shows while it runs."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest

from fastmlp import Dense, Network
from fastmlp.callbacks import LambdaCallback
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


def test_metrics_are_shown_last():
    record = {**RECORD, "val_f1": 0.125}
    assert format_record(record) == EVERYTHING.replace(RATE, f"val_f1 0.1250  {RATE}")


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


def test_epochs_are_counted_on(capsys):
    net = Network(2, [Dense(2, "softmax")], loss="cross_entropy", seed=0, backend="numpy")
    for _ in range(2):
        net.fit(np.zeros((4, 2)), [0, 1, 0, 1], epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2", "epoch 3/4", "epoch 4/4"]


def test_one_line_without_a_terminal(capsys):
    history = fit(verbose=1)
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("12/12 epochs in ")
    assert line.endswith(f" s  {format_record(history.records[-1])}")
    assert fit(verbose=0).stop_reason == "epochs"
    assert capsys.readouterr() == ("", "")


def failing(error):
    def fail(network, record):
        raise error

    return LambdaCallback(on_epoch_end=fail)


def test_the_line_comes_where_the_fit_fails_too(capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(verbose=1, callbacks=[failing(KeyboardInterrupt())])
    assert capsys.readouterr().err.startswith("0/12 epochs in ")


def test_the_bar_of_a_terminal(monkeypatch, capsys):
    from rich.progress import Progress

    stopped = []
    original = Progress.stop
    monkeypatch.setattr(Progress, "stop", lambda self: stopped.append(self) or original(self))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    fit(verbose=1)
    assert "12/12" in capsys.readouterr().err
    assert len(stopped) == 1
    with pytest.raises(KeyboardInterrupt):
        fit(verbose=1, callbacks=[failing(KeyboardInterrupt())])
    assert len(stopped) == 2


class ZMQInteractiveShell:
    """By this name IPython's shell in a notebook is known."""


def test_the_bar_of_a_notebook(monkeypatch, capsys):
    drawn = []

    class Handle:
        def update(self, html):
            drawn.append(html)

    def display(html, display_id):
        drawn.append(html)
        return Handle()

    module = types.SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(
        sys.modules, "IPython", types.SimpleNamespace(get_ipython=ZMQInteractiveShell)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    history = fit(verbose=1)
    assert drawn[0].startswith('<progress max="12" value="0"></progress>')
    assert drawn[-1].startswith('<progress max="12" value="12"></progress> <code>12/12 ')
    assert format_record(history.records[-1]) in drawn[-1]
    assert len(drawn) <= 13
    assert capsys.readouterr() == ("", "")
    with pytest.raises(KeyboardInterrupt):
        fit(verbose=1, callbacks=[failing(KeyboardInterrupt())])
    assert 'value="0"' in drawn[-1]


NOTEBOOK = """
import numpy as np
from fastmlp import Dense, Network
net = Network(2, [Dense(2, "softmax")], loss="cross_entropy", seed=0)
history = net.fit(np.zeros((10, 2)), np.arange(10) % 2, epochs=12, verbose=1)
"""


def test_a_real_notebook():
    """Without a warning of missing widgets."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the messaging below
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert '<progress max="12" value="12">' in output["data"]["text/html"]
