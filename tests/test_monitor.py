"""What counts as better."""

from __future__ import annotations

import numpy as np
import pytest

from fastmlp.monitor import Monitor


def test_the_loss_of_the_validation_is_watched_where_there_is_one():
    assert Monitor().value({"loss": 1.0}) == 1.0
    assert Monitor().value({"loss": 1.0, "val_loss": 2.0}) == 2.0
    assert Monitor("loss").value({"loss": 1.0, "val_loss": 2.0}) == 1.0
    with pytest.raises(ValueError, match="monitor: 'val_f1' was not recorded; recorded: epoch, lo"):
        Monitor("val_f1").value({"epoch": 1, "loss": 1.0})


@pytest.mark.parametrize("name", [None, "loss", "val_loss", "gradient_norm", "seconds"])
def test_less_is_better(name):
    assert Monitor(name).better(1.0, 2.0)
    assert not Monitor(name).better(2.0, 1.0)
    assert Monitor(name, mode="max").better(2.0, 1.0)


@pytest.mark.parametrize("name", ["accuracy", "val_accuracy", "val_f1_macro", "val_neg_log_loss"])
def test_more_is_better(name):
    assert Monitor(name).better(2.0, 1.0)
    assert not Monitor(name).better(1.0, 2.0)
    assert Monitor(name, mode="min").better(1.0, 2.0)


def test_small_changes_and_nan_are_no_improvement():
    watch = Monitor(min_delta=0.5)
    assert watch.better(1.0, None)
    assert not watch.better(0.5, 1.0)
    assert watch.better(0.4, 1.0)
    assert not watch.better(np.nan, None)
    assert not watch.better(np.nan, 1.0)
    assert not watch.better(1.0, np.nan)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": 3}, TypeError, "monitor: expected a name or None, got int"),
        ({"mode": "least"}, ValueError, "mode: expected 'auto', 'min' or 'max', got 'least'"),
        ({"min_delta": -1}, ValueError, r"min_delta: expected a number in \[0, inf\), got -1"),
        ({"min_delta": np.nan}, ValueError, "min_delta: expected a number"),
    ],
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Monitor(**settings)
