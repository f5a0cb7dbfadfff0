"""Experiment folders: what a training was, how it went, and what came of it, in plain files.

==========================  =======================================================================
``settings.json``           the hyperparameters, all of them, and a checksum of the data
``environment.json``        versions, processor, backend
``history.jsonl``           a JSON object an epoch, written while the training runs
``checkpoint.safetensors``  the last epoch, with all that a resumed training needs
``best.safetensors``        the model of the best epoch so far, ready to use
``last.safetensors``        the model of the last epoch, ready to use
``result.json``             scores, written at the end: a folder without it is unfinished
``curves.png``              learning curves, where matplotlib is installed
==========================  =======================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastmlp.history import History
from fastmlp.runtime import configuration
from fastmlp.serialization import write_atomically

__all__ = ["Experiment", "find_experiments"]

FILES = (
    *("settings.json", "environment.json", "history.jsonl", "result.json", "curves.png"),
    *("checkpoint.safetensors", "best.safetensors", "last.safetensors"),
)


@dataclass(frozen=True)
class Experiment:
    """One folder.

    Attributes
    ----------
    folder : Path
    settings : dict
    """

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> Experiment:
        """A new folder, with settings and environment in it.

        Raises
        ------
        FileExistsError
            Where something is there already; with `overwrite`, something that is no experiment.
        OSError
            Where it cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            if not (folder / "settings.json").is_file():
                raise FileExistsError(f"{folder} is there, not empty, and holds no experiment")
            if not overwrite:
                raise FileExistsError(f"{folder} holds an experiment already")
            for name in FILES:
                (folder / name).unlink(missing_ok=True)
        experiment = cls(folder, dict(settings))
        experiment.write("environment.json", configuration())
        # Last: a folder with settings is a whole experiment.
        experiment.write("settings.json", experiment.settings)
        return experiment

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Experiment:
        """A folder that `create` made.

        Raises
        ------
        OSError
            Where it cannot be read.
        ValueError
            Where it holds something else.
        """
        folder = Path(folder)
        settings = _read_json(folder / "settings.json")
        if not isinstance(settings, dict):
            raise ValueError(f"{folder / 'settings.json'}: expected a JSON object")
        return cls(folder, settings)

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, document: Any) -> None:
        """Write a JSON file."""
        write_atomically(self.path(name), (json.dumps(document, indent=2) + "\n").encode())

    @property
    def result(self) -> dict[str, Any] | None:
        """What `result.json` says; None while the experiment is unfinished."""
        path = self.path("result.json")
        result: dict[str, Any] | None = _read_json(path) if path.exists() else None
        return result

    @property
    def history(self) -> History:
        """The epochs so far. A last line that was not written to its end does not count."""
        try:
            text = self.path("history.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return History()
        whole = text[: text.rfind("\n") + 1].splitlines()
        return History.from_json(f"[{','.join(whole)}]")

    def remove_leftovers(self) -> None:
        """Files that a killed process was about to rename."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def find_experiments(folder: str | os.PathLike[str]) -> list[Experiment]:
    """All experiments in a folder and below, by name; broken ones raise ValueError."""
    paths = sorted(Path(folder).rglob("settings.json"))
    return [Experiment.open(path.parent) for path in paths]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON, or damaged ({error})") from None
