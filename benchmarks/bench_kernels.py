"""Every kernel of the compiled backend against NumPy, one call each, on one thread.

python benchmarks/bench_kernels.py [REPEATS]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where fastmlp is built in place, not installed

from rich.console import Console

from fastmlp.bench.kernels import kernel_table, run_kernels


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    Console(highlight=False).print(kernel_table(run_kernels(repeats)))


if __name__ == "__main__":
    main()
