"""What the kernel tests share: instruction sets, arrays between canaries or guard pages, ULPs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from fastmlp import Dense
from fastmlp.architecture import Architecture
from fastmlp.arena import aligned_empty
from fastmlp.backends import load_compiled
from fastmlp.backends.base import PLAIN, TrainingData
from fastmlp.optimizers import OptimizerState

if load_compiled() is not None:
    from fastmlp._core import cpu

    ISAS = cpu.supported_isas()
else:
    ISAS = []  # every module here skips itself

THREADS = [1, 2, 3]

# In which type a kernel's reference is worked out.
WIDE = {"float32": np.float64, "float64": np.longdouble}

# Parameters and losses after some epochs, against float64; relative to 1 and the largest.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}

# 1 to 70: whole vectors and every tail of all vector widths, one tile and several.
sizes = st.integers(1, 70)
pads = st.sampled_from([0, 1, 7, 16])
seeds = st.integers(0, 2**32 - 1)


def pytest_collection_modifyitems(config, items):
    """Sweeps run on demand: ``-m sweep``."""
    if "sweep" in config.getoption("markexpr"):
        return
    sweeps = [item for item in items if item.get_closest_marker("sweep")]
    if sweeps:
        config.hook.pytest_deselected(items=sweeps)
        items[:] = [item for item in items if not item.get_closest_marker("sweep")]


@pytest.fixture(scope="module", params=ISAS)
def isa(request):
    """Name of an instruction set, the one that runs while the test does."""
    before = cpu.current_isa()
    cpu.set_isa(request.param)
    yield request.param
    cpu.set_isa(before)


class Frame:
    """An array in the middle of canaries, bytes of 255: NaN in float32 and float64.

    A kernel that reads a canary of its input and lets it through gives NaN; one that writes outside
    its output changes canaries.

    Parameters
    ----------
    shape : (n,) or (rows, cols)
    dtype : dtype
    pad : int, default 0
        Canaries between two rows, in elements.
    offset : int, default 0
        Bytes from a cache line to the array.
    """

    MARGIN = 128

    def __init__(self, shape, dtype, pad=0, offset=0):
        dtype = np.dtype(dtype)
        rows, cols = (1, *shape)[-2:]
        ld = cols + pad
        start, stop = self.MARGIN + offset, self.MARGIN + offset + rows * ld * dtype.itemsize
        self.memory = aligned_empty(stop + self.MARGIN, np.dtype(np.uint8))
        self.memory[:] = 255
        self.outside = np.ones(len(self.memory), bool)
        self.outside[start:stop].reshape(rows, ld * dtype.itemsize)[:, : cols * dtype.itemsize] = 0
        block = self.memory[start:stop].view(dtype).reshape(rows, ld)[:, :cols]
        self.array = block if len(shape) == 2 else block[0]

    @property
    def intact(self):
        """Whether every byte outside the array is still a canary."""
        return bool((self.memory[self.outside] == 255).all())


def framed(values, pad=0, offset=0):
    """A copy of `values` among canaries."""
    frame = Frame(values.shape, values.dtype, pad, offset)
    frame.array[...] = values
    return frame.array


@np.errstate(all="ignore")
def ulp_error(values, reference):
    """Distance of `values` from a `reference` of a wider type, in units of the last place there.

    0 where both are the same infinity or both NaN; infinite where only one is.
    """
    info = np.finfo(values.dtype)
    wide = reference.dtype.type
    rounded = reference.astype(values.dtype)
    exponent = np.frexp(np.abs(np.where(np.isfinite(rounded), reference, 1)))[1]
    unit = np.maximum(np.ldexp(wide(1), exponent - info.nmant - 1), wide(info.smallest_subnormal))
    error = np.abs(values.astype(wide) - reference) / unit
    same = (values == rounded) | (np.isnan(values) & np.isnan(rounded))
    error = np.where(np.isfinite(rounded), error, np.where(same, 0, np.inf))
    return np.where(np.isnan(error), np.inf, error)


def bits(values):
    """The bit patterns; every NaN has one of them, so that arrays with NaN can be compared."""
    values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return values.view(f"u{values.dtype.itemsize}")


def make_network(widths, activations, loss, dtype, seed=0, **options):
    """Architecture, its layers with `options`, and parameters of which no bias is 0."""
    layers = [Dense(n, name, **options) for n, name in zip(widths[1:], activations, strict=True)]
    return network_of(widths[0], layers, loss, dtype, seed)


def network_of(n_inputs, layers, loss, dtype, seed=0):
    """Architecture of any layers, and parameters of which none is 0."""
    architecture = Architecture.checked(n_inputs, layers, loss, dtype)
    parameters, rng = architecture.new_parameters(), np.random.default_rng(seed)
    for layer, group in zip(architecture.layers, parameters.groups(), strict=True):
        if isinstance(layer, Dense):
            W, b = group
            W[...] = rng.normal(0, len(W) ** -0.5, W.shape)
            b[...] = rng.normal(0, 0.3, b.shape)
        else:
            for view in group:
                view[...] = rng.uniform(0.5, 1.5, view.shape)
    return architecture, parameters


def make_data(
    architecture, n, batch_size, seed=0, pixels=False, weighted=False, labels=False, zeros=0.0
):
    """Samples that the loss takes, among canaries; the share `zeros` of X is 0."""
    rng = np.random.default_rng(seed)
    dtype, n_outputs = architecture.dtype, architecture.n_outputs
    shape = n, architecture.n_inputs
    X = rng.integers(0, 256, shape).astype(np.uint8) if pixels else rng.standard_normal(shape)
    X[rng.random(shape) < zeros] = 0
    Y = (
        rng.integers(0, n_outputs, n)
        if labels
        else target_rows(architecture.loss, n, n_outputs, rng)
    )
    Y = Y if labels else Y.astype(dtype)
    weight = framed(rng.choice([0.0, 0.5, 1, 3], n)) if weighted else None
    X = framed(X if pixels else X.astype(dtype), pad=3)
    return TrainingData(X, framed(Y, pad=0 if labels else 5), weight, batch_size)


def target_rows(loss, n, n_outputs, rng):
    """Rows that the loss takes, float64."""
    if loss.labels:
        return rng.dirichlet(np.ones(n_outputs), n)
    if loss.probabilities:
        return rng.choice([0, 0.25, 1], (n, n_outputs))
    if loss.targets != "real":
        return rng.integers(loss.targets == "positive", 4, (n, n_outputs)).astype(float)
    return rng.standard_normal((n, n_outputs))


class Run:
    """Some epochs of a backend from the same start.

    Attributes
    ----------
    arenas : list of Arena
        Parameters and moments.
    results : list of EpochResults
        Of one epoch each.
    """

    def __init__(self, backend, network, optimizer, data, orders, seed=0, options=PLAIN):
        architecture, start = network
        self.parameters = architecture.new_parameters()
        for view, values in zip(self.parameters.views, start.views, strict=True):
            view[...] = values
        self.state = OptimizerState(optimizer, self.parameters)
        self.arenas = [self.parameters, *self.state.moments]
        self.trainer = backend.trainer(architecture, self.parameters, self.state, data, options)
        rng = np.random.default_rng(seed)
        rates = [rng.uniform(0.002, 0.02, data.n_steps(len(order))) for order in orders]
        seeds = np.array([2**63 + seed], np.uint64)
        epochs = zip(orders, rates, strict=True)
        self.results = [self.trainer.epochs(order, rate, seeds) for order, rate in epochs]


def padding_of(arena):
    """What of the buffer is no parameter: 0, as it began."""
    inside = arena.like()
    for view in inside.views:
        view[...] = 1
    return arena.flat[inside.flat == 0]


# Beginning of a child's program: `guarded` and `cases`.
GUARD_PAGES = """
import ctypes
import itertools
import mmap

import numpy as np

from fastmlp._core import cpu

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PAGE = mmap.PAGESIZE
PROT_NONE = 0


def guarded(values, pad=0, at_end=True):
    \"\"\"A copy of `values` that ends, or starts, at a page that nobody may touch.\"\"\"
    values = np.asarray(values)
    rows, cols = (1, *values.shape)[-2:]
    size = ((rows - 1) * (cols + pad) + cols) * values.itemsize
    n_pages = -(-size // PAGE) + 2
    memory = mmap.mmap(-1, n_pages * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, n_pages - 1):
        if libc.mprotect(address + page * PAGE, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = (n_pages - 1) * PAGE - size if at_end else PAGE
    strides = ((cols + pad) * values.itemsize, values.itemsize)[-values.ndim :]
    array = np.ndarray(values.shape, values.dtype, memory, offset, strides)
    array[...] = values
    return array


def cases(*axes):
    \"\"\"Each instruction set, dtype, end of the pages, item of `axes`; printed first.\"\"\"
    dtypes = np.float32, np.float64
    for case in itertools.product(cpu.supported_isas(), dtypes, (True, False), *axes):
        cpu.set_isa(case[0])
        print(*case, flush=True)
        yield case[1:]
    print("done")
"""


@pytest.fixture(scope="session")
def run_guarded(start_python):
    """``run_guarded(code)``: a child that uses `guarded` and `cases`, and must reach its end."""

    def run(code):
        # Threads that wait asleep: on a busy machine they would take the time from each other.
        with start_python(GUARD_PAGES + code, OMP_WAIT_POLICY="passive") as process:
            out, error = process.communicate(timeout=120)
        last = out.splitlines()[-1:]
        assert (process.returncode, last) == (0, ["done"]), f"stopped at {last}: {error}"

    return run
