"""Progress of a fit: a bar in a terminal or a notebook, a line at the end, or a line an epoch."""

from __future__ import annotations

import sys
from html import escape
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fastmlp.callbacks import Callback

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["EpochLines", "ProgressBar", "format_record", "progress_callbacks"]


# What a line shows, the most telling first; then the metrics.
SHOWN = ("loss", "accuracy", "val_accuracy", "val_loss")


def format_record(record: dict[str, Any], width: int | None = None) -> str:
    """An epoch's record in one line: losses, scores, samples/s; fewer where `width` is less."""
    metrics = [name for name in record if name.startswith("val_") and name not in SHOWN]
    parts = [f"{name} {record[name]:.4f}" for name in (*SHOWN, *metrics) if name in record]
    parts.append(f"{record['samples_per_second']:>9,.0f} samples/s")
    while width is not None and len(parts) > 2 and len("  ".join(parts)) > width:
        del parts[-2]
    return "  ".join(parts)


class EpochLines(Callback):
    """Prints a line after each epoch."""

    order = 1

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self.last = network.history.last_epoch + epochs

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        number = f"{record['epoch']:>{len(str(self.last))}}/{self.last}"
        print(f"epoch {number}  {format_record(record)}")


class ProgressBar(Callback):
    """A live bar with the last epoch's record, in a terminal or a Jupyter notebook.

    Elsewhere one line on standard error at the end.
    """

    order = 1
    bar: _TerminalBar | _NotebookBar | _FinalLine | None = None

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        if _in_notebook():
            self.bar = _NotebookBar(epochs)
        elif sys.stderr.isatty():
            self.bar = _TerminalBar(epochs)
        else:
            self.bar = _FinalLine(epochs)

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        assert self.bar is not None
        self.bar.advance(record)

    def on_fit_end(self, network: Network, history: History) -> None:
        if self.bar is not None:
            self.bar.stop()


class _TerminalBar:
    def __init__(self, epochs: int):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        console = Console(stderr=True)
        self.progress = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),  # gives way to the others
            TextColumn("{task.description}"),
            console=console,
        )
        self.width = console.width - len(f"{epochs}/{epochs}") - SMALLEST_BAR - 2
        self.task = self.progress.add_task("epochs", total=epochs)
        self.progress.start()

    def advance(self, record: dict[str, Any]) -> None:
        # Drawn ten times a second by a thread of rich: an epoch may take less than a drawing.
        self.progress.update(self.task, advance=1, description=format_record(record, self.width))

    def stop(self) -> None:
        self.progress.stop()


SMALLEST_BAR = 3


class _NotebookBar:
    """An HTML element that is replaced ten times a second; rich's needs ipywidgets there."""

    INTERVAL = 0.1

    def __init__(self, epochs: int):
        from IPython.display import HTML, display

        self.epochs, self.done, self.text, self.drawn_at = epochs, 0, "", perf_counter()
        self.html = HTML
        self.handle = display(HTML(self._html()), display_id=True)

    def advance(self, record: dict[str, Any]) -> None:
        self.done += 1
        self.text = format_record(record)
        if perf_counter() - self.drawn_at >= self.INTERVAL:
            self.stop()

    def stop(self) -> None:
        self.handle.update(self.html(self._html()))
        self.drawn_at = perf_counter()

    def _html(self) -> str:
        return (
            f'<progress max="{self.epochs}" value="{self.done}"></progress> '
            f"<code>{self.done}/{self.epochs} {escape(self.text)}</code>"
        )


class _FinalLine:
    def __init__(self, epochs: int):
        self.epochs, self.done, self.text, self.began = epochs, 0, "", perf_counter()

    def advance(self, record: dict[str, Any]) -> None:
        self.done += 1
        self.text = format_record(record)

    def stop(self) -> None:
        seconds = perf_counter() - self.began
        line = f"{self.done}/{self.epochs} epochs in {seconds:.3g} s  {self.text}"
        print(line.rstrip(), file=sys.stderr)


def _in_notebook() -> bool:
    """Whether Jupyter runs this code: where it does, IPython has been imported."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def progress_callbacks(verbose: int) -> list[Callback]:
    """The callbacks of ``fit``'s `verbose`: 0 none, 1 a bar, 2 lines."""
    if isinstance(verbose, bool) or verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0, 1 or 2, got {verbose!r}")
    kinds: dict[int, list[type[Callback]]] = {0: [], 1: [ProgressBar], 2: [EpochLines]}
    return [kind() for kind in kinds[verbose]]
