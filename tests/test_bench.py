"""The benchmark: that it measures what it says. Nothing here depends on how fast anything is."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import platform

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from fastmlp.backends import load_compiled
from fastmlp.bench import distance, measuring, worker
from fastmlp.bench.command import bench
from fastmlp.bench.distance import FAR, bring_near, measure_distance
from fastmlp.bench.kernels import kernel_table, run_kernels
from fastmlp.bench.machine import OtherLoad, cpus_for, describe_machine
from fastmlp.bench.peak import measure_peak
from fastmlp.bench.peers import PEERS
from fastmlp.bench.peers.base import Job, Score
from fastmlp.bench.problems import PROBLEMS, Problem, load_problem
from fastmlp.bench.remote import (
    OURS,
    Measurement,
    Remote,
    SkippedError,
    clean_environment,
    environment,
)
from fastmlp.bench.results import PeerResult, Run, WorkloadResult
from fastmlp.bench.table import in_units, table
from fastmlp.bench.whole_process import Program, raw_files
from fastmlp.bench.workloads import QUICK, WORKLOADS, Task

needs_compiled = pytest.mark.skipif(load_compiled() is None, reason="needs the compiled core")

DIGITS = WORKLOADS["digits"]


def text_of(renderable, width=100):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def small_problem(rows=300):
    """Images of 28x28 that are quickly written and learned."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (rows, 784), dtype=np.uint8)
    y = np.arange(rows) % 10
    return Problem(X, y, X[:50], y[:50])


@pytest.fixture(scope="module")
def digits():
    """One run of the small workload with every peer that is here, but the slow compiler's."""
    return measuring.run(
        ["digits"], [name for name in PEERS if name != "torch-compiled"], repeats=2
    )


# --- End to end -----------------------------------------------------------------------------------


def test_all_peers_do_the_same_work(digits):
    (section,) = digits.workloads
    measured = {peer.peer: peer for peer in section.peers if peer.values}
    assert {"numpy", "numpy-loop", "sklearn"} <= set(measured)
    for peer in measured.values():
        assert len(peer.values) == 2
        assert min(peer.values) > 0
        assert not section.did_less(peer)
    # The same weights and the same order: the same loss. scikit-learn draws an order of its own.
    losses = [peer.score.loss for name, peer in measured.items() if name != "sklearn"]
    assert max(losses) - min(losses) < 1e-4


@needs_compiled
def test_a_run_has_ratios_and_shares(digits):
    (section,) = digits.workloads
    assert section.ours.peer == "fastmlp"
    assert section.peak > 0
    loop = next(peer for peer in section.peers if peer.peer == "numpy-loop")
    assert section.ratio(loop) == pytest.approx(loop.median / section.ours.median)
    assert section.share(loop) == pytest.approx(section.gflops(loop) / section.peak)


def test_json_of_a_run(digits):
    document = json.loads(json.dumps(digits.to_dict(), allow_nan=False))
    assert set(document) == {"schema", "machine", "versions", "repeats", "workloads"}
    assert {"cpu", "cores", "cpus", "isa", "system"} <= set(document["machine"])
    assert {"python", "numpy", "fastmlp"} <= set(document["versions"])
    (section,) = document["workloads"]
    assert section["widths"] == [64, 64, 10]
    assert section["optimizer"]["name"] == "Adam"
    assert section["n_samples"] == 1437
    assert section["distances"] == []  # of one thread
    for peer in section["peers"]:
        if peer["skipped"]:
            assert set(peer) == {"name", "label", "skipped"}
        else:
            assert len(peer["seconds"]) == 2
            assert {"median", "ratio", "goals", "gflops", "share_of_peak", "accuracy"} <= set(peer)


def test_nothing_names_the_host(digits):
    if len(platform.node()) > 3:
        assert platform.node() not in json.dumps(digits.to_dict())


def test_table_of_a_run(digits):
    shown = text_of(table(digits))
    assert "64-64-10 relu, digits, Adam, batch 32, 1 thread" in shown
    assert "NumPy loop" in shown
    assert "…" not in shown


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_chart_of_a_run(digits, tmp_path, suffix):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from fastmlp.bench.chart import draw

    several = dataclasses.replace(digits, workloads=digits.workloads * 4)
    draw(several, tmp_path / f"bars.{suffix}")
    content = (tmp_path / f"bars.{suffix}").read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_chart_of_nothing(tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from fastmlp.bench.chart import draw

    with pytest.raises(ValueError, match="nothing was measured"):
        draw(Run({}, {}, 5), tmp_path / "bars.png")


@pytest.mark.parametrize("name", ["predict-one-dense", "iris"])
def test_predictions_and_whole_fits(name):
    run = measuring.run([name], ["numpy-loop", "sklearn"], repeats=1)
    (section,) = run.workloads
    for peer in section.peers:
        assert len(peer.values) == 1
        assert not section.did_less(peer)


# --- Who cannot take part -------------------------------------------------------------------------


def test_a_peer_that_is_not_installed_is_skipped_by_name(monkeypatch):
    absent = dataclasses.replace(PEERS["jax"], requires=("no_such_library",))
    monkeypatch.setitem(PEERS, "jax", absent)
    run = measuring.run(["digits"], ["jax", "numpy-loop"], repeats=1)
    jax = next(peer for peer in run.workloads[0].peers if peer.peer == "jax")
    assert not jax.values
    assert jax.skipped == "no_such_library not installed"
    assert "JAX skipped: no_such_library not installed" in text_of(table(run))


def test_a_peer_that_fails_says_why():
    """There is no such instruction set, and where there is no compiled core, nothing of it."""
    workload = dataclasses.replace(DIGITS, isa="quantum")
    remote = Remote(workload, PEERS["fastmlp"], 1)
    try:
        with pytest.raises(SkippedError, match="Error: "):
            remote.wait_until_ready()
    finally:
        remote.close()


def test_a_peer_that_dies_is_left_out():
    section = WorkloadResult(DIGITS, (64, 64, 10), 1437, "", 1)
    remotes = [Remote(DIGITS, PEERS[name], 1) for name in ("fastmlp", "numpy-loop")]
    peers = [PeerResult("fastmlp", "fastmlp"), PeerResult("numpy-loop", "NumPy loop")]
    try:
        for remote in remotes:
            with contextlib.suppress(SkippedError):
                remote.wait_until_ready()
        remotes[0].process.kill()
        measuring._take_turns(section, list(zip(remotes, peers, strict=True)), 1, lambda text: None)
    finally:
        for remote in remotes:
            remote.close()
    assert section.peak is None
    assert "its process ended" in peers[0].skipped
    assert len(peers[1].values) == 1


# --- Turns ----------------------------------------------------------------------------------------


class Actor:
    """Takes part without doing anything."""

    def __init__(self, name, log, score_at=0):
        self.name, self.log, self.score_at = name, log, score_at
        self.turn = 0

    def peak(self):
        return None

    def measure(self):
        self.log.append(self.name)
        score = Score(accuracy=0.5) if self.turn == self.score_at else None
        self.turn += 1
        return Measurement(float(self.turn), score)


def test_peers_alternate_and_the_first_turn_does_not_count(monkeypatch):
    monkeypatch.setattr(measuring, "PAUSE", 0)
    log = []
    section = WorkloadResult(DIGITS, (64, 64, 10), 1437, "", 1)
    # The second one needs four turns until its first epoch is complete.
    turns = [(Actor("a", log), PeerResult("a", "a")), (Actor("b", log, 3), PeerResult("b", "b"))]
    measuring._take_turns(section, turns, 2, lambda text: None)
    assert log == ["a", "b", "a", "b", "a", "b", "b"]
    assert turns[0][1].values == [2.0, 3.0]
    assert turns[1][1].values == [2.0, 3.0, 4.0]


def test_turns_of_several_threads_bring_the_cpus_near(monkeypatch):
    monkeypatch.setattr(measuring, "PAUSE", 0)
    monkeypatch.setattr(measuring, "cpus_for", lambda n_threads: list(range(n_threads)))
    distances = iter([9e-8, 5e-8, 2e-7, 6e-8])
    monkeypatch.setattr(
        measuring, "bring_near", lambda cpus, patience: next(distances) if len(cpus) == 2 else None
    )
    section = section_of(WORKLOADS["minibatch"])
    turns = [(Actor("a", []), PeerResult("a", "a", 3)), (Actor("b", []), PeerResult("b", "b", 1))]
    measuring._take_turns(section, turns, 3, lambda text: None)
    assert section.distances == [5e-8, 2e-7, 6e-8]
    shown = text_of(table(Run(describe_machine(), {}, 3, [section])))
    told = "in 1 of 3 turns of several threads the CPUs were far from each other"
    assert told in " ".join(shown.split())
    section.distances = [FAR]
    assert "far" not in text_of(table(Run({"cpu": "c", "cores": 2, "isa": ""}, {}, 3, [section])))


# --- Figures --------------------------------------------------------------------------------------


def section_of(workload, *peers, flop=0, peak=None):
    return WorkloadResult(workload, (784, 256, 128, 10), 100, "", 2, peak, flop, list(peers))


def test_short_work_is_repeated_and_its_mean_reported(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])
    answers = io.StringIO()
    clock = worker.PipeClock(io.StringIO("go\n" * 4), answers, lambda: None)
    passes = []
    # The first score is of one pass, which here is a slow one: the next has too few.
    for score, seconds in ((None, 0.06), (Score, 0.2), (Score, 0.06), (Score, 0.06)):
        passes.append(clock.start())
        for _ in range(passes[-1]):
            now[0] += seconds
            with clock.paused():
                now[0] += 1000
        clock.stop(2, score)
    assert passes == [1, 1, 3, 9]
    reported = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [answer["seconds"] for answer in reported] == pytest.approx([0.12, 0.4, 0.12, 0.12])
    assert [answer["score"] is None for answer in reported] == [True, False, False, False]
    with pytest.raises(worker.FinishedError):
        clock.start()


def test_long_work_is_done_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])
    clock = worker.PipeClock(io.StringIO("go\n" * 3), io.StringIO(), lambda: None)
    for _ in range(3):
        assert clock.start() == 1
        now[0] += 0.7
        clock.stop(1, Score)


def test_ratios_goals_and_shares():
    ours = PeerResult("fastmlp", "fastmlp", 2, [1.0, 2.0, 9.0])
    torch = PeerResult("torch", "PyTorch", 2, [20.0])
    one = PeerResult("fastmlp-1", "fastmlp, 1 thread", 1, [2.0])
    section = section_of(WORKLOADS["minibatch"], ours, torch, one, flop=4e9, peak=100.0)
    assert section.ratio(ours) is None
    assert section.ratio(torch) == 10.0
    assert [goal.met for goal in section.goals(torch)] == [True]
    assert [goal.met for goal in section.goals(one)] == [False]
    assert section.gflops(ours) == 2.0
    assert section.share(ours) == 0.02
    assert section.share(one) == 0.04  # of the peak of one thread


def test_limits_are_of_fastmlp_alone():
    slow = PeerResult("torch", "PyTorch", 2, [8.0])
    for seconds, met in ((0.9, True), (1.1, False)):
        ours = PeerResult("fastmlp", "fastmlp", 2, [seconds])
        section = section_of(WORKLOADS["start-to-97"], ours, slow)
        assert [(goal.kind, goal.met) for goal in section.goals(ours)] == [("limit", met)]


def test_who_does_less_is_told():
    good = PeerResult("torch", "PyTorch", 2, [1.0], Score(accuracy=0.97))
    near = PeerResult("jax", "JAX", 2, [1.0], Score(accuracy=0.965))
    poor = PeerResult("fastmlp", "fastmlp", 2, [0.1], Score(accuracy=0.90))
    section = section_of(WORKLOADS["minibatch"], good, near, poor)
    assert [section.did_less(peer) for peer in section.peers] == [False, False, True]
    assert "fastmlp DID LESS" in text_of(table(Run(describe_machine(), {}, 5, [section])))


def test_wrong_predictions_are_told():
    right = PeerResult("fastmlp", "fastmlp", 1, [1.0], Score(error=1e-7))
    wrong = PeerResult("jax", "JAX", 1, [1.0], Score(error=1e-2))
    section = section_of(WORKLOADS["predict-one"], right, wrong)
    assert [section.did_less(peer) for peer in section.peers] == [False, True]


def test_operations_are_counted_by_hand():
    workload = WORKLOADS["per-sample"]
    forward = 784 * 32 + 32 * 32 + 32 * 10
    behind_the_first = 32 * 32 + 32 * 10
    assert workload.flop(784, 10, 5) == 5 * 2 * (2 * forward + behind_the_first)
    assert WORKLOADS["predict-many"].flop(784, 10, 5) == 10_000 * 2 * (
        784 * 256 + 256 * 128 + 128 * 10
    )
    assert WORKLOADS["start-to-97"].flop(784, 10, 5) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.345, "12.3 s"), (0.036, "36.0 ms"), (5e-6, "5.00 us"), (2e-7, "0.20 us")],
)
def test_units(value, text):
    assert in_units(section_of(WORKLOADS["minibatch"]), value) == text


# --- Workloads, problems, peers -------------------------------------------------------------------


def test_names_fit_each_other():
    assert set(QUICK) <= set(WORKLOADS)
    for workload in WORKLOADS.values():
        assert workload.data in PROBLEMS
        assert workload.peers[0] == "fastmlp"
        for names in (workload.peers, workload.targets, workload.slices):
            assert set(names) <= set(PEERS)
        assert set(workload.targets) <= set(workload.peers)
        if workload.task in (Task.START, Task.MEMORY):
            assert all(PEERS[name].program for name in workload.peers)


@pytest.mark.parametrize("batch_size", [1, 32, 100])
@pytest.mark.parametrize("slices", [1, 3, 10])
def test_slices_are_an_epoch_in_whole_batches(batch_size, slices):
    workload = dataclasses.replace(DIGITS, batch_size=batch_size)
    job = Job(workload, load_problem("digits", "float32"), slices=slices)
    parts = [job.part(index) for index in range(slices)]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == job.n_samples
    assert all(part.start % batch_size == 0 for part in parts)


@pytest.mark.parametrize(("name", "density"), [("mnist", 0.191), ("fashion_mnist", 0.498)])
def test_generated_images_are_like_the_real_ones(name, density):
    problem = load_problem(name, "float32", generated="they are not here")
    assert problem.generated == "they are not here"
    assert problem.X.shape == (60_000, 784)
    assert problem.X_test.shape == (10_000, 784)
    assert problem.X.dtype == np.float32
    assert 0 <= problem.X.min() < problem.X.max() == 1
    assert (problem.X[:2000] != 0).mean() == pytest.approx(density, abs=0.01)
    assert set(problem.y) == set(range(10))


@pytest.mark.parametrize("name", ["iris", "digits", "dense", "collisions"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_problems(name, dtype):
    problem = load_problem(name, dtype)
    assert problem.X.dtype == problem.X_test.dtype == dtype
    assert np.isfinite(problem.X).all()
    assert len(problem.y) == len(problem.X)
    assert problem.n_outputs == {"iris": 3, "collisions": 1}.get(name, 10)


def test_programs_read_raw_files_and_tell_what_they_reached(tmp_path):
    workload = WORKLOADS["memory"]
    with raw_files(small_problem()) as folder:
        program = Program(workload, PEERS["sklearn"], 1, folder)
        assert program.data_bytes == 300 * 785 + 50 * 785 + 2 * 16 + 2 * 8
        try:
            program.wait_until_ready()
        except SkippedError as reason:
            pytest.skip(str(reason))
        measurement = program.measure()
    assert measurement.seconds > 1  # megabytes
    assert measurement.score.epochs == 1
    assert 0 <= measurement.score.accuracy <= 1


@needs_compiled
def test_the_own_program():
    workload = dataclasses.replace(WORKLOADS["start-to-97"], accuracy=0.0)
    with raw_files(small_problem()) as folder:
        program = Program(workload, PEERS["fastmlp"], 1, folder)
        measurements = [program.measure() for _ in range(3)]
    for measurement in measurements:
        assert measurement.seconds > 0
        assert measurement.score.epochs == 1
    assert len({m.score.accuracy for m in measurements}) > 1  # each of another seed


def test_a_program_that_fails_says_why(tmp_path):
    with raw_files(small_problem()) as folder:
        program = Program(WORKLOADS["start-to-97"], PEERS["sklearn"], 1, folder)
    with pytest.raises(SkippedError, match="FileNotFoundError"):
        program.measure()


# --- The machine ----------------------------------------------------------------------------------


def test_children_get_threads_and_nothing_else_of_ours(monkeypatch):
    monkeypatch.setenv("FASTMLP_BACKEND", "numpy")
    monkeypatch.setenv("FASTMLP_ISA", "baseline")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    own = environment(2, None)
    assert "OPENBLAS_CORETYPE" not in own
    assert own["OMP_NUM_THREADS"] == own["FASTMLP_NUM_THREADS"] == "2"
    assert "FASTMLP_BACKEND" not in own
    assert "FASTMLP_ISA" not in own
    assert environment(1, "avx2")["FASTMLP_ISA"] == "avx2"
    for name in ("FASTMLP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    plain = clean_environment()
    assert not {*OURS, "OMP_NUM_THREADS"} & set(plain)
    assert plain["PYTHONPATH"] == own["PYTHONPATH"]
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "3")
    assert "FASTMLP_NUM_THREADS" not in clean_environment()


def test_what_others_take_is_a_share():
    load = OtherLoad()
    sum(range(200_000))  # ours: does not count
    share = load.share()
    assert share is None or share >= 0


def test_a_busy_machine_is_told():
    section = section_of(DIGITS, PeerResult("fastmlp", "fastmlp", 1, [1.0]))
    for share, told in ((None, False), (0.01, False), (0.4, True)):
        section.other_load = share
        shown = text_of(table(Run(describe_machine(), {}, 5, [section])))
        assert ("other processes took 40% of the CPUs" in shown) is told


def test_cpus_are_distinct_and_ours():
    available = len(cpus_for(10**6))
    for n_threads in (1, 2, 3):
        cpus = cpus_for(n_threads)
        assert len(cpus) == len(set(cpus)) == min(n_threads, available)


@needs_compiled
def test_distance():
    cpus = cpus_for(2)
    if len(cpus) == 2:
        assert 1e-9 < measure_distance(cpus) < 1e-3
    assert measure_distance([cpus[0], cpus[0]]) > 0  # by turns, and it ends
    assert measure_distance(cpus[:1]) is None


def test_cpus_are_woken_until_they_are_near(monkeypatch):
    measured = iter([2e-7, 2.1e-7, 6e-8, 2e-7])
    woken = []
    monkeypatch.setattr(distance, "measure_distance", lambda cpus: next(measured))
    monkeypatch.setattr(distance, "_wake", woken.append)
    assert bring_near([0, 1], 60) == 6e-8
    assert woken == [[0, 1]] * 2
    assert bring_near([0, 1], 0) == 2e-7  # no patience
    assert len(woken) == 2


def test_who_measures_and_wakes_is_not_bound_to_a_cpu(monkeypatch):
    monkeypatch.setattr(distance, "WAKES", 3)
    before, cpus = cpus_for(10**6), cpus_for(2)
    measure_distance(cpus)
    distance._wake([cpus[0], cpus[-1]])
    assert cpus_for(10**6) == before


@needs_compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peak(dtype):
    assert measure_peak(1, dtype) > 0


@needs_compiled
def test_kernels():
    results = run_kernels(1)
    names = {result.name.split(",")[0] for result in results}
    functions = ("affine", "activation", "loss")
    assert names == {f"{f}_{way}" for f in functions for way in ("forward", "backward")} | {
        "optimizer_update"
    }
    for result in results:
        assert result.ratio > 0
    assert "affine_forward" in text_of(kernel_table(results))


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def invoke():
    app = typer.Typer()
    app.command("bench")(bench)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_command_writes_json_to_the_terminal(invoke):
    result = invoke("-w", "digits", "-p", "numpy-loop", "--repeats", "1", "--json", "-")
    assert result.exit_code == 0, result.output
    (section,) = json.loads(result.stdout)["workloads"]
    assert [peer["name"] for peer in section["peers"]] == ["fastmlp", "numpy-loop"]
    assert "NumPy loop" in result.stderr


def test_command_writes_files(invoke, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    files = tmp_path / "results.json", tmp_path / "bars.png"
    options = ("--json", str(files[0]), "--plot", str(files[1]))
    result = invoke("-w", "digits", "-p", "numpy-loop", "--repeats", "1", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(files[0].read_text())["schema"] == 1
    assert files[1].stat().st_size > 1000


def test_command_lists_names(invoke):
    result = invoke("--list")
    assert result.exit_code == 0
    for name in (*WORKLOADS, *PEERS):
        assert name in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--workload", "nothing"),
        ("--peer", "nobody"),
        ("--threads", "0"),
        ("--repeats", "0"),
        ("--plot", "bars.txt"),
        ("--plot", "no/such/folder/bars.png"),
    ],
)
def test_command_refuses_before_it_measures(invoke, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
