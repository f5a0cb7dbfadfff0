"""The machine that a result belongs to, and which of its processors a measurement gets."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastmlp import config, runtime

__all__ = ["cpus_for", "describe_machine", "versions"]


def describe_machine() -> dict[str, Any]:
    """Processor, cores and system: nothing that names a host."""
    configuration = runtime.configuration()
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": len(_one_per_core(_allowed())),
        "cpus": config.available_cpus(),
        "system": f"{platform.system()} {platform.release()}",
        "isa": configuration.get("instruction set"),
        "openmp": configuration.get("openmp"),
    }


def versions() -> dict[str, str]:
    """Of Python and of what fastmlp stands on; peers add their own."""
    known = {"python": platform.python_version()}
    for name in ("fastmlp", "numpy", "scikit-learn"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = runtime.configuration().get(name, "not installed")
    return known


def cpus_for(n_threads: int) -> list[int]:
    """CPUs for a measurement with so many threads, the same for every peer.

    One of each core, as far as there are cores. From the last one down: the first one serves most
    interrupts, and the measuring process.
    """
    allowed = _allowed()
    first = _one_per_core(allowed)
    return [*reversed(first), *(cpu for cpu in allowed if cpu not in first)][:n_threads]


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _one_per_core(cpus: list[int]) -> list[int]:
    seen, first = set(), []
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            core = siblings.read_text()
        except OSError:
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            first.append(cpu)
    return first


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    model = fields.get("model name", platform.processor() or platform.machine())
    family = ", ".join(
        f"{name.removeprefix('cpu ')} {fields[name]}"
        for name in ("cpu family", "model")
        if name in fields
    )
    return f"{model} ({family})" if family else model
