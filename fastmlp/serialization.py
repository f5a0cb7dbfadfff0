"""Model files: safetensors with a JSON description in the header.

https://github.com/huggingface/safetensors#format. Reading one runs no code; sizes are checked
against the file before anything is allocated. Writing is atomic.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.architecture import Architecture
from fastmlp.arena import Arena
from fastmlp.training_state import TrainingState

__all__ = ["check_writable", "load_model", "save_model", "write_atomically"]

FORMAT_VERSION = 1


def save_model(
    path: str | os.PathLike[str],
    architecture: Architecture,
    parameters: Arena,
    metadata: Mapping[str, Any],
    training: TrainingState | None = None,
) -> None:
    """Write a model file. OSError where that is not possible; an old file then stays as it was."""
    from safetensors.numpy import save

    names = [segment.name for segment in parameters.segments]
    tensors = dict(zip(names, map(np.ascontiguousarray, parameters.views), strict=True))
    try:
        user = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata: expected what JSON can hold ({error})") from None
    header = {
        "format": "fastmlp",
        "version": str(FORMAT_VERSION),
        "architecture": json.dumps(architecture.to_dict()),
        "metadata": user,
    }
    if training is not None:
        header["training"], more = training.to_file()
        tensors |= more
    write_atomically(path, save(tensors, header))


def load_model(
    path: str | os.PathLike[str], custom: Mapping[str, Any]
) -> tuple[Architecture, Arena, dict[str, Any], TrainingState | None]:
    """Architecture, parameters, metadata and, where it is there, training of a model file.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where it is damaged, not of this package, of a newer version, or not finite.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    # Gives the usual errors for a missing file, a folder, a file that one may not read.
    with path.open("rb"):
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            architecture, metadata = _description(header, custom)
            others = [name for name in file.keys() if name.startswith(("moments.", "callbacks."))]  # noqa: SIM118
            if "training" not in header:
                others = []
            own = set(file.keys()) - set(others)
            _check_shapes(architecture, {name: file.get_slice(name) for name in own})
            parameters = architecture.new_parameters()
            for segment, view in zip(parameters.segments, parameters.views, strict=True):
                view[...] = file.get_tensor(segment.name)
            training = None
            if "training" in header:
                more = {name: file.get_tensor(name) for name in others}
                training = _training(header["training"], more, parameters, custom)
    except SafetensorError as error:
        raise ValueError(f"{path}: no model file, or a damaged one ({error})") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not np.isfinite(parameters.flat).all():
        raise ValueError(f"{path}: expected finite parameters")
    return architecture, parameters, metadata, training


def _training(
    text: str, tensors: Mapping[str, np.ndarray], parameters: Arena, custom: Mapping[str, Any]
) -> TrainingState:
    try:
        return TrainingState.from_file(text, tensors, parameters, custom)
    except (
        *(json.JSONDecodeError, RecursionError, KeyError, IndexError),
        *(TypeError, AttributeError, OverflowError),
    ) as error:
        raise ValueError(f"the description of the training is damaged ({error!r})") from None


def _description(
    header: Mapping[str, str], custom: Mapping[str, Any]
) -> tuple[Architecture, dict[str, Any]]:
    if header.get("format") != "fastmlp":
        raise ValueError("a safetensors file, but not one of fastmlp's models")
    version = header.get("version", "")
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"model file version {version!r}; this fastmlp reads version {FORMAT_VERSION}"
        )
    try:
        description = json.loads(header["architecture"])
        metadata = json.loads(header["metadata"])
    except (json.JSONDecodeError, RecursionError, KeyError) as error:
        raise ValueError(f"the description in the header is damaged ({error})") from None
    if not isinstance(metadata, dict):
        raise ValueError("the description in the header is damaged (metadata)")
    try:
        return Architecture.from_dict(description, custom), metadata
    except KeyError as error:
        raise ValueError(f"the description in the header lacks {error}") from None


def _check_shapes(architecture: Architecture, tensors: Mapping[str, Any]) -> None:
    expected = {name: shape for name, shape, *_ in architecture.shapes}
    code = {"float32": "F32", "float64": "F64"}[architecture.dtype.name]
    if set(tensors) != set(expected):
        raise ValueError(f"expected the arrays {sorted(expected)}, found {sorted(tensors)}")
    for name, shape in expected.items():
        found = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
        if found != (shape, code):
            raise ValueError(
                f"array {name}: expected {shape} of {code}, found {found[0]} of {found[1]}"
            )


def check_writable(path: str | os.PathLike[str]) -> None:
    """OSError where `write_atomically` could not write to `path`, as far as that shows before."""
    path = Path(path).resolve()
    if path.exists() and not path.is_file():  # the rename would replace a device, too
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path.parent)) from None


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write to a temporary name in the same folder, sync, rename over `path`.

    Whenever this is interrupted, `path` holds the whole old content or the whole new one. A link
    stays a link; what is there and no regular file (a device, a folder) is an OSError.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            # mkstemp makes files that only their owner may read.
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
            Path(name).chmod(mode)
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 (tests let it fail)
    except BaseException:
        Path(name).unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    """The process's umask, which can be read only by setting it."""
    value = os.umask(0o077)
    os.umask(value)
    return value
