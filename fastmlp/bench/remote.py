"""The measuring process's end of a worker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastmlp
from fastmlp.bench.machine import cpus_for
from fastmlp.bench.peers.base import Score

if TYPE_CHECKING:
    from fastmlp.bench.peers import PeerRecord
    from fastmlp.bench.workloads import Workload

__all__ = ["Measurement", "Remote", "SkippedError", "clean_environment", "environment"]


class SkippedError(Exception):
    """Why a peer cannot take part."""


@dataclass(frozen=True)
class Measurement:
    """One turn of one peer: seconds, and the score where this turn gave one."""

    seconds: float
    score: Score | None = None


class Remote:
    """A peer in a process of its own, asleep until it is asked.

    Parameters
    ----------
    workload : Workload
    record : PeerRecord
    n_threads : int
    slices : int
        As in `peers.base.Job`.
    generated : str
        Not empty: generated data, for this reason.
    """

    def __init__(
        self,
        workload: Workload,
        record: PeerRecord,
        n_threads: int,
        slices: int = 1,
        generated: str = "",
    ):
        self.versions: dict[str, str] = {}
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in `close`
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fastmlp.bench.worker"],
            env=environment(n_threads, workload.isa),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
        )
        settings = {
            "workload": workload.name,
            "peer": record.name,
            "threads": n_threads,
            "cpus": cpus_for(n_threads),
            "slices": slices,
            "generated": generated,
        }
        self._say(json.dumps(settings))

    def wait_until_ready(self) -> None:
        """Returns when the peer has imported, compiled and loaded everything.

        Raises
        ------
        SkippedError
            Where it cannot.
        """
        answer = self._answer()
        if "skipped" in answer:
            raise SkippedError(answer["skipped"])
        self.versions = answer["ready"]

    def measure(self) -> Measurement:
        self._say("go")
        answer = self._answer()
        score = answer["score"]
        return Measurement(answer["seconds"], Score(**score) if score else None)

    def peak(self) -> float | None:
        """GFLOP/s of the peer's threads, see `bench.peak`."""
        self._say("peak")
        gflops: float | None = self._answer()["gflops"]
        return gflops

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.complaints.close()

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` finds no answer, and says why
            print(line, file=self.process.stdin, flush=True)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.complaints.seek(0)
            last = self.complaints.read().strip().splitlines()[-1:] or ["without a word"]
            raise SkippedError(f"its process ended: {last[0]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


GRACE = 5.0  # seconds to end in


def clean_environment() -> dict[str, str]:
    """Of a child that runs this fastmlp and chooses kernels and threads by itself."""
    folders = [str(Path(fastmlp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {name: value for name, value in os.environ.items() if name not in OURS}
    return own | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


def environment(n_threads: int, isa: str | None) -> dict[str, str]:
    """Of a child that may use so many threads, whichever library it uses."""
    own = clean_environment()
    threads = {f"{name}_NUM_THREADS": str(n_threads) for name in POOLS}
    # jax asks for its threads by the CPUs it may use; with one, its products need no pool either.
    if n_threads == 1:
        own["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return {**own, **threads, **({"FASTMLP_ISA": isa} if isa else {})}


# And what would keep NumPy's BLAS from its best kernels for this CPU.
OURS = ("FASTMLP_BACKEND", "FASTMLP_ISA", "FASTMLP_NUM_THREADS", "OPENBLAS_CORETYPE")
POOLS = ("FASTMLP", "OMP", "OPENBLAS", "MKL", "VECLIB", "NUMEXPR")
