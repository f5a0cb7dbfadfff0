"""Results as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fastmlp.bench.distance import FAR
from fastmlp.bench.problems import ON_PURPOSE
from fastmlp.bench.workloads import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastmlp.bench.results import Goal, PeerResult, Run, WorkloadResult

__all__ = ["MOST_OTHER_LOAD", "describe", "in_seconds", "in_units", "table"]


def table(run: Run) -> RenderableType:
    """The machine, a section a workload, and what the columns mean."""
    machine = run.machine
    parts: list[RenderableType] = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['isa'] or 'no compiled core'}",
        ", ".join(f"{name} {version}" for name, version in run.versions.items()),
    ]
    for section in run.workloads:
        parts += ["", Text.assemble((section.workload.name, "bold"), f"  {describe(section)}")]
        parts += [_section(section), *_remarks(section)]
    parts += ["", LEGEND.format(run.repeats)]
    return Group(*parts)


LEGEND = """\
median: of {} turns, in which the peers alternate; ratio: a peer's median divided by fastmlp's;
GFLOP/s: of the matrix products, skipped zeros counted, and its share of the multiply-add peak
measured beside it; accuracy: on the test set after the first epoch, the same work for all."""


MOST_OTHER_LOAD = 0.05


def describe(section: WorkloadResult) -> str:
    """A workload in one line."""
    w = section.workload
    parts = [f"{'-'.join(map(str, section.widths))} {w.activation}"]
    parts.append(f"{w.data}, generated" if section.generated else w.data)
    if w.task is Task.PREDICT:
        parts.append(f"predict {w.rows:,} row{'s' if w.rows > 1 else ''}")
    else:
        batch = "sample by sample" if w.batch_size == 1 else f"batch {w.batch_size}"
        parts += [type(w.optimizer).__name__, batch]
    parts += [f"{w.epochs} epochs"] if w.epochs > 1 else []
    parts.append(f"{section.threads} thread{'s' if section.threads > 1 else ''}")
    parts += [w.dtype] if w.dtype != "float32" else []
    parts += [f"FASTMLP_ISA={w.isa}"] if w.isa else []
    return ", ".join(parts)


def in_units(section: WorkloadResult, *values: float) -> str:
    """Times, or sizes of memory, with three digits and one unit."""
    if section.workload.task is Task.MEMORY:
        return f"{'-'.join(f'{value:.1f}' for value in values)} MB"
    return in_seconds(*values)


def in_seconds(*values: float) -> str:
    """Times with three digits and one unit."""
    units = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    unit = next((unit for unit, scale in units.items() if min(values) >= scale), "us")
    scale = units[unit]
    return f"{'-'.join(_digits(value / scale) for value in values)} {unit}"


def _digits(value: float) -> str:
    """Three digits, or all in front of the point."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _section(section: WorkloadResult) -> Table:
    columns = Table(box=None, header_style="dim", pad_edge=False)
    columns.add_column("", width=18, no_wrap=True)
    peak = f"of {section.peak:.0f}" if section.peak and section.flop else "of peak"
    # The same widths in every section, so that the sections line up.
    for name, width in (
        ("median", 9),
        ("all turns", 14),
        ("ratio", 6),
        ("wanted", 10),
        ("GFLOP/s", 7),
        (peak, 7),
        ("accuracy", 13),
    ):
        columns.add_column(name, justify="right", width=width, no_wrap=True)
    for peer in section.peers:
        if peer.values:
            columns.add_row(peer.label, *_cells(section, peer))
    return columns


def _cells(section: WorkloadResult, peer: PeerResult) -> list[str | Text]:
    ratio, gflops, share = section.ratio(peer), section.gflops(peer), section.share(peer)
    return [
        in_units(section, peer.median),
        in_units(section, min(peer.values), max(peer.values)),
        f"{_digits(ratio)}x" if ratio else "",
        Text(" ").join(_wanted(section, goal) for goal in section.goals(peer)),
        _digits(gflops) if gflops else "",
        f"{share:.0%}" if share else "",
        _score(section, peer),
    ]


def _wanted(section: WorkloadResult, goal: Goal) -> Text:
    texts = {
        "ratio": f"{goal.value:g}x",
        "limit": f"<{in_units(section, goal.value)}",
        "share of peak": f"{goal.value:.0%}",
    }
    return Text(f"{texts[goal.kind]} {'yes' if goal.met else 'no'}", "green" if goal.met else "red")


def _score(section: WorkloadResult, peer: PeerResult) -> Text:
    score = peer.score
    if score is None:
        return Text("")
    text = f"{score.accuracy:.2%}" if score.accuracy is not None else f"error {score.error:.0e}"
    return Text(f"{text} LESS", "red") if section.did_less(peer) else Text(text)


def _remarks(section: WorkloadResult) -> Iterator[Text]:
    texts = []
    for peer in section.peers:
        if peer.skipped:
            texts.append(f"{peer.label} skipped: {peer.skipped}")
        elif peer.slices > 1:
            texts.append(f"{peer.label}: a turn is 1/{peer.slices} of an epoch, scaled up")
        if section.did_less(peer):
            texts.append(f"{peer.label} DID LESS than the others on the same work")
    if (section.other_load or 0) > MOST_OTHER_LOAD:
        texts.append(
            f"other processes took {section.other_load:.0%} of the CPUs meanwhile: repeat it on a "
            "quiet machine"
        )
    far = [distance for distance in section.distances if distance > FAR]
    if far:
        texts.append(
            f"in {len(far)} of {len(section.distances)} turns of several threads the CPUs were far "
            f"from each other: a cache line took {max(far) * 1e9:.0f} ns between them"
        )
    if section.generated not in ("", ON_PURPOSE):
        texts.append(f"generated data of the same shape: {section.generated}")
    return (Text(f"  {text}", "dim") for text in texts)
