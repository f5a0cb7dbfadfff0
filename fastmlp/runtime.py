"""What was built and what runs: `show_config`, `get_num_threads`."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from fastmlp import config
from fastmlp.backends import compiled_error, get_backend, load_compiled
from fastmlp.version import __version__

__all__ = ["configuration", "get_num_threads", "show_config"]


def get_num_threads() -> int:
    """Threads that a fit or prediction started now may use; small work takes fewer."""
    return get_backend().thread_limit()


def configuration() -> dict[str, Any]:
    """What `show_config` prints, as a dict that JSON can hold."""
    compiled = load_compiled()
    core: dict[str, Any]
    if compiled is None:
        core = {"compiled core": f"not available ({compiled_error()})"}
    else:
        core = {"compiled core": "available", **compiled.describe()}  # type: ignore[attr-defined]
    return {
        "fastmlp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "backend": get_backend().name,
        **core,
        "threads": get_num_threads(),
        "cpus available": config.available_cpus(),
    }


def show_config() -> None:
    """Print versions, the backend and instruction set that run, OpenMP and threads."""
    for name, value in configuration().items():
        print(f"{name + ':':<24}{', '.join(value) if isinstance(value, list) else value}")
