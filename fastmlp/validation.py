"""Checks of what a user passes in. Nothing is changed before everything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastmlp.architecture import Architecture
from fastmlp.arena import all_finite
from fastmlp.losses import Loss
from fastmlp.mapped import MappedRows, is_large_map, row_blocks

__all__ = [
    "check_count",
    "check_finite",
    "check_inputs",
    "check_limit",
    "check_targets",
    "check_weights",
    "class_weights",
    "scale_pixels",
]

Array = np.ndarray
UINT8 = np.dtype(np.uint8)


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """An integer of at least `minimum`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    value = value.__index__()
    if value < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {value}")
    return value


def check_inputs(
    X: Any, architecture: Architecture, name: str = "X", finite: bool = True
) -> Array | MappedRows:
    """`X` as (n, n_inputs) with contiguous rows, of the network's dtype or uint8.

    The array itself where it already is so, and aligned, else a copy; `MappedRows` for a large
    memory-mapped array, which is never copied as a whole. A sparse matrix is made dense. With
    `finite` False the caller has them checked on the way (`check_finite`).
    """
    if isinstance(X, MappedRows):
        return X
    X = _numeric_array(X, name)
    shape = X.shape
    if len(shape) != 2:
        hint = " (one sample: X.reshape(1, -1))" if len(shape) == 1 else ""
        raise ValueError(f"{name}: expected 2 dimensions (n, n_inputs), got shape {shape}{hint}")
    if shape[1] != architecture.n_inputs:
        raise ValueError(f"{name}: expected {architecture.n_inputs} columns, got shape {shape}")
    if shape[0] == 0:
        raise ValueError(f"{name}: expected at least 1 sample, got shape {shape}")
    dtype = X.dtype
    pixels = dtype == UINT8
    if is_large_map(X):
        mapped = MappedRows(X, dtype if pixels else architecture.dtype)
        for rows in [] if pixels else row_blocks(mapped):
            check_finite(_convert(X[rows], architecture.dtype, name), name, rows.start)
            mapped.release()
        return mapped
    if not pixels:
        if dtype != architecture.dtype:
            X = _convert(X, architecture.dtype, name)
        if finite:
            check_finite(X, name)
    # NumPy's products of unaligned arrays round in another order.
    flags = X.flags
    if flags.c_contiguous and flags.aligned:
        return X
    return np.require(X, requirements=["C", "ALIGNED"])


def scale_pixels(X: Array | MappedRows, dtype: np.dtype) -> Array:
    """uint8 pixels to [0, 1]; any other array as it is, all of a memory-mapped one."""
    X = X[:]
    return X * dtype.type(1 / 255) if X.dtype == np.uint8 else X


def check_targets(Y: Any, architecture: Architecture, n_samples: int, name: str = "y") -> Array:
    """Targets as int64 labels (n,), or as (n, n_outputs) of the network's dtype."""
    loss, n_outputs = architecture.loss, architecture.n_outputs
    Y = _numeric_array(Y, name)
    if Y.shape[:1] != (n_samples,):
        raise ValueError(f"{name}: expected {n_samples} targets, one a sample; got shape {Y.shape}")
    if loss.labels and Y.ndim == 1:
        return _check_labels(Y, n_outputs, loss, name)
    if Y.ndim == 1 and n_outputs == 1:
        Y = Y[:, None]
    if loss.n_outputs is not None and Y.shape in ((n_samples,), (n_samples, 1)):
        Y = np.repeat(Y.reshape(-1, 1), n_outputs, axis=1)  # one target for all its outputs
    if Y.shape != (n_samples, n_outputs):
        labels = f"({n_samples},) integer labels or " if loss.labels else ""
        raise ValueError(
            f"{name}: expected {labels}shape ({n_samples}, {n_outputs}) for {n_outputs} outputs, "
            f"got shape {Y.shape}"
        )
    Y = check_finite(_convert(Y, architecture.dtype, name), name)
    if (loss.probabilities or loss.labels) and (Y.min() < 0 or Y.max() > 1):
        raise ValueError(
            f"{name}: expected values in [0, 1] for {loss.name}, got {Y.min():g} to {Y.max():g}"
        )
    if loss.targets != "real" and (Y.min() < 0 or (loss.targets == "positive" and Y.min() == 0)):
        expected = {"nonnegative": "of at least 0", "positive": "above 0"}[loss.targets]
        raise ValueError(f"{name}: expected values {expected} for {loss.name}, got {Y.min():g}")
    if loss.labels and np.abs(Y.sum(axis=1) - 1).max() > 1e-3:
        row = int(np.abs(Y.sum(axis=1) - 1).argmax())
        raise ValueError(
            f"{name}: expected rows of probabilities that sum to 1 for {loss.name}, "
            f"row {row} sums to {Y[row].sum():g}"
        )
    return np.ascontiguousarray(Y)


def check_weights(weight: Any, n_samples: int, name: str = "sample_weight") -> Array | None:
    """Sample weights as float64 (n,): finite, none below 0, not all 0."""
    if weight is None:
        return None
    weight = _numeric_array(weight, name)
    if weight.shape != (n_samples,):
        raise ValueError(f"{name}: expected shape ({n_samples},), got shape {weight.shape}")
    weight = np.ascontiguousarray(check_finite(_convert(weight, np.dtype(np.float64), name), name))
    if weight.min() < 0 or weight.max() == 0:
        raise ValueError(
            f"{name}: expected weights of at least 0, not all 0; got "
            f"{weight.min():g} to {weight.max():g}"
        )
    return weight


def check_limit(value: Any, name: str) -> float:
    """A number above 0; infinite for None."""
    if value is None:
        return np.inf
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: expected a number or None, got {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return float(value)


def class_weights(
    class_weight: Any, Y: Array, weight: Array | None, architecture: Architecture
) -> Array | None:
    """Checked sample weights times each sample's class weight.

    A row of probabilities has the mean of its classes' weights.
    """
    if class_weight is None:
        return weight
    loss, n_classes = architecture.loss, architecture.n_outputs
    if not loss.labels:
        raise ValueError(f"class_weight: expected None for {loss.name}, which has no classes")
    factors = np.ones(n_classes)
    shares = Y if Y.ndim == 2 else None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight: expected a dict, 'balanced' or None, got {class_weight!r}"
            )
        counts = np.bincount(Y, minlength=n_classes) if shares is None else shares.sum(axis=0)
        present = counts > 0
        factors[present] = len(Y) / (present.sum() * counts[present])
    elif isinstance(class_weight, Mapping):
        for label, factor in class_weight.items():
            if isinstance(label, bool) or not hasattr(label, "__index__"):
                raise TypeError(f"class_weight: expected labels, got {label!r}")
            if not 0 <= label.__index__() < n_classes:
                raise ValueError(
                    f"class_weight: expected labels from 0 to {n_classes - 1}, got {label}"
                )
            if isinstance(factor, bool) or not isinstance(factor, (int, float, np.number)):
                raise TypeError(f"class_weight[{label}]: expected a number, got {factor!r}")
            if not 0 <= factor < np.inf:
                raise ValueError(f"class_weight[{label}]: expected at least 0, got {factor}")
            factors[label.__index__()] = factor
    else:
        raise TypeError(
            f"class_weight: expected a dict, 'balanced' or None, got {type(class_weight).__name__}"
        )
    by_class = factors[Y] if shares is None else shares.astype(np.float64) @ factors
    return check_weights(by_class if weight is None else weight * by_class, len(Y), "class_weight")


def _check_labels(Y: Array, n_outputs: int, loss: Loss, name: str) -> Array:
    if Y.dtype.kind not in "iub":
        raise TypeError(
            f"{name}: expected integer class labels or rows of probabilities for {loss.name}, got "
            f"{Y.dtype} of shape {Y.shape}"
        )
    low, high = int(Y.min()), int(Y.max())
    if low < 0 or high >= n_outputs:
        raise ValueError(
            f"{name}: expected labels from 0 to {n_outputs - 1} for {n_outputs} outputs, "
            f"got {low} to {high}"
        )
    return np.ascontiguousarray(Y, dtype=np.int64)


def _numeric_array(values: Any, name: str) -> Array:
    # scipy.sparse matrices and arrays have toarray(); SciPy itself need not be imported for that.
    try:
        if type(values) is not np.ndarray:
            values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
        if values.dtype.kind == "O":
            # Python's own numbers get NumPy's type for them: labels stay integers.
            values = np.asarray(values.tolist())
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of equal length ({error})") from None
    if values.dtype.kind in "fiub":
        return values
    if values.dtype.kind != "O":
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name}: expected numbers, got objects ({error})") from None


def _convert(values: Array, dtype: np.dtype, name: str) -> Array:
    if values.dtype == dtype and values.flags.c_contiguous:
        return values
    with np.errstate(over="ignore"):
        converted = values.astype(dtype, order="C", copy=False)
    if converted is not values and values.dtype.kind == "f" and values.dtype.itemsize > 4:
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(converted.sum(dtype=np.float64))
        if suspicious and np.isinf(converted).any() and np.isfinite(values).all():
            largest = np.abs(values).max()
            raise ValueError(
                f"{name}: expected numbers that {dtype} can hold, got {largest:g}; "
                "use dtype='float64' or scale the data"
            )
    return converted


def check_finite(values: Array, name: str, first_row: int = 0) -> Array:
    """`values`, where they are finite; ValueError with the place of the first that is not."""
    if not all_finite(values):
        bad = ~np.isfinite(values)
        row, *column = (int(i) for i in np.argwhere(bad)[0])
        where = (first_row + row, *column)
        raise ValueError(
            f"{name}: expected finite numbers, got {values[row, *column]} at {where} "
            f"({int(bad.sum())} in all)"
        )
    return values
