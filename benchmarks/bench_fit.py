"""Sample by sample and batch by batch against PyTorch and NumPy, in one run, with floors.

python benchmarks/bench_fit.py [REPEATS]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where fastmlp is built in place, not installed

from fastmlp.bench.measuring import run
from fastmlp.bench.table import table
from fastmlp.bench.terminal import status_line, wide_console

FLOORS = {"per-sample": 60.0, "minibatch": 1.5}
"""Ratios to PyTorch, eager with a fused optimizer, below which something is broken."""


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    console = wide_console()
    with status_line() as say:
        result = run(list(FLOORS), ["fastmlp", "torch", "numpy"], repeats=repeats, say=say)
    console.print(table(result))
    failed = 0
    for section in result.workloads:
        floor = FLOORS[section.workload.name]
        torch = next(peer for peer in section.peers if peer.peer == "torch")
        ratio = section.ratio(torch)
        if ratio is None:
            console.print(f"{section.workload.name}: no ratio, PyTorch was not measured")
            continue
        did_less = any(section.did_less(peer) for peer in section.peers)
        passed = ratio >= floor and not did_less
        failed += not passed
        verdict = "passed" if passed else "FAILED"
        console.print(f"{section.workload.name}: {ratio:.2f}x PyTorch, floor {floor:g}x: {verdict}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
