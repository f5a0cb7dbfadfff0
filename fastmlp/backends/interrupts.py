"""Ctrl-C between the steps of a Python loop, not inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["InterruptsBetweenSteps"]


class InterruptsBetweenSteps:
    """Holds SIGINT back while `updating` is true, so that no update stays half done.

    As a context manager around a loop, in the main thread: the handler that was there (Python's
    raises KeyboardInterrupt) is called at once, or where ``updating`` is true as soon as it is set
    to false, and is put back at the end. It begins true: an exception while the block is entered
    would leave our handler behind. Other threads get no signals.
    """

    def __enter__(self) -> InterruptsBetweenSteps:
        self._updating = True
        self._pending: tuple[int, FrameType | None] | None = None
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._updating = True
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        self.updating = False

    @property
    def updating(self) -> bool:
        return self._updating

    @updating.setter
    def updating(self, value: bool) -> None:
        self._updating = value
        if not value and self._pending is not None and self._previous is not None:
            pending, self._pending = self._pending, None
            self._previous(*pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._updating:
            self._pending = (number, frame)
        elif self._previous is not None:
            self._previous(number, frame)
