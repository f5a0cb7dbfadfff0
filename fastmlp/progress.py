"""Progress of a fit: a bar in a terminal, or a line an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastmlp.callbacks import Callback

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["EpochLines", "ProgressBar", "format_record", "progress_callbacks"]


# What a line shows, the most telling first.
SHOWN = ("loss", "accuracy", "val_accuracy", "val_loss")


def format_record(record: dict[str, Any], width: int | None = None) -> str:
    """An epoch's record in one line: losses, accuracies, samples/s; fewer where `width` is less."""
    parts = [f"{name} {record[name]:.4f}" for name in SHOWN if name in record]
    parts.append(f"{record['samples_per_second']:>9,.0f} samples/s")
    while width is not None and len(parts) > 2 and len("  ".join(parts)) > width:
        del parts[-2]
    return "  ".join(parts)


class EpochLines(Callback):
    """Prints a line after each epoch."""

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        number = f"{record['epoch']:>{len(str(self.epochs))}}/{self.epochs}"
        print(f"epoch {number}  {format_record(record)}")


class ProgressBar(Callback):
    """A live bar with the last epoch's record; silent where standard error is no terminal."""

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        console = Console(stderr=True)
        self.progress = Progress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),  # gives way to the others
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.width = console.width - len(f"{epochs}/{epochs}") - SMALLEST_BAR - 2
        self.task = self.progress.add_task("epochs", total=epochs)
        self.progress.start()

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        # Drawn ten times a second by a thread of rich: an epoch may take less than a drawing.
        self.progress.update(self.task, advance=1, description=format_record(record, self.width))

    def on_fit_end(self, network: Network, history: History) -> None:
        if hasattr(self, "progress"):
            self.progress.stop()


SMALLEST_BAR = 3


def progress_callbacks(verbose: int) -> list[Callback]:
    """The callbacks of ``fit``'s `verbose`: 0 none, 1 a bar, 2 lines."""
    if isinstance(verbose, bool) or verbose not in (0, 1, 2):
        raise ValueError(f"verbose: expected 0, 1 or 2, got {verbose!r}")
    kinds: dict[int, list[type[Callback]]] = {0: [], 1: [ProgressBar], 2: [EpochLines]}
    return [kind() for kind in kinds[verbose]]
