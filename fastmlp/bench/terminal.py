"""The terminal that results and progress go to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

__all__ = ["status_line", "wide_console"]

NARROWEST = 100


def wide_console(*, stderr: bool = False) -> Console:
    """A pipe or a narrow window gets long lines rather than cut numbers."""
    console = Console(stderr=stderr, highlight=False)
    console.width = max(console.width, NARROWEST)
    return console


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """``say(text)`` shows where the run is, on one line of a terminal; nothing elsewhere.

    Nothing moves on that line in between: an animation would take time from what is measured.
    """
    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        if console.is_terminal:
            width = console.width - 1
            console.print(f"{text[:width]:<{width}}", end="\r", style="dim", markup=False)

    try:
        yield say
    finally:
        say("")
