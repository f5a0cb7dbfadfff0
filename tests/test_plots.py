"""Pictures: what is drawn, on which axes; that nothing warns. How they look, eyes have to say."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fastmlp import Dense, Dropout, History, LayerNorm, Network

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from fastmlp import plots  # noqa: E402
from fastmlp.lr_finder import LearningRateSearch  # noqa: E402

HISTORY = History(
    {"epoch": n, "loss": 1 / n, "val_loss": abs(n - 3) + 0.5, "accuracy": n / 5, "lr": 0.1}
    for n in range(1, 6)
)
P = np.array([[0.9, 0.1, 0], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0, 0.01, 0.99]])
IMAGES = np.arange(4 * 9).reshape(4, 9)


def network(n_inputs, n_outputs, output):
    loss = "cross_entropy" if output == "softmax" else "binary_cross_entropy"
    layers = [Dense(6, "tanh"), Dense(n_outputs, output)]
    return Network(n_inputs, layers, loss=loss, seed=0, backend="numpy")


@pytest.fixture(params=["new figure", "given axes"])
def ax(request):
    import matplotlib.pyplot as plt

    yield plt.figure().add_subplot() if request.param == "given axes" else None
    plt.close("all")


def drawn(result, ax):
    """`result` after a drawing without warnings; it is `ax` where that was given."""
    assert ax is None or result is ax
    result.figure.canvas.draw()
    return result


def texts(ax):
    return [text.get_text() for text in ax.texts]


def lines(ax):
    return {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}


def test_learning_curves(ax):
    result = drawn(plots.learning_curves(HISTORY, ax=ax), ax)
    curves = lines(result)
    assert curves["training"] == [[n, 1 / n] for n in range(1, 6)]
    assert curves["validation"] == [[n, abs(n - 3) + 0.5] for n in range(1, 6)]
    assert curves["best: 0.5 in epoch 3"] == [[3, 0.5]]
    assert (result.get_xlabel(), result.get_ylabel()) == ("epoch", "loss")


def test_learning_curves_of_one_side(ax):
    assert set(lines(drawn(plots.learning_curves(HISTORY, "accuracy", ax), ax))) == {"training"}


def test_scores_are_best_where_they_are_most():
    history = History({"epoch": n, "val_f1": v} for n, v in ((1, 0.5), (2, np.nan), (3, 0.75)))
    result = drawn(plots.learning_curves(history, "f1"), None)
    assert lines(result)["best: 0.75 in epoch 3"] == [[3, 0.75]]
    assert "training" not in lines(result)
    with pytest.raises(KeyError, match="'val_loss' was not recorded"):
        plots.learning_curves(history, "val_loss")


def test_several_runs(ax):
    runs = {f"run {n}": HISTORY for n in range(30)} | {"without": History()}
    result = drawn(plots.compare_runs(runs, ax=ax), ax)
    assert set(lines(result)) == {f"run {n}" for n in range(30)}
    looks = {(x.get_color(), x.get_linestyle(), x.get_marker()) for x in result.get_lines()[:28]}
    assert len(looks) == 28
    with pytest.raises(ValueError, match="quantity: expected one that a run recorded, got 'f1'"):
        plots.compare_runs(runs, "f1")


@pytest.mark.parametrize("losses", [[3, 2, 1, 5], [1, 1, 1, 1], [1, 2, 3, 4], [-1, -2, -4, 0]])
def test_learning_rate_search(ax, losses):
    search = LearningRateSearch(np.geomspace(1e-3, 1, 4), np.array(losses, dtype=float))
    result = drawn(plots.learning_rate_search(search, ax), ax)
    assert f"suggested: {search.suggestion:.2g}" in lines(result)
    assert result.get_xscale() == "log"


def test_confusion_matrix(ax):
    result = drawn(plots.confusion_matrix([0, 1, 1, 1], [0, 1, 0, 1], ["no", "yes"], ax), ax)
    assert texts(result) == ["1", "1", "2"]
    np.testing.assert_allclose(result.images[0].get_array(), [[1, 0], [1 / 3, 2 / 3]])
    assert [label.get_text() for label in result.get_yticklabels()] == ["no", "yes"]
    assert result.get_title() == "75.00% of 4 right"


def test_confusion_matrix_of_many_classes(ax):
    y = np.arange(99)
    assert texts(drawn(plots.confusion_matrix(y, y, ax=ax), ax)) == []


def test_class_probabilities(ax):
    result = drawn(plots.class_probabilities(IMAGES, P, [0, 1, 1, 2], "abc", ax), ax)
    pictures, bars = result.child_axes[::2], result.child_axes[1::2]
    assert [np.asarray(a.images[0].get_array()).tolist() for a in pictures] == [
        image.reshape(3, 3).tolist() for image in IMAGES
    ]
    np.testing.assert_allclose([[bar.get_width() for bar in a.patches] for a in bars], P)
    assert [[bool(bar.get_hatch()) for bar in a.patches].index(True) for a in bars] == [0, 1, 1, 2]
    assert texts(bars[0]) == ["90%", "10%"]
    drawn(plots.class_probabilities(IMAGES.reshape(4, 3, 3), P), None)
    drawn(plots.class_probabilities(np.zeros((4, 3, 3, 3)), P), None)


@pytest.mark.parametrize(("n_units", "expected"), [(64, 6), (4, 4)])
def test_first_layer_weights(ax, n_units, expected):
    net = network(12, 3, "softmax")
    W = net.parameters[0][0]
    W[:, [1, 3]] *= 1e-3
    result = drawn(plots.first_layer_weights(net, (3, 4), n_units, ax), ax)
    sheet = np.ma.filled(result.images[0].get_array(), np.nan)
    assert np.isfinite(sheet).sum() == 12 * expected
    first = W[:, 0].reshape(3, 4)
    np.testing.assert_array_equal(sheet[1:4, 1:5], first)
    assert f"{expected} of 6" in result.get_title() or expected == 6


def test_first_layer_weights_behind_other_layers(ax):
    layers = [Dropout(0.1), LayerNorm(), Dense(6, "tanh"), Dense(3, "softmax")]
    net = Network(9, layers, loss="cross_entropy", seed=0, backend="numpy")
    result = drawn(plots.first_layer_weights(net, ax=ax), ax)
    sheet = np.ma.filled(result.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(sheet[1:4, 1:4], net.parameters[2][0][:, 0].reshape(3, 3))


def test_worst_mistakes(ax):
    y = np.array([0, 2, 1, 0])
    result = drawn(plots.worst_mistakes(IMAGES, y, P, "abc", ax=ax), ax)
    assert [cell.get_title() for cell in result.child_axes] == [
        *("a, not c\n99.00% sure", "b, not a\n60.00% sure", "c, not b\n50.00% sure"),
    ]
    assert result.get_title() == "Worst of 3 mistakes in 4"
    assert len(plots.worst_mistakes(IMAGES, y, P, n=2).child_axes) == 2


def test_no_mistakes(ax):
    result = drawn(plots.worst_mistakes(IMAGES, P.argmax(axis=1), P, ax=ax), ax)
    assert result.get_title() == "Worst of 0 mistakes in 4"
    assert result.child_axes == []


@pytest.mark.parametrize(("n_outputs", "output"), [(3, "softmax"), (1, "sigmoid")])
def test_decision_boundary(ax, n_outputs, output):
    net = network(2, n_outputs, output)
    X = np.random.default_rng(0).standard_normal((30, 2))
    y = np.arange(30) % max(n_outputs, 2)
    result = drawn(plots.decision_boundary(net, X, y, resolution=20, ax=ax), ax)
    points = np.concatenate([c.get_offsets() for c in result.collections if len(c.get_offsets())])
    assert sorted(map(tuple, X)) == sorted(
        point for point in map(tuple, points) if point in set(map(tuple, X))
    )
    plane = np.asarray(result.images[0].get_array())
    assert plane.shape == (20, 20, 3)
    said = net.predict([[result.get_xlim()[0], result.get_ylim()[0]]])[0]
    k = said.argmax() if n_outputs > 1 else int(said[0] >= 0.5)
    color = np.array(matplotlib.colors.to_rgb(plots.COLORS[k]))
    tint = 1 - plane[0, 0]
    np.testing.assert_allclose(tint / tint.max(), (1 - color) / (1 - color).max(), atol=1e-6)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.confusion_matrix([0, 1], [0]), "y_pred: expected 2 labels as in y_true"),
        (lambda: plots.confusion_matrix([0.5], [0]), "y_true: expected integer labels"),
        (lambda: plots.confusion_matrix([], []), "y_true: expected integer labels"),
        (lambda: plots.confusion_matrix([0, 2], [0, 1], "ab"), "class_names: expected 3, got 2"),
        (lambda: plots.class_probabilities(IMAGES, P[:2]), "probabilities: expected 4 rows"),
        (lambda: plots.class_probabilities(np.ones((4, 8)), P), "images: expected 2 x 2 pixels, g"),
        (lambda: plots.first_layer_weights(network(9, 2, "softmax"), (2, 4)), "expected 2 x 4 pix"),
        (lambda: plots.decision_boundary(network(3, 2, "softmax"), P, [0] * 4), "expected 2 input"),
    ],
)
def test_bad_arguments(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'fastmlp\[plot\]'"):
        plots.learning_curves(HISTORY)


def test_matplotlib_is_imported_where_it_is_used():
    code = "import sys, fastmlp.plots; assert not {'matplotlib', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
