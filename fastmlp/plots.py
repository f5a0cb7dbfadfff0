"""Pictures of trainings and of what was learned. Needs matplotlib: ``pip install 'fastmlp[plot]'``.

Every function draws on `ax` (a new figure of pyplot's where it is None) and returns it. The colours
are those of Okabe and Ito, which all eyes tell apart (https://jfly.uni-koeln.de/color/); lines
differ in style and marker too, for print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.history import History

if TYPE_CHECKING:
    from fastmlp.lr_finder import LearningRateSearch
    from fastmlp.network import Network

__all__ = [
    "class_probabilities",
    "compare_runs",
    "confusion_matrix",
    "decision_boundary",
    "first_layer_weights",
    "learning_curves",
    "learning_rate_search",
    "worst_mistakes",
]

Array = np.ndarray
BLUE, ORANGE = "#0072B2", "#D55E00"
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FAINT = "#555555"
MOST_CELLS = 30  # classes whose counts can still be read
LABELS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "lr": "learning rate",
    "seconds": "seconds an epoch",
    "samples_per_second": "samples per second",
    "gradient_norm": "gradient norm",
}


def learning_curves(history: History, quantity: str = "loss", ax: Any = None) -> Any:
    """A quantity of training and of validation over the epochs.

    Parameters
    ----------
    history : History
    quantity : str, default "loss"
        Its validation curve is that of ``val_`` and this name, where it was recorded. The best
        epoch of the validation is marked.
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        Where the quantity was not recorded.
    """
    ax = _axes(ax)
    validated = f"val_{quantity}"
    epochs = history["epoch"]
    if quantity in history.names or validated not in history.names:
        _line(ax, epochs, history[quantity], "training", BLUE, "-", "o")
    if validated in history.names:
        values = np.array(history[validated])
        _line(ax, epochs, values, "validation", ORANGE, "--", "s")
        if np.isfinite(values).any():
            best = int(np.nanargmin(values) if quantity == "loss" else np.nanargmax(values))
            label = f"best: {values[best]:.4g} in epoch {epochs[best]}"
            star = {"color": ORANGE, "markersize": 14, "markeredgecolor": "white", "zorder": 3}
            ax.plot(epochs[best], values[best], "*", label=label, **star)
        ax.legend(frameon=False)
    _over_epochs(ax, quantity, f"{_label(quantity).capitalize()} over the epochs")
    return ax


def compare_runs(runs: Mapping[str, History], quantity: str = "val_loss", ax: Any = None) -> Any:
    """A quantity of several trainings over the epochs.

    Parameters
    ----------
    runs : mapping of str to History
    quantity : str, default "val_loss"
        Runs without it are left out.
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Where no run has it.
    """
    drawn = {name: history for name, history in runs.items() if quantity in history.names}
    if not drawn:
        raise ValueError(f"quantity: expected one that a run recorded, got {quantity!r}")
    ax = _axes(ax)
    looks = zip(cycle(COLORS), cycle(STYLES), cycle(MARKERS), strict=False)
    for (name, history), look in zip(drawn.items(), looks, strict=False):
        _line(ax, history["epoch"], history[quantity], name, *look)
    legend = ax.legend(frameon=False, fontsize="small", ncols=-(-len(drawn) // 12))
    legend.set_in_layout(False)  # a long one would leave no room for the axes
    _over_epochs(ax, quantity, f"{_label(quantity).capitalize()} of {len(drawn)} runs")
    return ax


def learning_rate_search(search: LearningRateSearch, ax: Any = None) -> Any:
    """Losses over the learning rates that `find_learning_rate` tried, and its suggestion.

    Parameters
    ----------
    search : LearningRateSearch
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes
    """
    ax = _axes(ax)
    smoothed = search.smoothed
    ax.plot(search.rates, search.losses, color=FAINT, linewidth=0.6, alpha=0.6, label="each batch")
    ax.plot(search.rates, smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    ax.axvline(search.suggestion, color=ORANGE, linestyle="--", linewidth=1.4)
    ax.plot(
        *(search.suggestion, np.interp(search.suggestion, search.rates, smoothed)),
        color=ORANGE,
        marker="D",
        linestyle="--",
        label=f"suggested: {search.suggestion:.2g}",
    )
    ax.set_xscale("log")
    # What lies behind the explosion would press everything before it flat.
    low, start = float(smoothed.min()), float(smoothed[0])
    fall = max(start - low, 0.1 * abs(start), 1e-12)
    ax.set_ylim(low - 0.1 * fall, start + 0.6 * fall)
    ax.legend(frameon=False, loc="lower left")
    _finish(ax, "Learning-rate finder", "learning rate", "loss")
    return ax


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    class_names: Sequence[Any] | None = None,
    ax: Any = None,
) -> Any:
    """How often each class was taken for each: rows are true classes, columns predicted ones.

    Counts are written, for up to 30 classes; colours are shares of the row.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Integer labels.
    class_names : sequence or None, default None
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Where the two do not fit each other.
    """
    y_true, y_pred = _labels(y_true, "y_true"), _labels(y_pred, "y_pred")
    if len(y_true) != len(y_pred):
        raise ValueError(f"y_pred: expected {len(y_true)} labels as in y_true, got {len(y_pred)}")
    names = _names(class_names, int(max(y_true.max(), y_pred.max())) + 1)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (y_true, y_pred), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(len(names), MOST_CELLS)
    ax = _axes(ax, (0.55 * side + 2.2, 0.5 * side + 1.6))
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = np.clip(90 / len(names), 4.5, 9)
    for (i, j), count in np.ndenumerate(counts):
        if count and len(names) <= MOST_CELLS:
            color = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, f"{count:,}", ha="center", va="center", color=color, fontsize=size)
    slanted = max(map(len, names)) > 3
    ax.set_xticks(range(len(names)), names, rotation=45 if slanted else 0)
    if slanted:
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.set_title(f"{np.trace(counts) / len(y_true):.2%} of {len(y_true):,} right")
    ax.figure.colorbar(image, ax=ax, label="share of the true class", fraction=0.046, pad=0.04)
    return ax


def class_probabilities(
    images: Any,
    probabilities: Any,
    y_true: Any = None,
    class_names: Sequence[Any] | None = None,
    ax: Any = None,
) -> Any:
    """Chosen images, each beside bars of its classes' probabilities.

    Parameters
    ----------
    images : array-like of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
        Rows of pixels are taken for square pictures.
    probabilities : array-like of shape (n, n_classes)
    y_true : array-like of shape (n,) or None, default None
        The true class's bar is drawn in another colour, and hatched.
    class_names : sequence or None, default None
    ax : matplotlib Axes or None, default None
        Its area is divided among the images.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For pixels that make no square, or shapes that do not fit each other.
    """
    images, probabilities = _images(images), np.asarray(probabilities)
    n, n_classes = len(images), probabilities.shape[-1]
    if probabilities.shape != (n, n_classes):
        raise ValueError(f"probabilities: expected {n} rows, got shape {probabilities.shape}")
    names = _names(class_names, n_classes)
    truth = None if y_true is None else _labels(y_true, "y_true")
    row = max(1.5, 0.17 * n_classes)
    ax = _axes(ax, (6.4, row * n + 0.5))
    ax.set_axis_off()
    for i, (image, values) in enumerate(zip(images, probabilities, strict=True)):
        height = 1 / n
        bottom = 1 - (i + 1) * height
        pad = 0.1 * height
        _picture(ax.inset_axes((0, bottom + pad, 0.3, height - 2 * pad)), image)
        bars = ax.inset_axes((0.52, bottom + pad, 0.48, height - 2 * pad))
        right = None if truth is None else int(truth[i])
        drawn = bars.barh(range(n_classes), values, color=BLUE, height=0.75)
        if right is not None:
            drawn[right].set(facecolor=ORANGE, hatch="///", edgecolor="white")
        bars.set_yticks(range(n_classes), names, fontsize=8)
        bars.invert_yaxis()
        bars.set_xlim(0, 1.16)
        bars.set_xticks([0, 0.5, 1])
        for j, value in enumerate(values):
            if value >= 0.005:
                bars.text(value + 0.02, j, f"{value:.0%}", va="center", fontsize=7.5)
        bars.spines[["top", "right"]].set_visible(False)
        bars.tick_params(labelsize=8, length=2)
        if i == n - 1:
            bars.set_xlabel("probability", fontsize=8)
        else:
            bars.set_xticklabels([])
    ax.set_title("Class probabilities" + ("; hatched: the true class" if truth is not None else ""))
    return ax


def first_layer_weights(
    network: Network, image_shape: tuple[int, int] | None = None, n_units: int = 64, ax: Any = None
) -> Any:
    """The weights into each unit of the first dense layer, as an image of the inputs.

    Parameters
    ----------
    network : Network
    image_shape : (height, width) or None, default None
        None takes a square.
    n_units : int, default 64
        At most so many, those with the largest weights (in the sum of squares).
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        Where the inputs do not make such images.
    """
    W = next(group[0] for group in network.parameters if group and group[0].ndim == 2)
    strongest = np.sort(np.argsort(-np.square(W).sum(axis=0), kind="stable")[:n_units])
    images = _images(W[:, strongest].T, image_shape)
    n, height, width = images.shape
    columns = int(np.ceil(np.sqrt(n * height / width)))
    rows = -(-n // columns)
    limit = float(np.quantile(np.abs(images), 0.995)) or 1.0
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), np.nan)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    ax = _axes(ax, (6.4, 6.4 * sheet.shape[0] / sheet.shape[1] - 0.4))
    picture = ax.imshow(sheet, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set_axis_off()
    of = f" of {W.shape[1]}" if n < W.shape[1] else ""
    ax.set_title(f"Weights into {n}{of} units of the first layer")
    ax.figure.colorbar(picture, ax=ax, label="weight", fraction=0.046, pad=0.03, extend="both")
    return ax


def worst_mistakes(
    images: Any,
    y_true: Any,
    probabilities: Any,
    class_names: Sequence[Any] | None = None,
    n: int = 20,
    ax: Any = None,
) -> Any:
    """The images that the network was surest about and wrong, the worst first.

    Parameters
    ----------
    images : array-like of shape (n_samples, ...)
        As for `class_probabilities`.
    y_true : array-like of shape (n_samples,)
        Integer labels.
    probabilities : array-like of shape (n_samples, n_classes)
    class_names : sequence or None, default None
    n : int, default 20
        At most so many.
    ax : matplotlib Axes or None, default None
        Its area is divided among the images.

    Returns
    -------
    Axes
    """
    probabilities, truth = np.asarray(probabilities), _labels(y_true, "y_true")
    names = _names(class_names, probabilities.shape[1])
    said = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(said != truth)
    # Where two are as sure of the same, the one that gave the truth less comes first.
    sure, right = probabilities[wrong, said[wrong]], probabilities[wrong, truth[wrong]]
    worst = wrong[np.lexsort((right, -sure))][:n]
    columns = max(2, int(np.ceil(np.sqrt(1.2 * len(worst)))))
    rows = max(1, -(-len(worst) // columns))
    ax = _axes(ax, (max(1.5 * columns, 4) + 0.2, 1.75 * rows + 0.6))
    ax.set_axis_off()
    chosen = _images(np.asarray(images)[worst]) if len(worst) else ()
    for i, (k, image) in enumerate(zip(worst, chosen, strict=True)):
        left, top = i % columns / columns, 1 - i // columns / rows
        cell = ax.inset_axes((left, top - 0.99 / rows, 0.98 / columns, 0.76 / rows))
        _picture(cell, image)
        cell.set_title(
            f"{names[truth[k]]}, not {names[said[k]]}\n{probabilities[k, said[k]]:.2%} sure",
            fontsize=7.5,
            pad=2,
        )
    ax.set_title(f"Worst of {len(wrong):,} mistakes in {len(truth):,}")
    return ax


def decision_boundary(
    network: Network,
    X: Any,
    y: Any,
    class_names: Sequence[Any] | None = None,
    resolution: int = 300,
    ax: Any = None,
) -> Any:
    """What a network of two inputs says where in the plane, and the samples.

    Colours say the class, their strength its probability.

    Parameters
    ----------
    network : Network
        With two inputs; softmax outputs, or one sigmoid output.
    X : array-like of shape (n, 2)
    y : array-like of shape (n,)
        Integer labels.
    class_names : sequence or None, default None
    resolution : int, default 300
        Points along each side.
    ax : matplotlib Axes or None, default None

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        For a network with another number of inputs.
    """
    from matplotlib.colors import to_rgb

    X, y = np.asarray(X), _labels(y, "y")
    if network.architecture.n_inputs != 2:
        raise ValueError(f"network: expected 2 inputs, got {network.architecture.n_inputs}")
    low, high = X.min(axis=0), X.max(axis=0)
    margin = 0.08 * (high - low) + 1e-9
    low, high = low - margin, high + margin
    x0, x1 = (np.linspace(low[i], high[i], resolution) for i in range(2))
    plane = np.stack(np.meshgrid(x0, x1), axis=-1).reshape(-1, 2)
    P = network.predict(plane).astype(np.float64)
    if P.shape[1] == 1:
        P = np.column_stack([1 - P, P])
    said = P.argmax(axis=1).reshape(resolution, resolution)
    names = _names(class_names, P.shape[1])
    colors = np.array([to_rgb(color) for color in islice(cycle(COLORS), len(names))])
    # The stronger the surer, and lighter than the samples everywhere.
    sure = (P.max(axis=1) - 1 / len(names)) / (1 - 1 / len(names))
    strength = (0.1 + 0.3 * np.clip(sure, 0, 1))[:, None]
    tints = 1 - strength * (1 - colors[said.ravel()])
    ax = _axes(ax, (5.8, 4.8))
    extent = (low[0], high[0], low[1], high[1])
    ax.imshow(
        *(tints.reshape(resolution, resolution, 3),),
        origin="lower",
        extent=extent,
        aspect="auto",
        interpolation="bilinear",
    )
    for k in range(len(names) if len(names) > 2 else 1):
        others = np.delete(P, k, axis=1).max(axis=1)
        gap = (P[:, k] - others).reshape(resolution, resolution)
        if gap.min() < 0 < gap.max():
            ax.contour(x0, x1, gap, levels=[0], colors="black", linewidths=1.1)
    for k, (name, marker) in enumerate(zip(names, cycle(MARKERS), strict=False)):
        ax.scatter(
            *X[y == k].T, color=colors[k], marker=marker, s=22, edgecolor="white", linewidth=0.5,
            label=name,
        )  # fmt: skip
    ax.legend(frameon=True, framealpha=0.9, fontsize="small")
    _finish(ax, "Decision boundary", "first input", "second input", grid=False)
    ax.set(xlim=extent[:2], ylim=extent[2:])
    return ax


def _axes(ax: Any, figsize: tuple[float, float] = (6.4, 4.2)) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fastmlp[plot]'") from error
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def _line(
    ax: Any, x: Any, y: Any, label: str, color: str, style: str = "-", marker: str = "o"
) -> None:
    # About ten markers a line, and each line's own; more hide the line.
    every = max(1, len(x) // 10)
    look = {"color": color, "linestyle": style, "marker": marker, "markersize": 5}
    ax.plot(x, y, label=label, markevery=every, linewidth=1.7, **look)


def _over_epochs(ax: Any, quantity: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    _finish(ax, title, "epoch", _label(quantity))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _finish(ax: Any, title: str, xlabel: str, ylabel: str, grid: bool = True) -> None:
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)


def _label(quantity: str) -> str:
    name = quantity.removeprefix("val_")
    label = LABELS.get(name, name.replace("_", " "))
    return f"validation {label}" if name != quantity else label


def _labels(y: Any, name: str) -> Array:
    y = np.asarray(y)
    if y.ndim != 1 or y.dtype.kind not in "iub" or len(y) == 0:
        raise ValueError(f"{name}: expected integer labels (n,), got {y.dtype} of shape {y.shape}")
    return y.astype(np.int64)


def _names(class_names: Sequence[Any] | None, n: int) -> list[str]:
    if class_names is None:
        return [str(i) for i in range(n)]
    if len(class_names) < n:
        raise ValueError(f"class_names: expected {n}, got {len(class_names)}")
    return [str(name) for name in class_names]


def _images(values: Any, shape: tuple[int, int] | None = None) -> Array:
    """(n, height, width) or (n, height, width, 3)."""
    values = np.asarray(values)
    if values.ndim > 2:
        return values
    n, n_pixels = values.shape
    side = int(np.sqrt(n_pixels))
    height, width = shape or (side, side)
    if height * width != n_pixels:
        raise ValueError(f"images: expected {height} x {width} pixels, got {n_pixels}")
    return values.reshape(n, height, width)


def _picture(ax: Any, image: Array) -> None:
    ax.imshow(image, cmap="gray_r", interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set(color="#BBBBBB", linewidth=0.6)
