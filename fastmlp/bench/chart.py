"""Results as horizontal bars, for a talk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastmlp.bench.table import describe, in_units
from fastmlp.bench.workloads import Task

if TYPE_CHECKING:
    from pathlib import Path

    from fastmlp.bench.results import PeerResult, Run, WorkloadResult

__all__ = ["draw"]

# Okabe and Ito's vermilion against greys: distinct to all eyes, and as light against dark in print.
OURS, VARIANT, PEER = "#D55E00", "#E9A66B", "#8C96A0"
TEXT, FAINT = "#222222", "#666666"

ROW = 0.30  # inches a bar
HEAD = 0.62  # inches above the bars of a workload


def draw(run: Run, path: Path) -> None:
    """Write one chart of all workloads that were measured.

    Parameters
    ----------
    run : Run
        Workloads without a measurement are left out.
    path : Path
        Its suffix says the format: png, svg, pdf.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        Nothing was measured, or the suffix is not known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = [section for section in run.workloads if any(p.values for p in section.peers)]
    if not sections:
        raise ValueError("nothing was measured: there is nothing to draw")
    bars = [_ordered(section) for section in sections]
    columns = 2 if len(sections) > 3 else 1
    left, right = _balanced(bars, columns)
    tallest = max(_height(bars, column) for column in (left, right))
    margin = 0.6
    figure = Figure(figsize=(7.2 * columns, tallest + margin), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    total = tallest + margin
    for x, column in enumerate((left, right)[:columns]):
        top = total - 0.1
        for i in column:
            height = ROW * len(bars[i])
            top -= HEAD
            width = 1 / columns
            box = (
                x * width + 1.65 / (7.2 * columns),
                (top - height) / total,
                width - 2.75 / (7.2 * columns),
                height / total,
            )
            _draw_section(figure.add_axes(box), sections[i], bars[i])
            top -= height
    machine = run.machine
    figure.text(
        0.15 / (7.2 * columns),
        0.12 / total,
        f"{machine['cpu']}, {machine['cores']} cores, {machine['isa'] or 'no compiled core'}. "
        f"Medians of {run.repeats} turns; whiskers: all turns. Shorter is better.",
        fontsize=8,
        color=FAINT,
    )
    figure.savefig(path)


def _ordered(section: WorkloadResult) -> list[PeerResult]:
    measured = [peer for peer in section.peers if peer.values]
    return sorted(measured, key=lambda peer: peer.median)


def _height(bars: list[list[PeerResult]], column: list[int]) -> float:
    return sum(HEAD + ROW * len(bars[i]) for i in column)


def _balanced(bars: list[list[PeerResult]], columns: int) -> tuple[list[int], list[int]]:
    """Workloads of the left and of the right column, in order, the columns about equally high."""
    indices = list(range(len(bars)))
    if columns == 1:
        return indices, []
    splits = [(indices[:k], indices[k:]) for k in range(1, len(bars))]
    return min(splits, key=lambda pair: max(_height(bars, column) for column in pair))


def _draw_section(axes: Any, section: WorkloadResult, peers: list[PeerResult]) -> None:
    values = [peer.median for peer in peers]
    positions = range(len(peers))
    colors = [_color(peer) for peer in peers]
    spread = [
        [peer.median - min(peer.values) for peer in peers],
        [max(peer.values) - peer.median for peer in peers],
    ]
    whiskers = {"ecolor": TEXT, "elinewidth": 0.8, "capsize": 1.8}
    axes.barh(positions, values, height=0.74, color=colors, xerr=spread, error_kw=whiskers)
    axes.invert_yaxis()
    axes.set_yticks(positions, [peer.label for peer in peers], fontsize=9)
    for tick, peer in zip(axes.get_yticklabels(), peers, strict=True):
        tick.set_color(TEXT)
        tick.set_fontweight("bold" if peer is section.ours else "normal")
    longest = max(max(peer.values) for peer in peers)
    axes.set_xlim(0, longest * 1.02)
    for position, peer in enumerate(peers):
        ratio = section.ratio(peer)
        # A ratio of about 1 says nothing; of bars too short to see it says everything.
        times = f"   {_times(ratio)}" if ratio and peer.peer not in OWN else ""
        axes.annotate(
            f"{in_units(section, peer.median)}{times}",
            (max(peer.values), position),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=TEXT,
            annotation_clip=False,
            fontweight="bold" if peer is section.ours else "normal",
        )
    axes.set_title(
        _title(section), loc="left", x=0, fontsize=10.5, fontweight="bold", color=TEXT, pad=16
    )
    axes.text(
        0, 1, describe(section), transform=axes.transAxes, fontsize=8, color=FAINT, va="bottom",
    )  # fmt: skip
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


OWN = ("fastmlp", "fastmlp-1", "fastmlp-uint8")


def _color(peer: PeerResult) -> str:
    if peer.peer == "fastmlp":
        return OURS
    return VARIANT if peer.peer in OWN else PEER


def _times(ratio: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(ratio)))
    return f"{ratio:.{min(digits, 2)}f}x"


def _title(section: WorkloadResult) -> str:
    name, task = section.workload.name, section.workload.task
    kinds = {
        Task.EPOCH: f"an epoch of {section.n_samples:,} samples",
        Task.FIT: "a whole fit",
        Task.PREDICT: "one call",
        Task.START: f"whole process to {section.workload.accuracy:.0%}",
        Task.MEMORY: "peak memory over the data",
    }
    return f"{name}: {kinds[task]}"
