"""Data of the user's own: CSV and npz files with a column, or an array, of labels.

Reading one runs no code (no pickle).
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import os
import zipfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.datasets import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["holds_classes", "load_table", "read_table", "split"]

Array = np.ndarray


def load_table(
    path: str, label: str | None, task: str | None, test_fraction: float, seed: int
) -> Dataset:
    """A file's rows, some held out. Without `target_names` the labels are quantities."""
    X, y, feature_names = read_table(path, label)
    classes: list[Any] = []
    if task == "classification" or (task is None and holds_classes(y)):
        if y.ndim != 1:
            raise ValueError(f"{path}: expected one label a row for classes, got {y.shape[1]}")
        distinct, y = np.unique(y, return_inverse=True)
        classes = distinct.tolist()
        if len(classes) < 2:
            raise ValueError(f"{path}: expected at least 2 classes, every label is {classes[0]!r}")
    elif y.dtype.kind == "U":
        raise ValueError(f"{path}: expected numbers as labels for regression, got {y.item(0)!r}")
    train, test = split(y, test_fraction, seed)
    parts = X[train], y[train], X[test], y[test]
    return Dataset(Path(path).name, *parts, feature_names, tuple(classes))


def holds_classes(y: Array) -> bool:
    """Text, and few different whole numbers, are classes; other numbers are quantities."""
    if y.dtype.kind in "iu" and y.ndim == 1:
        return len(np.unique(y)) <= min(30, len(y) // 2)
    return y.dtype.kind in "bU"


def split(y: Array, test_fraction: float, seed: int) -> tuple[Array, Array]:
    """Rows of the training and the test part; both have the labels in the same proportions."""
    order = np.random.default_rng(seed).permutation(len(y))
    by_label = order[np.argsort(y[order], kind="stable")] if y.ndim == 1 else order
    # Held out is a row where the count passes a whole number: every fifth for a fraction of 0.2.
    count = np.floor(np.arange(len(y) + 1) * test_fraction)
    held_out = np.isin(order, by_label[np.diff(count) > 0])
    return order[~held_out], order[held_out]


def read_table(
    path: str | os.PathLike[str], label: str | int | None = None
) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    """Read samples and their labels from a CSV or an npz file.

    Parameters
    ----------
    path : str or path-like
        ``.npz``: a NumPy archive with the arrays ``X`` and ``y``. Any other name: UTF-8 text with
        columns separated by commas. Its first line is a header where it names `label`, where no
        cell of it is a number, or where of the first two labels only the second is a number.
    label : str or int, optional
        CSV: name or index (from 0; negative from the end) of the column of labels; default the
        last. npz: name of the array of labels; default ``y``.

    Returns
    -------
    X : ndarray, shape (n, n_features)
        float64 from CSV, the archive's own type from npz.
    y : ndarray, shape (n,)
        From CSV int64 where all labels are whole numbers, else float64 where all are numbers, else
        str. From npz as it is, and (n, n_out) is taken too.
    feature_names : tuple of str, length n_features
        From the header, else ``x0``, ``x1``, ...

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        No rows, rows of different lengths, a feature that is no finite number, a missing label, an
        unknown `label`: with the file, the line and the column. A broken archive.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path, "y" if label is None else str(label))
    return _read_csv(path, -1 if label is None else label)


def _read_csv(
    path: Path, label: str | int
) -> tuple[NDArray[np.float64], NDArray[Any], tuple[str, ...]]:
    values = array("d")
    labels: list[str] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        rows = ((reader.line_num, row) for row in reader if row)  # a blank line is an empty row
        try:
            head = list(itertools.islice(rows, 2))
            first = [cell.strip() for cell in head[0][1]] if head else []
            n_columns = len(first)
            if n_columns < 2:
                raise ValueError(
                    f"{path}: {n_columns} columns separated by commas, "
                    "expected at least one feature and the label"
                )
            column = _label_column(path, label, first)
            is_number = [not math.isnan(_to_float(cell)) for cell in first]
            has_header = not any(is_number) or (first[column] == label and not is_number[column])
            if not is_number[column] and len(head) > 1 and len(head[1][1]) == n_columns:
                has_header |= not math.isnan(_to_float(head[1][1][column]))
            for line, row in itertools.chain(head[1:] if has_header else head, rows):
                place = f"{path}, line {line}"
                if len(row) != n_columns:
                    raise ValueError(f"{place}: {len(row)} columns, expected {n_columns}")
                text = row.pop(column).strip()
                if text.lower() in ("", "nan") or math.isinf(_to_float(text)):
                    raise ValueError(
                        f"{place}, column {column + 1}: the label is missing: {text!r}"
                    )
                numbers = [*map(_to_float, row)]
                if not all(map(math.isfinite, numbers)):
                    bad = next(i for i, number in enumerate(numbers) if not math.isfinite(number))
                    raise ValueError(
                        f"{place}, column {bad + 1 + (bad >= column)}: "
                        f"{row[bad]!r} is not a finite number"
                    )
                labels.append(text)
                values.extend(numbers)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not labels:
        raise ValueError(f"{path}: a header, but no rows")
    X = np.array(values).reshape(len(labels), n_columns - 1)
    feature_names = (*first[:column], *first[column + 1 :]) if has_header else _default_names(X)
    return X, _parse_labels(labels), feature_names


def _to_float(text: str) -> float:
    """NaN where `text` is no number."""
    try:
        # float() would also take the 1_000 of Python's source code.
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _label_column(path: Path, label: str | int, first: Sequence[str]) -> int:
    with contextlib.suppress(ValueError, IndexError):
        return range(len(first))[int(label)]
    if label in first:
        return first.index(str(label))
    shown = ", ".join(first[:10]) + (", ..." if len(first) > 10 else "")
    raise ValueError(f"label: {path} has no column {label!r}; it begins with the line {shown}")


def _parse_labels(labels: list[str]) -> NDArray[Any]:
    text = np.array(labels)
    if not any("_" in label for label in labels):  # as in _to_float
        for dtype in (np.int64, np.float64):
            with contextlib.suppress(ValueError, OverflowError):
                return text.astype(dtype)
    return text


def _read_npz(path: Path, label: str) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: not an npz archive")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("X", label) if name in archive}
                found = ", ".join(archive.files) or "nothing"
        except Exception as error:  # of zipfile, zlib, struct or NumPy: a dozen types
            raise ValueError(f"{path}: broken npz archive: {error}") from error
    for name in ("X", label):
        if name not in arrays:
            raise ValueError(f"{path}: expected the array {name}, found {found}")
    X, y = arrays["X"], arrays[label]
    if X.ndim != 2 or X.size == 0 or X.dtype.kind not in "biuf":
        raise ValueError(
            f"{path}: X is {X.dtype} of shape {X.shape}, expected numbers (n, n_features)"
        )
    if y.ndim not in (1, 2) or len(y) != len(X) or y.dtype.kind not in "biufU":
        raise ValueError(
            f"{path}: {label} is {y.dtype} of shape {y.shape}, "
            f"expected numbers or text ({len(X)},) or ({len(X)}, n_out)"
        )
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            index = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(f"{path}: {name}{index} is not a finite number")
    return X, y, _default_names(X)


def _default_names(X: NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(X.shape[1]))
