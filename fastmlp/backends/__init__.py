"""Choice of the backend."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

from fastmlp import config
from fastmlp.backends.numpy_backend import NumpyBackend

if TYPE_CHECKING:
    from fastmlp.backends.base import Backend

__all__ = ["compiled_error", "get_backend", "load_compiled"]


@cache
def _numpy() -> Backend:
    return NumpyBackend()


@cache
def _compiled() -> tuple[Backend | None, ImportError | None]:
    try:
        from fastmlp.backends.compiled_backend import CompiledBackend
    except ImportError as error:
        return None, error
    return CompiledBackend(), None


def load_compiled() -> Backend | None:
    """The compiled backend, None where it cannot be imported."""
    return _compiled()[0]


def compiled_error() -> ImportError | None:
    """Why the compiled backend cannot be imported, None where it can."""
    return _compiled()[1]


@cache
def _warn_fallback() -> None:
    warnings.warn(
        f"fastmlp runs on NumPy: its compiled core cannot be imported ({compiled_error()}). "
        "Results are right, training is many times slower.",
        RuntimeWarning,
        stacklevel=5,
    )


def get_backend(name: str = "auto", *, compilable: bool = True) -> Backend:
    """The backend of a name.

    Parameters
    ----------
    name : {"auto", "compiled", "numpy"}
        "auto" asks ``FASTMLP_BACKEND``, and without it takes the compiled core where there is one
        and NumPy, with one warning that says why, where there is none.
    compilable : bool, default True
        False for a network with parts that only NumPy can run (a user's own callables): "auto" then
        takes NumPy, "compiled" is refused.

    Raises
    ------
    ValueError
        For another name, or for "compiled" with parts that only NumPy can run.
    ImportError
        For "compiled" without the compiled core.
    """
    source = "backend"
    if name == "auto":
        name, source = config.requested_backend(), "FASTMLP_BACKEND"
    if name not in ("auto", "compiled", "numpy"):
        raise ValueError(f"{source}: expected 'auto', 'compiled' or 'numpy', got {name!r}")
    if name == "numpy" or (not compilable and (name == "auto" or source == "FASTMLP_BACKEND")):
        return _numpy()
    if not compilable:
        raise ValueError(
            "backend: expected 'auto' or 'numpy' for a network with an activation, a loss or a "
            "layer of your own, which runs on NumPy; got 'compiled'"
        )
    backend = load_compiled()
    if backend is not None:
        return backend
    if name == "compiled":
        raise ImportError(f"{source}: the compiled core cannot be imported: {compiled_error()}")
    _warn_fallback()
    return _numpy()
