"""Every kernel of the compiled backend against NumPy, one call each, on one thread.

python benchmarks/bench_kernels.py [REPEATS]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where fastmlp is built in place, not installed

from fastmlp.bench.kernels import kernel_table, run_kernels
from fastmlp.bench.terminal import wide_console


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    wide_console().print(kernel_table(run_kernels(repeats)))


if __name__ == "__main__":
    main()
