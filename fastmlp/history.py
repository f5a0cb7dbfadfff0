"""What fits recorded, epoch by epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["History"]


class Columns:
    """Some epochs' records, made when somebody asks: 300 in 0.15 ms, a tenth of a fit of Iris.

    Parameters
    ----------
    columns : mapping from names to sequences
        Each quantity's values, one an epoch.
    """

    def __init__(self, columns: Mapping[str, Sequence[float] | np.ndarray]) -> None:
        # Copies: these may be pieces of arrays that have a number for every step.
        self.columns = {name: np.array(values) for name, values in columns.items()}

    @cached_property
    def records(self) -> list[dict[str, float]]:
        rows = zip(*(values.tolist() for values in self.columns.values()), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in rows]


class History:
    """One record an epoch.

    ``history["loss"]`` is that quantity over the epochs; ``history.records`` the list of records.

    Recorded are ``epoch`` (from 1, on over all fits of a network), ``loss`` and, for classes,
    ``accuracy`` (means over the epoch, each batch before its update; accuracy counts samples,
    without weights), ``val_loss``, ``val_accuracy`` and ``val_`` with each metric's name (after the
    epoch, with validation data), ``lr`` (of the last step), ``seconds`` (of the training alone) and
    ``samples_per_second``.

    Parameters
    ----------
    records : iterable of mappings, default ()

    Attributes
    ----------
    records : list of dict
    stop_reason : str or None
        What ended the fit: "epochs" where all were done, else the name of the callback's class.
        None while it runs, and where an exception ended it.
    """

    def __init__(self, records: Iterable[Mapping[str, float]] = ()) -> None:
        self._records: list[dict[str, float]] = [dict(record) for record in records]
        self._columns: list[Columns] = []  # of the epochs behind them
        self.stop_reason: str | None = None

    @property
    def records(self) -> list[dict[str, float]]:
        for columns in self._columns:
            self._records += columns.records
        self._columns.clear()
        return self._records

    def extend(self, columns: Columns) -> None:
        """Epochs more; another history may have the same, and then has the same records."""
        self._columns.append(columns)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> list[float]:
        """A quantity over the epochs; NaN where an epoch does not have it."""
        if name not in self.names:
            raise KeyError(f"{name!r} was not recorded; recorded: {', '.join(self.names)}")
        return [record.get(name, np.nan) for record in self.records]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    @property
    def names(self) -> list[str]:
        """Names of the recorded quantities."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    @property
    def last_epoch(self) -> int:
        """Number of the last epoch, 0 without any."""
        return int(self.records[-1]["epoch"]) if self.records else 0

    def to_json(self) -> str:
        """The list of records as JSON, every number exactly; NaN and infinities as strings."""
        return json.dumps([record_to_json(record) for record in self.records], allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history of which `to_json` made `text`.

        Raises
        ------
        ValueError
            Where `text` is something else.
        """
        try:
            records = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"history: expected JSON ({error})") from None
        return cls.from_records(records)

    @classmethod
    def from_records(cls, records: Any) -> History:
        """The history of records as `record_to_json` gives them."""
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise ValueError("history: expected a list of records")
        try:
            parsed = [{k: _number(v) for k, v in record.items()} for record in records]
            epochs = [record["epoch"] for record in parsed]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"history: expected numbers, 'epoch' among them ({error})") from None
        if not all(isinstance(epoch, int) for epoch in epochs):
            raise ValueError("history: expected whole numbers as epochs")
        return cls(parsed)

    def to_frame(self) -> Any:
        """A ``pandas.DataFrame``, a row an epoch, ``epoch`` its index.

        Raises
        ------
        ImportError
            Without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("History.to_frame needs pandas: pip install pandas") from error
        return pd.DataFrame(self.records, columns=self.names or ["epoch"]).set_index("epoch")

    def __repr__(self) -> str:
        if not self.records:
            return "History(no epochs)"
        last = ", ".join(f"{name}={value:.4g}" for name, value in self.records[-1].items())
        return f"History({last})"


def record_to_json(record: Mapping[str, float]) -> dict[str, float | str]:
    """A record as JSON can hold it."""
    return {name: value if np.isfinite(value) else str(value) for name, value in record.items()}


def _number(value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"got {value!r}")
    return value
