"""The command ``fastmlp bench``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastmlp.bench.peers import PEERS
from fastmlp.bench.workloads import QUICK, WORKLOADS
from fastmlp.serialization import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

__all__ = ["bench"]

STANDARD_OUTPUT = Path("-")


def bench(
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload", "-w", metavar="NAME", help=f"May be repeated; default {', '.join(QUICK)}."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", "-p", metavar="NAME", help="Beside fastmlp; may be repeated."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All workloads and peers, whole epochs: half an hour.")
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Kernel by kernel against NumPy, instead of workloads."),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="For all peers; default: the workload's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of each peer.")] = 5,
    whole_epochs: Annotated[
        bool, typer.Option("--whole-epochs", help="Also where a peer takes many seconds for one.")
    ] = False,
    list_names: Annotated[bool, typer.Option("--list", help="Show workloads and peers.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write JSON here; - is the terminal."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the results as bars.")
    ] = None,
) -> None:
    """Measure fastmlp against other libraries, on the same work, in one run.

    They take turns, each in its own process; a library that is not installed is left out.

    \b
    fastmlp bench
    fastmlp bench --workload digits --peer sklearn
    fastmlp bench --all --json results.json --plot results.png
    """  # noqa: D301  the backslash is typer's
    # Not above: every other command would load them too.
    from fastmlp.bench.measuring import run
    from fastmlp.bench.table import table
    from fastmlp.bench.terminal import status_line, wide_console

    # Standard output is kept for the JSON where that goes there.
    console = wide_console(stderr=json_file == STANDARD_OUTPUT)
    if list_names:
        console.print(_names())
        return
    _check_names(workload, WORKLOADS, "--workload")
    _check_names(peer, PEERS, "--peer")
    if plot is not None:
        _check_drawable(plot)
    if kernels:
        _bench_kernels(console, repeats, json_file)
        return
    with status_line() as say:
        result = run(
            workload or (list(WORKLOADS) if everything else QUICK),
            ["fastmlp", *peer] if peer else None,
            threads=threads,
            repeats=repeats,
            whole_epochs=whole_epochs or everything,
            slow=everything,
            say=say,
        )
    console.print(table(result))
    _write_json(json_file, result.to_dict())
    if plot is not None:
        from fastmlp.bench.chart import draw

        draw(result, plot)


def _bench_kernels(console: Console, repeats: int, json_file: Path | None) -> None:
    from fastmlp.backends import compiled_error
    from fastmlp.bench.kernels import kernel_table, run_kernels
    from fastmlp.bench.terminal import status_line

    if compiled_error() is not None:
        raise typer.BadParameter(
            f"the compiled core cannot be imported: {compiled_error()}", param_hint="--kernels"
        )
    with status_line() as say:
        say("kernels")
        results = run_kernels(repeats)
    console.print(kernel_table(results))
    _write_json(json_file, {"schema": 1, "kernels": [result.to_dict() for result in results]})


def _names() -> Table:
    from rich.table import Table

    columns = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("workload", "what", "peers"):
        columns.add_column(name)
    for name, workload in WORKLOADS.items():
        hidden = "-".join(map(str, workload.hidden))
        what = f"{workload.task}, {workload.data}, {hidden} {workload.activation}"
        columns.add_row(name, what, ", ".join(workload.peers))
    columns.add_row()
    columns.add_row("[bold]peer[/]", "[bold]form[/]", "[bold]here[/]")
    for name, record in PEERS.items():
        columns.add_row(name, record.form, record.missing() or "yes")
    return columns


def _check_names(names: Sequence[str] | None, known: dict[str, Any], option: str) -> None:
    for name in names or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}.", param_hint=option)


def _check_drawable(path: Path) -> None:
    """Before minutes are spent: whether the chart can be drawn and written."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise typer.BadParameter("needs matplotlib, which is not installed.", param_hint="--plot")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{path}: expected .png, .svg or .pdf.", param_hint="--plot")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no such folder.", param_hint="--plot")


def _write_json(path: Path | None, document: dict[str, Any]) -> None:
    if path is None:
        return
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if path == STANDARD_OUTPUT:
        sys.stdout.write(text)
    else:
        write_atomically(path, text.encode())
