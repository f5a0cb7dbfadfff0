"""What a fit recorded, epoch by epoch."""

from __future__ import annotations

__all__ = ["History"]


class History:
    """One record an epoch.

    ``history["loss"]`` is that quantity over the epochs; ``history.records`` the list of records.

    Recorded are ``epoch`` (from 1), ``loss`` and, for classes, ``accuracy`` (means over the epoch,
    each batch before its update; accuracy counts samples, without weights), ``val_loss`` and
    ``val_accuracy`` (after the epoch, with validation data), ``lr`` (of the last step),
    ``seconds`` (of the training alone) and ``samples_per_second``.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.names:
            raise KeyError(f"{name!r} was not recorded; recorded: {', '.join(self.names)}")
        return [record[name] for record in self.records]

    @property
    def names(self) -> list[str]:
        """Names of the recorded quantities."""
        return list(self.records[0]) if self.records else []

    def __repr__(self) -> str:
        if not self.records:
            return "History(no epochs)"
        last = ", ".join(f"{name}={value:.4g}" for name, value in self.records[-1].items())
        return f"History({last})"
