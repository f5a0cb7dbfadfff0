"""Rounds in which the peers take turns: whatever slows the machine slows all of them alike."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from fastmlp import config
from fastmlp.bench.distance import bring_near
from fastmlp.bench.machine import OtherLoad, cpus_for, describe_machine, keep_busy, versions
from fastmlp.bench.peers import PEERS, PeerRecord
from fastmlp.bench.problems import load_problem
from fastmlp.bench.remote import Remote, SkippedError
from fastmlp.bench.results import PeerResult, Run, WorkloadResult
from fastmlp.bench.whole_process import Program, raw_files
from fastmlp.bench.workloads import WORKLOADS, Task, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PATIENCE", "PAUSE", "run"]

Participant = Remote | Program

PAUSE = 0.2
"""Seconds before each turn, in which every CPU is kept busy: OpenBLAS's threads go on spinning for
90 ms after their work, and CPUs that have slept are slow, see `keep_busy`."""

PATIENCE = 2.0
"""Seconds before a turn of several threads in which CPUs far from each other may come near."""


def run(
    workloads: Sequence[str],
    peers: Sequence[str] | None = None,
    *,
    threads: int | None = None,
    repeats: int = 5,
    whole_epochs: bool = False,
    slow: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """Measure.

    Parameters
    ----------
    workloads : sequence of str
        Names in `WORKLOADS`.
    peers : sequence of str or None, default None
        Names in `PEERS`; None takes all that a workload knows, but the slow ones.
    threads : int or None, default None
        Instead of a workload's own number.
    repeats : int, default 5
        Turns of each peer, after one that does not count.
    whole_epochs : bool, default False
        Never cut an epoch into slices.
    slow : bool, default False
        With `peers` None, the slow ones too.
    say : callable, default silent
        Told what is being done.

    Returns
    -------
    Run
    """
    result = Run(describe_machine(), versions(), repeats)
    for name in workloads:
        workload = WORKLOADS[name]
        if peers is None:
            left_out = [peer for peer in workload.peers if not PEERS[peer].quick] + [*workload.slow]
            wanted = [peer for peer in workload.peers if slow or peer not in left_out]
        else:
            wanted = [peer for peer in workload.peers if peer in peers]
        section = _new_section(workload, threads)
        result.workloads.append(section)
        load = OtherLoad()
        _measure(section, [PEERS[name] for name in wanted], repeats, whole_epochs, say, result)
        section.other_load = load.share()
    return result


def _new_section(workload: Workload, threads: int | None) -> WorkloadResult:
    problem = load_problem(workload.data, workload.dtype, pixels=True)
    shape = problem.n_inputs, problem.n_outputs
    n_samples = len(problem.X)
    return WorkloadResult(
        workload,
        workload.widths(*shape),
        n_samples,
        problem.generated,
        min(threads or workload.threads, config.available_cpus()),
        flop=workload.flop(*shape, n_samples),
    )


def _measure(
    section: WorkloadResult,
    records: Sequence[PeerRecord],
    repeats: int,
    whole_epochs: bool,
    say: Callable[[str], None],
    run: Run,
) -> None:
    workload = section.workload
    turns: list[tuple[Participant, PeerResult]] = []
    with ExitStack() as at_end:
        programs = workload.task in (Task.START, Task.MEMORY)
        if programs:
            problem = load_problem(
                workload.data, workload.dtype, pixels=True, generated=section.generated
            )
            folder = at_end.enter_context(raw_files(problem))
        for record in records:
            n_threads = min(record.threads or section.threads, section.threads)
            slices = 1 if whole_epochs else workload.slices.get(record.name, 1)
            peer = PeerResult(record.name, record.label, n_threads, slices=slices)
            section.peers.append(peer)
            peer.skipped = record.missing()
            if peer.skipped:
                continue
            participant: Participant
            if programs:
                participant = Program(workload, record, n_threads, folder)
            else:
                participant = Remote(workload, record, n_threads, slices, section.generated)
            at_end.callback(participant.close)
            turns.append((participant, peer))
        for participant, peer in list(turns):
            say(f"{workload.name}: waiting for {peer.label}")
            try:
                participant.wait_until_ready()
            except SkippedError as reason:
                peer.skipped = str(reason)
                turns.remove((participant, peer))
            run.versions.update(participant.versions)
        _take_turns(section, turns, repeats, say)


def _take_turns(
    section: WorkloadResult,
    turns: list[tuple[Participant, PeerResult]],
    repeats: int,
    say: Callable[[str], None],
) -> None:
    # fastmlp's process measures the peak as well, before and again after.
    judges = [participant for participant, peer in turns if peer.peer == "fastmlp"]
    peaks = [_peak(judge) for judge in judges]
    turn = 0
    while turns and (turn <= repeats or any(peer.score is None for _, peer in turns)):
        for participant, peer in list(turns):
            if turn > repeats and peer.score is not None:
                continue
            say(f"{section.workload.name}: {peer.label}, turn {turn} of {repeats}")
            distance = bring_near(cpus_for(peer.threads)[:2], PATIENCE)
            section.distances += [distance] if turn and distance else []
            keep_busy(PAUSE)
            try:
                measurement = participant.measure()
            except SkippedError as reason:
                peer.values, peer.skipped = [], str(reason)
                turns.remove((participant, peer))
                continue
            peer.score = peer.score or measurement.score
            if turn:  # the first one warms up
                peer.values.append(measurement.seconds)
        turn += 1
    peaks += [_peak(judge) for judge in judges]
    section.peak = max((peak for peak in peaks if peak), default=None)


def _peak(judge: Participant) -> float | None:
    """None also where its process has ended; whoever asks it for its turn hears why."""
    with suppress(SkippedError):
        return judge.peak()
    return None
