"""Whole processes, from start to exit: their time, or their memory. The programs: `programs`."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from fastmlp.bench.peers.base import Score
from fastmlp.bench.remote import Measurement, SkippedError, environment
from fastmlp.bench.workloads import Task, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastmlp.bench.peers import PeerRecord
    from fastmlp.bench.problems import Problem

__all__ = ["Program", "raw_files"]

MOST_EPOCHS = 20


class Program:
    """A peer's program; each measurement is one run of it, from another seed.

    Another, because it is the seed that decides whether an accuracy takes an epoch more.

    Same interface as `remote.Remote`.

    Parameters
    ----------
    workload : Workload
    record : PeerRecord
    n_threads : int
    folder : Path
        As `raw_files` gives it.
    """

    def __init__(self, workload: Workload, record: PeerRecord, n_threads: int, folder: Path):
        self.workload = workload
        self.versions: dict[str, str] = {}
        self.environment = environment(n_threads, workload.isa)
        epochs = 1 if workload.task is Task.MEMORY else MOST_EPOCHS
        self.command = [
            *(sys.executable, "-P", str(FOLDER / f"{record.program}.py")),
            *(str(folder), str(workload.accuracy), str(epochs), str(n_threads)),
        ]
        self.seed = 0
        self.data_bytes = sum(file.stat().st_size for file in (folder / "mnist").iterdir())

    def wait_until_ready(self) -> None:
        if self.workload.task is Task.MEMORY and not Path("/proc/self/status").exists():
            raise SkippedError("this system does not tell the peak memory of a process")

    def measure(self) -> Measurement:
        with tempfile.TemporaryFile("w+") as complaints:
            began = perf_counter()
            process = subprocess.Popen(
                [*self.command, str(self.seed)],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
            )
            with process:
                assert process.stdin is not None
                assert process.stdout is not None
                if self.workload.task is not Task.MEMORY:
                    process.stdin.close()
                answer = process.stdout.readline()
                peak = _peak_bytes(process.pid)
                process.stdin.close()
                process.wait()
                seconds = perf_counter() - began
            self.seed += 1
            if not answer:
                complaints.seek(0)
                last = complaints.read().strip().splitlines()[-1:] or ["without a word"]
                raise SkippedError(f"its process ended: {last[0]}")
        score = Score(**json.loads(answer))
        if self.workload.task is Task.MEMORY:
            return Measurement((peak - self.data_bytes) / 1e6, score)
        return Measurement(seconds, score)

    def peak(self) -> None:
        return None

    def close(self) -> None:
        """Nothing runs between measurements."""


FOLDER = Path(__file__).parent / "programs"


def _peak_bytes(pid: int) -> int:
    """Largest resident memory of a process so far; 0 where that cannot be told.

    Not getrusage: its figure counts what the process was before it became this program.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return sizes[0] if sizes else 0


@contextmanager
def raw_files(problem: Problem) -> Iterator[Path]:
    """A folder with the images as raw IDX files under their official names.

    Raw, so that all programs read the same bytes: unpacking would take a quarter of the time.
    """
    arrays = {
        "train-images-idx3-ubyte": problem.X.reshape(-1, 28, 28),
        "train-labels-idx1-ubyte": problem.y,
        "t10k-images-idx3-ubyte": problem.X_test.reshape(-1, 28, 28),
        "t10k-labels-idx1-ubyte": problem.y_test,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mnist").mkdir()
        for filename, array in arrays.items():
            head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
            (folder / "mnist" / filename).write_bytes(head + array.astype(np.uint8).tobytes())
        yield folder
