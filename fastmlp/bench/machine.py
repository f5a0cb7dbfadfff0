"""The machine that a result belongs to, its processors for a measurement, kept awake."""

from __future__ import annotations

import hashlib
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from fastmlp import config, runtime

__all__ = ["OtherLoad", "cpus_for", "describe_machine", "keep_busy", "versions"]


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


def keep_busy(seconds: float) -> None:
    """Let every CPU that this process may use work for so long.

    A host often puts virtual CPUs that wake up on one core together, and finds them another one
    only after some 50 ms of work: until then two threads are as fast as one.
    """
    end = perf_counter() + seconds

    def work(_: int) -> None:
        while perf_counter() < end:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1000)  # without Python's lock, 0.3 ms

    cpus = len(_allowed())
    with ThreadPoolExecutor(cpus) as pool:
        list(pool.map(work, range(cpus)))


class OtherLoad:
    """What other processes, and other guests of the same host, take of the CPUs from now on."""

    def __init__(self) -> None:
        self.began = perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Of all CPUs until now, 0 to 1; None where the system does not tell.

        Children count as others until they have ended.
        """
        began, busy_before, own_before = self.began
        busy = _busy_seconds()
        if busy is None or busy_before is None:
            return None
        others = (busy - busy_before) - (_own_seconds() - own_before)
        return max(0.0, others / ((perf_counter() - began) * (os.cpu_count() or 1)))


def _busy_seconds() -> float | None:
    """CPU time of everything since the system started, what other guests stole included.

    https://docs.kernel.org/filesystems/proc.html, 1.7: user, nice, system, idle, iowait, irq,
    softirq, steal.
    """
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])


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
