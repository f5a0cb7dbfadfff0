"""The table of ``fastmlp runs``: experiments beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from fastmlp.experiments import Experiment

__all__ = ["describe", "sort_key", "table_of"]

# Columns of scores, their titles and forms.
SCORES = {
    "loss": ("loss", "{:.4f}"),
    "val_loss": ("val loss", "{:.4f}"),
    "val_accuracy": ("val acc", "{:.2%}"),
    "test_accuracy": ("test acc", "{:.2%}"),
    "test_r2": ("test R2", "{:.4f}"),
    "test_loss": ("test loss", "{:.4f}"),
    "seconds": ("time", "{:.3g} s"),
}
LESS_IS_BETTER = ("loss", "val_loss", "test_loss", "seconds")
HIDDEN = ("checksum",)


def describe(experiment: Experiment, root: Path) -> dict[str, Any]:
    """Name, state, settings and scores of an experiment, as JSON can hold them."""
    history, result = experiment.history, experiment.result
    scores: dict[str, float] = {}
    if len(history):
        scores["loss"] = history["loss"][-1]
        for name, best in (("val_loss", np.nanmin), ("val_accuracy", np.nanmax)):
            if name in history.names:
                scores[name] = float(best(history[name]))
        scores["seconds"] = sum(history["seconds"])
    if result is not None:
        scores.update({f"test_{name}": value for name, value in (result["test"] or {}).items()})
    folder = experiment.folder
    name = str(folder.relative_to(root)) if folder != root else folder.resolve().name
    settings = {k: v for k, v in experiment.settings.items() if k not in HIDDEN}
    return {
        "run": name,
        "finished": result is not None,
        "epochs_done": history.last_epoch,
        "settings": settings,
        "scores": {name: value for name, value in scores.items() if np.isfinite(value)},
    }


def sort_key(name: str) -> Any:
    """Of a `describe`: best first for a score, then by the setting or the name of the run."""

    def key(run: dict[str, Any]) -> Any:
        if name in SCORES:
            value = run["scores"].get(name, np.inf)
            better_first = name in LESS_IS_BETTER or value == np.inf
            return (0, value if better_first else -value, run["run"])
        value = run["settings"].get(name, run.get(name))
        return (isinstance(value, str), value if value is not None else -np.inf, run["run"])

    return key


def table_of(runs: Sequence[dict[str, Any]]) -> tuple[Table, list[str]]:
    """Scores as a table; lines of what each run has for itself, and of what several share."""
    from rich.markup import escape
    from rich.table import Table

    scores = [name for name in SCORES if any(name in run["scores"] for run in runs)]
    best = {name: min(runs, key=sort_key(name))["scores"].get(name) for name in scores}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for title in ("epochs", *(SCORES[name][0] for name in scores)):
        table.add_column(title, justify="right", no_wrap=True)
    for run in runs:
        done, wanted = run["epochs_done"], run["settings"].get("epochs")
        cells = [str(done) if run["finished"] else f"{done} of {wanted}"]
        for name in scores:
            value = run["scores"].get(name)
            text = "" if value is None else SCORES[name][1].format(value)
            cells.append(f"[bold]{text}[/]" if value == best[name] and len(runs) > 1 else text)
        table.add_row(escape(run["run"]), *cells)
    names = list(dict.fromkeys(name for run in runs for name in run["settings"]))
    shared = [n for n in names if len({str(run["settings"].get(n)) for run in runs}) == 1]
    lines = {run["run"]: [name for name in names if name not in shared] for run in runs}
    if len(runs) == 1:
        lines = {runs[0]["run"]: shared}
    elif shared:
        lines["all"] = shared
    settings = {run["run"]: run["settings"] for run in runs} | {"all": runs[0]["settings"]}
    return table, [
        f"[bold]{escape(name)}[/]: {escape(_listed(settings[name], chosen))}"
        for name, chosen in lines.items()
        if chosen
    ]


def _listed(settings: dict[str, Any], names: Sequence[str]) -> str:
    """Those that say something."""
    said = {name: settings.get(name) for name in names}
    return ", ".join(
        f"{name.replace('_', ' ')} {_text(value)}"
        for name, value in said.items()
        if value not in (None, 0, False)
    )


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "yes" if value is True else str(value)
