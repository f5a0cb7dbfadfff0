"""What the tests share: the backends and dtypes they run on, small networks, child processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import fastmlp
from fastmlp import Dense, Network, training
from fastmlp.backends import compiled_error, load_compiled

# The same examples in every run.
hypothesis.settings.register_profile("fastmlp", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("fastmlp")

# Behind a shell's & Ctrl-C is ignored, and would be in the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=["numpy", "compiled"])
def backend(request):
    """Name of a backend; tests with it run once on each."""
    if request.param == "compiled" and load_compiled() is None:
        pytest.skip(f"needs the compiled core: {compiled_error()}")
    return request.param


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request):
    """Name of a dtype; tests with it run once in each."""
    return request.param


@pytest.fixture(scope="session")
def make_network():
    """``make_network(backend, dtype, widths, hidden, output, loss)``: a small network, seed 0."""

    def make(
        backend,
        dtype="float64",
        widths=(5, 7, 4, 3),
        hidden="tanh",
        output="softmax",
        loss="cross_entropy",
        seed=0,
    ):
        layers = [Dense(n_units, hidden) for n_units in widths[1:-1]]
        layers.append(Dense(widths[-1], output))
        return Network(widths[0], layers, loss=loss, dtype=dtype, seed=seed, backend=backend)

    return make


@pytest.fixture(scope="session")
def make_data():
    """``make_data(network, n)``: standard normal inputs, and targets that the loss takes."""

    def make(network, n, seed=0):
        rng = np.random.default_rng(seed)
        architecture = network.architecture
        X = rng.standard_normal((n, architecture.n_inputs)).astype(architecture.dtype)
        if architecture.loss.labels:
            return X, rng.integers(0, architecture.n_outputs, n)
        Y = rng.standard_normal((n, architecture.n_outputs)).astype(architecture.dtype)
        if architecture.loss.probabilities:
            return X, (Y > 0).astype(architecture.dtype)
        return X, Y if architecture.loss.targets == "real" else np.abs(Y)

    return make


@pytest.fixture(scope="session")
def state_of():
    """``state_of(network)``: everything a fit changes, as bytes that can be compared."""

    def state(network):
        optimizer_state = network.optimizer_state
        moments = [] if optimizer_state is None else optimizer_state.moments
        return (
            network.arena.flat.tobytes(),
            repr(network.rng.bit_generator.state),
            [moment.flat.tobytes() for moment in moments],
            None if optimizer_state is None else optimizer_state.step,
        )

    return state


@pytest.fixture
def calls_of_the_loop(monkeypatch):
    """A list that gets the number of epochs of each call of a backend's loop."""
    numbers = []
    stretch = training._Run._stretch

    def counted(run, done, *arguments):
        numbers.append(len(done))
        return stretch(run, done, *arguments)

    monkeypatch.setattr(training._Run, "_stretch", counted)
    return numbers


@pytest.fixture(scope="session")
def start_python():
    """A child process that runs `code`, for a with statement.

    Arguments are the code, then what ``sys.argv`` gets, and by name variables of the environment.
    It imports the fastmlp that is tested here, and gets no variables ``FASTMLP_*`` but those given.
    At the end nothing is left of it, nor of its own children.
    """

    @contextlib.contextmanager
    def start(code, *arguments, **environment):
        own = {name: value for name, value in os.environ.items() if not name.startswith("FASTMLP_")}
        own["PYTHONPATH"] = str(Path(fastmlp.__file__).parents[1])
        with subprocess.Popen(
            [sys.executable, "-P", "-c", textwrap.dedent(code), *map(str, arguments)],
            env={**own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as child:
            try:
                yield child
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)

    return start


@pytest.fixture(scope="session")
def run_python(start_python):
    """``run_python(...)``, arguments as `start_python`: what a child that must succeed prints."""

    def run(code, *arguments, **environment):
        with start_python(code, *arguments, **environment) as child:
            out, error = child.communicate(timeout=60)
        assert child.returncode == 0, error
        return out

    return run


INTERRUPT = """
import os, signal, threading, time

def interrupt_after(changes, parameters):
    def watch():
        seen, last = 0, None
        while seen < changes:
            time.sleep(1e-3)
            now = parameters().tobytes()
            seen, last = seen + (now != last), now
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
"""


@pytest.fixture(scope="session")
def run_interrupted(run_python):
    """As `run_python`; the code may call ``interrupt_after(changes, parameters)``.

    That is Ctrl-C as soon as so many changes of the array ``parameters()`` were seen, however long
    that takes on a busy machine.
    """

    def run(code, *arguments, **environment):
        return run_python(INTERRUPT + code, *arguments, **environment)

    return run


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """``compile_c(name, source, *flags)``: path of what the C compiler makes of it."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def compile_source(name, source, *flags):
        folder = tmp_path_factory.mktemp("c")
        (folder / "source.c").write_text(source)
        command = [compiler, "source.c", "-o", name, *flags, "-lm"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return folder / name

    return compile_source
