"""The pictures that ``fastmlp train`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp import plots

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.jobs import Job
    from fastmlp.network import Network

__all__ = ["check_matplotlib", "draw_curves", "draw_everything", "draw_runs"]

DPI = 120
N_CHOSEN = 4


def check_matplotlib() -> None:
    """ImportError without it. Chooses what draws to files, where there may be no screen."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'fastmlp[plot]'") from error
    matplotlib.use("Agg")


def draw_curves(path: Path, history: History) -> None:
    """Loss, accuracy where there are classes, and learning rate over the epochs, side by side."""
    import matplotlib.pyplot as plt

    quantities = [name for name in ("loss", "accuracy", "lr") if name in history.names]
    size = 5.2 * len(quantities), 4
    axes = plt.subplots(1, len(quantities), figsize=size, layout="constrained")[1]
    for quantity, ax in zip(quantities, axes, strict=True):
        plots.learning_curves(history, quantity, ax)
    _write(path, axes[0])


def draw_runs(path: Path, histories: dict[str, History], quantity: str | None) -> None:
    """A quantity of several runs; None takes the validation's loss where a run has it."""
    if quantity is None:
        validated = any("val_loss" in history.names for history in histories.values())
        quantity = "val_loss" if validated else "loss"
    _write(path, plots.compare_runs(histories, quantity))


def draw_everything(folder: Path, job: Job, network: Network, history: History) -> list[str]:
    """All pictures that suit the data; `network` takes raw inputs. Returns the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_curves(folder / "curves.png", history)
    drawn = {name: ax for name, ax in _pictures(job, network)}  # noqa: C416
    for name, ax in drawn.items():
        _write(folder / f"{name}.png", ax)
    return ["curves.png", *(f"{name}.png" for name in drawn)]


def _pictures(job: Job, network: Network) -> Any:
    data = job.data
    X, y, names = data.X_test, data.y_test, data.target_names
    images = data.X_train.dtype == np.uint8 or data.name == "digits"
    images = images and np.sqrt(data.X_train.shape[1]) % 1 == 0
    if job.search is not None:
        yield "finder", plots.learning_rate_search(job.search)
    if images:
        yield "weights", plots.first_layer_weights(network)
    if not names or not len(X):
        return
    P = network.predict(X)
    yield "confusion", plots.confusion_matrix(y, P.argmax(axis=1), names)
    if images:
        yield "mistakes", plots.worst_mistakes(X, y, P, names)
        # The least sure are the most telling.
        chosen = np.argsort(P.max(axis=1), kind="stable")[:N_CHOSEN]
        ax = plots.class_probabilities(X[chosen], P[chosen], y[chosen], names)
        yield "probabilities", ax
    if X.shape[1] == 2:
        yield "boundary", plots.decision_boundary(network, X, y, names)


def _write(path: Path, ax: Any) -> None:
    import matplotlib.pyplot as plt

    ax.figure.savefig(path, dpi=DPI)
    plt.close(ax.figure)
