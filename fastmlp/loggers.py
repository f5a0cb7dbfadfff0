"""Callbacks that write the history to files while the fit runs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from time import time
from typing import IO, TYPE_CHECKING, Any

from fastmlp.callbacks import Callback
from fastmlp.history import record_to_json
from fastmlp.serialization import write_atomically

if TYPE_CHECKING:
    from fastmlp.history import History
    from fastmlp.network import Network

__all__ = ["CSVLogger", "JSONLinesLogger", "TensorBoard"]


class _TextLog(Callback):
    order = 1
    _file: IO[str] | None = None

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        self._write_anew(network.history)

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        if not self._fits(record):
            self._write_anew(network.history)
            return
        assert self._file is not None
        self._file.write(self._text([record]))
        self._file.flush()

    def on_fit_end(self, network: Network, history: History) -> None:
        if self._file is not None:
            self._file.close()

    def _write_anew(self, history: History) -> None:
        if self._file is not None:
            self._file.close()
        write_atomically(self.path, (self._head(history) + self._text(history.records)).encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _head(self, history: History) -> str:
        return ""

    def _fits(self, record: dict[str, Any]) -> bool:
        return True

    def _text(self, records: Sequence[dict[str, Any]]) -> str:
        raise NotImplementedError


class CSVLogger(_TextLog):
    """The network's history as a CSV file, a row an epoch, written while the fit runs.

    It has the epochs of earlier fits too, so that it goes on where a resumed fit does. A file that
    is there is replaced.

    Parameters
    ----------
    path : path
    """

    def _head(self, history: History) -> str:
        self.columns = history.names
        return _csv([self.columns]) if self.columns else ""

    def _fits(self, record: dict[str, Any]) -> bool:
        return set(record) <= set(self.columns)

    def _text(self, records: Sequence[dict[str, Any]]) -> str:
        return _csv([[record.get(name, "") for name in self.columns] for record in records])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class JSONLinesLogger(_TextLog):
    """The network's history with a JSON object a line, an epoch each, written while the fit runs.

    It has the epochs of earlier fits too, so that it goes on where a resumed fit does. A file that
    is there is replaced. NaN and infinities are strings.

    Parameters
    ----------
    path : path
    """

    def _text(self, records: Sequence[dict[str, Any]]) -> str:
        return "".join(json.dumps(record_to_json(record)) + "\n" for record in records)


class TensorBoard(Callback):
    """Event files for TensorBoard, every recorded quantity as a scalar over the epochs.

    Parameters
    ----------
    folder : path
        Made where it is missing. Each fit adds a file to it.

    Raises
    ------
    ImportError
        Without the package ``tensorboard``.
    """

    order = 1

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "TensorBoard needs the package tensorboard: pip install tensorboard"
            ) from error
        self.folder = Path(folder)
        self._writer: Any = None

    def on_fit_begin(self, network: Network, *, epochs: int, n_samples: int | None) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(self.folder))

    def on_epoch_end(self, network: Network, record: dict[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name != "epoch"
        ]
        event = Event(wall_time=time(), step=record["epoch"], summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def on_fit_end(self, network: Network, history: History) -> None:
        if self._writer is not None:
            self._writer.close()
