"""Which instruction set runs, that no other one's instructions do, and that subnormals stay on."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from bisect import bisect_right
from pathlib import Path

import pytest

from .conftest import ISAS

cpu = pytest.importorskip("fastmlp._core.cpu")

X86 = platform.machine().lower() in ("x86_64", "amd64")

# Flags of /proc/cpuinfo that an instruction set needs.
FLAGS = {
    "baseline": set(),
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "neon": set(),
}


def test_names():
    built = cpu.built_isas()
    assert built[0] == "baseline"
    assert set(built) <= set(FLAGS)
    assert set(cpu.supported_isas()) <= set(built)
    assert cpu.supported_isas()[0] == "baseline"
    assert cpu.current_isa() in cpu.supported_isas()
    if X86:
        assert built == ["baseline", "avx2", "avx512"]


def test_detection_agrees_with_the_system():
    info = Path("/proc/cpuinfo")
    if not X86 or not info.exists():
        pytest.skip("needs an x86-64 CPU and /proc/cpuinfo")
    flags = set(re.search(r"^flags\s*: (.*)$", info.read_text(), re.MULTILINE).group(1).split())
    expected = [isa for isa in cpu.built_isas() if flags >= FLAGS[isa]]
    assert cpu.supported_isas() == expected


def test_switching(isa):
    assert cpu.current_isa() == isa


UNSUPPORTED = [isa for isa in FLAGS if isa not in ISAS]


@pytest.mark.parametrize("name", ["avx9", "", "AVX2", "avx2 ", "bäseline", *UNSUPPORTED])
def test_other_names_are_refused(name):
    before = cpu.current_isa()
    with pytest.raises(ValueError, match=r"^FASTMLP_ISA: expected one of .*; got ") as caught:
        cpu.set_isa(name)
    assert repr(name) in str(caught.value)
    assert all(isa in str(caught.value) for isa in cpu.supported_isas())
    assert cpu.current_isa() == before


SHOW = """
import warnings
warnings.simplefilter("error")
import numpy as np
from fastmlp import SGD, Dense, Network
from fastmlp._core import cpu

try:
    network = Network(3, [Dense(2, "softmax")], loss="cross_entropy", seed=0)
    network.fit(np.ones((4, 3)), [0, 1, 0, 1], optimizer=SGD(), epochs=1)
    print(network.backend.name, cpu.current_isa())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_the_best_runs_by_default(run_python):
    assert run_python(SHOW).split() == ["compiled", cpu.supported_isas()[-1]]


@pytest.mark.parametrize("name", ISAS)
def test_the_environment_chooses(run_python, name):
    assert run_python(SHOW, FASTMLP_ISA=name).split() == ["compiled", name]


def test_a_wrong_name_in_the_environment_is_an_error(run_python):
    """Who asks for an instruction set does not get another one, nor NumPy, in silence."""
    expected = f"ValueError FASTMLP_ISA: expected one of {', '.join(ISAS)}; got 'avx9'\n"
    assert run_python(SHOW, FASTMLP_ISA="avx9") == expected


def test_a_wrong_name_does_not_matter_to_numpy(run_python):
    output = run_python(SHOW, FASTMLP_ISA="avx9", FASTMLP_BACKEND="numpy")
    assert output.split()[0] == "numpy"


# What an x86-64 CPU without AVX does not have: VEX and EVEX instructions, wide and mask registers.
WIDE_INSTRUCTION = re.compile(r"v(?!err|erw)|k(mov|and|or|xor|xnor|not|test|add|unpck|shift)")
WIDE_REGISTER = re.compile(r"%(ymm|zmm|k[0-7]\b|xmm(1[6-9]|2\d|3[01]))")
MAY_BE_WIDE = {"isa_avx2.c": "%ymm", "isa_avx512.c": "%zmm"}


def objdump(*arguments):
    return subprocess.run(
        ["objdump", *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def module_paths():
    folder = Path(cpu.__file__).parent
    return sorted(path for path in folder.iterdir() if path.name.endswith(".so"))


def functions_of_files(path):
    """(start, stop, source file) of every local function, in order."""
    functions, source = [], None
    for line in objdump("-t", path).splitlines():
        fields = line.split()
        if " df " in line:
            source = fields[-1] if fields[-1].endswith(".c") else None
        elif source and " F .text" in line:
            start, size = int(fields[0], 16), int(fields[4], 16)
            functions.append((start, start + size, source))
    return sorted(functions)


@pytest.mark.skipif(not X86 or not shutil.which("objdump"), reason="needs x86-64 and objdump")
@pytest.mark.parametrize("path", module_paths(), ids=lambda path: path.name.split(".")[0])
def test_wide_instructions_stay_in_their_files(path):
    """On a CPU without AVX, nothing but the chosen kernels may run what it does not have."""
    functions = functions_of_files(path)
    if not functions:
        pytest.skip(f"{path.name} is stripped: no telling what belongs to which file")
    starts = [start for start, _, _ in functions]
    registers = {source: set() for source in MAY_BE_WIDE}
    for line in objdump("-d", "--no-show-raw-insn", path).splitlines():
        address, tab, instruction = line.partition(":\t")
        if not tab:
            continue
        _, stop, source = functions[bisect_right(starts, int(address, 16)) - 1]
        source = source if int(address, 16) < stop else None
        registers_here = WIDE_REGISTER.findall(instruction)
        if source in MAY_BE_WIDE:
            registers[source].update(f"%{register[0]}" for register in registers_here)
        else:
            assert not registers_here, (source, line)
            assert not WIDE_INSTRUCTION.match(instruction), (source, line)
    if path.name.startswith("cpu."):
        assert "%zmm" not in registers["isa_avx2.c"]
        for source, own in MAY_BE_WIDE.items():
            assert own in registers[source], f"{source} has no {own}: this test sees nothing"
    else:
        assert not any(registers.values())


SUBNORMALS = """
import ctypes
import signal
import sys
import warnings

warnings.simplefilter("error")
import numpy as np


def control():
    \"\"\"Control bits of MXCSR: the exception flags, its lowest six, do not count.\"\"\"
    environment = (ctypes.c_uint32 * 16)()
    if sys.argv[1] == "mxcsr":
        ctypes.CDLL(None).fegetenv(environment)
    return environment[7] & ~0x3F


def check():
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        small = info.smallest_subnormal
        assert small > 0 and info.tiny / dtype(2) > 0
        assert (np.full(33, info.tiny) * dtype(0.5) > 0).all()
        # Multiply-adds of subnormals, in this thread and in a worker.
        X, W = np.full((8, 3), small, dtype), np.ones((3, 37), dtype)
        Z = np.zeros((8, 37), dtype)
        affine.affine_forward(X, W, None, Z, 2)
        assert (Z == 3 * small).all(), Z


before = control()
from fastmlp import SGD
from fastmlp import Dense, Network
from fastmlp._core import affine, cpu

assert control() == before
check()
for isa in cpu.supported_isas():
    cpu.set_isa(isa)
    network = Network(64, [Dense(256, "gelu"), Dense(10, "softmax")], loss="cross_entropy", seed=0)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((600, 64)), rng.integers(0, 10, 600)
    network.fit(X, y, optimizer=SGD(0.1), epochs=1, batch_size=300)
    network.predict(X)
    network.fit(X, y, optimizer=SGD(0.1), epochs=1, batch_size=1)
    assert control() == before, isa
    check()

seen = []


def handle(*_):
    seen.append(control())
    raise KeyboardInterrupt


signal.signal(signal.SIGALRM, handle)
for batch_size in (1, 64):
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        network.fit(X, y, optimizer=SGD(1e-3), epochs=1_000_000, batch_size=batch_size)
    except KeyboardInterrupt:
        check()
assert seen == [before, before] == [control()] * 2
print("done")
"""


def test_subnormals_stay_on(run_python):
    """After an import and fits, in this thread and in the threads that the kernels use; and in a
    signal handler that runs inside of a fit.
    """
    has_mxcsr = X86 and platform.libc_ver()[0] == "glibc"
    assert run_python(SUBNORMALS, "mxcsr" if has_mxcsr else "other") == "done\n"
