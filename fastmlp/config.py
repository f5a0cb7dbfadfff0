"""The only reader of the environment, and the rule that chooses the number of threads.

==========================  ===========================================================
``FASTMLP_BACKEND``         ``auto`` (default), ``compiled`` or ``numpy``
``FASTMLP_ISA``             ``baseline``, ``avx2``, ``avx512`` or ``neon``; default: the best
``FASTMLP_NUM_THREADS``     upper bound on the threads of a fit or a prediction
``FASTMLP_DATA``            folder that holds data sets (``mnist/``, ``fashion_mnist/``)
==========================  ===========================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from time import monotonic

__all__ = [
    "data_folder",
    "limited_threads",
    "requested_backend",
    "requested_isa",
    "set_num_threads",
]

_requested_threads: int | None = None
# Of the code inside `limited_threads`, in this Python thread alone.
_thread_limit: ContextVar[int | None] = ContextVar("fastmlp_threads", default=None)


def requested_backend() -> str:
    """Value of ``FASTMLP_BACKEND``, "auto" where it is not set."""
    return os.environ.get("FASTMLP_BACKEND") or "auto"


def requested_isa() -> str | None:
    """Value of ``FASTMLP_ISA``, None where it is not set."""
    return os.environ.get("FASTMLP_ISA") or None


def data_folder() -> Path | None:
    """Folder named by ``FASTMLP_DATA``, None where it is not set."""
    value = os.environ.get("FASTMLP_DATA")
    return Path(value).expanduser() if value else None


def set_num_threads(n: int | None) -> None:
    """Set the largest number of threads that one call may use.

    Parameters
    ----------
    n : int or None
        At least 1. None goes back to ``FASTMLP_NUM_THREADS``, else to OpenMP's own limit.

    Raises
    ------
    TypeError, ValueError
        Where `n` is no integer, or below 1.
    """
    global _requested_threads
    if n is not None:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n: expected an integer or None, got {type(n).__name__}")
        n = n.__index__()
        if n < 1:
            raise ValueError(f"n: expected at least 1 thread, got {n}")
    _requested_threads = n


@contextmanager
def limited_threads(n: int | None) -> Iterator[None]:
    """Within it, calls made by this Python thread use at most `n` threads.

    None changes nothing; a number below 0 counts from the CPUs as joblib does: -1 is all of them,
    -2 all but one.
    """
    if n is not None and n < 0:
        n = max(1, available_cpus() + 1 + n)
    token = _thread_limit.set(_thread_limit.get() if n is None else n)
    try:
        yield
    finally:
        _thread_limit.reset(token)


def thread_limit(openmp_limit: int) -> int:
    """Threads that a call may use now.

    The first of these that is set: `limited_threads`, `set_num_threads`, ``FASTMLP_NUM_THREADS``,
    OpenMP's own limit (which ``OMP_NUM_THREADS``, threadpoolctl and joblib's workers set); and
    never more than the process's CPUs.
    """
    limit = _thread_limit.get()
    if limit is None:
        limit = _requested_threads
    if limit is None:
        limit = _threads_from_environment()
    if limit is None:
        limit = openmp_limit
    return max(1, min(limit, available_cpus()))


def available_cpus() -> int:
    """CPUs that this process may keep busy: its affinity mask, cut by its cgroup's quota."""
    has_mask = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    quota = _quota_in(int(monotonic()))
    return max(1, min(cpus, quota)) if quota is not None else cpus


@lru_cache(maxsize=1)
def _quota_in(second: int) -> int | None:
    """The quota, read once a second: the files of every level take half a millisecond."""
    return _cgroup_quota()


def _threads_from_environment() -> int | None:
    value = os.environ.get("FASTMLP_NUM_THREADS")
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"FASTMLP_NUM_THREADS: expected a whole number from 1, got {value!r}")
    return int(value)


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """CPU quota of this process's control group, rounded up; None where there is no limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files (``cpu.max``) and, for
    version 1, ``cpu.cfs_quota_us``. A limit may stand at any level above the process's own group.
    """
    limits = []
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group = root / path.lstrip("/")
        elif "cpu" in controllers.split(","):
            group = root / "cpu" / path.lstrip("/")
        else:
            continue
        for folder in (group, *group.parents):
            limit = _quota_of(folder)
            if limit is not None:
                limits.append(limit)
            if folder == root:
                break
    return min(limits, default=None)


def _quota_of(folder: Path) -> int | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None
