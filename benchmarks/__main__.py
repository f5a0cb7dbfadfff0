"""Everything: all workloads with all peers, kernels, estimators, growth.

    python -m benchmarks [FOLDER]

With a folder, results.json, results.png, kernels.json and estimators.json are written there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import bench_estimators, bench_growth
from fastmlp.bench.command import bench


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    bench(
        everything=True,
        json_file=folder / "results.json" if folder else None,
        plot=folder / "results.png" if folder else None,
    )
    bench(kernels=True, json_file=folder / "kernels.json" if folder else None)
    estimators = bench_estimators.to_json(bench_estimators.run())
    if folder:
        (folder / "estimators.json").write_text(json.dumps(estimators))
    sys.argv[1:] = []
    bench_growth.main()


if __name__ == "__main__":
    main()
