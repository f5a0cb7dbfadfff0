"""Activations in C: inside the compiled loop, on NumPy, and what cannot be one."""

from __future__ import annotations

import copy
import ctypes
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from fastmlp import (
    SGD,
    Activation,
    Adam,
    Dense,
    Network,
    cfunctions,
    check_gradient,
    config,
    set_num_threads,
)
from fastmlp.activations import ACTIVATIONS
from fastmlp.backends import load_compiled

# T, and for each: the sine, and the mean taken off every row, which is no elementwise function.
SOURCE = """
#include <math.h>
#include <stddef.h>
#define DEFINE(T, suffix)                                                                      \\
  void sine##suffix(ptrdiff_t n, const T *z, T *a) {                                           \\
    for (ptrdiff_t j = 0; j < n; j++) a[j] = (T)sin((double)z[j]);                             \\
  }                                                                                            \\
  void sine_backward##suffix(ptrdiff_t n, const T *da, const T *z, const T *a, T *dz) {        \\
    (void)a;                                                                                   \\
    for (ptrdiff_t j = 0; j < n; j++) dz[j] = (T)((double)da[j] * cos((double)z[j]));          \\
  }                                                                                            \\
  void centre##suffix(ptrdiff_t n, const T *z, T *a) {                                         \\
    double sum = 0;                                                                            \\
    for (ptrdiff_t j = 0; j < n; j++) sum += (double)z[j];                                     \\
    for (ptrdiff_t j = 0; j < n; j++) a[j] = (T)((double)z[j] - sum / (double)n);              \\
  }                                                                                            \\
  void centre_backward##suffix(ptrdiff_t n, const T *da, const T *z, const T *a, T *dz) {      \\
    (void)z;                                                                                   \\
    centre##suffix(n, da, dz);                                                                 \\
    (void)a;                                                                                   \\
  }
DEFINE(float, 32)
DEFINE(double, 64)
"""

FORMULAS = {
    "sine": Activation(
        lambda Z: np.sin(Z.astype("f8")).astype(Z.dtype), lambda dA, Z, A: dA * np.cos(Z)
    ),
    "centre": Activation(
        lambda Z: Z - Z.mean(axis=1, keepdims=True),
        lambda dA, Z, A: dA - dA.mean(axis=1, keepdims=True),
    ),
}


@pytest.fixture(scope="module")
def in_c(compile_c):
    """Name: the activation of that name in C."""
    library = ctypes.CDLL(str(compile_c("activations.so", SOURCE, "-shared", "-fPIC", "-O1")))
    return {
        name: Activation.from_c(
            name,
            **{
                f"float{bits}": (library[f"{name}{bits}"], library[f"{name}_backward{bits}"])
                for bits in (32, 64)
            },
        )
        for name in FORMULAS
    }


def network(hidden, output, backend, dtype, n_units=19):
    layers = [Dense(n_units, hidden), Dense(3, output)]
    return Network(7, layers, loss="mse", dtype=dtype, seed=0, backend=backend)


def data(dtype, n=90):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 7)).astype(dtype), rng.standard_normal((n, 3)).astype(dtype)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("optimizer", "batch_size"), [(SGD(0.02), 1), (SGD(0.1), 32), (Adam(), 9)])
def test_trains_like_the_formula(in_c, backend, dtype, name, optimizer, batch_size):
    """As a hidden activation and as the output's."""
    X, Y = data(dtype)
    nets = []
    for activation, where in ((in_c[name], backend), (FORMULAS[name], "numpy")):
        net = network(activation, activation, where, dtype)
        net.fit(X, Y, optimizer=optimizer, epochs=3, batch_size=batch_size)
        nets.append(net)
    assert nets[0].backend.name == backend
    tolerance = {"rtol": 0, "atol": 3e-5 if dtype == "float32" else 1e-13}
    np.testing.assert_allclose(nets[0].arena.flat, nets[1].arena.flat, **tolerance)
    np.testing.assert_allclose(nets[0].predict(X), nets[1].predict(X), **tolerance)
    np.testing.assert_allclose(nets[0].forward(X), nets[1].forward(X), **tolerance)
    assert check_gradient(nets[0], X, Y) < 1e-6


@pytest.mark.skipif(load_compiled() is None, reason="needs the compiled core")
def test_on_every_instruction_set(in_c, dtype):
    from fastmlp._core import cpu

    X, Y = data(dtype)
    before, results = cpu.current_isa(), []
    try:
        for isa in cpu.supported_isas():
            cpu.set_isa(isa)
            net = network(in_c["sine"], "identity", "compiled", dtype)
            net.fit(X, Y, optimizer=Adam(), epochs=2)
            results.append(net.arena.flat)
    finally:
        cpu.set_isa(before)
    for result in results[1:]:
        np.testing.assert_allclose(
            result, results[0], rtol=0, atol=1e-5 if dtype == "float32" else 1e-13
        )


@pytest.mark.skipif(load_compiled() is None, reason="needs the compiled core")
def test_the_same_bits_for_any_number_of_threads(in_c, monkeypatch):
    monkeypatch.setattr(config, "available_cpus", lambda: 8)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((300, 784)), rng.standard_normal((300, 10))
    results = set()
    for n_threads in (1, 2, 3, 8):
        set_num_threads(n_threads)
        try:
            layers = [Dense(256, in_c["sine"]), Dense(10)]
            net = Network(784, layers, loss="mse", seed=0, backend="compiled")
            net.fit(X, Y, optimizer=Adam(), epochs=2, batch_size=150)
            results.add(net.arena.flat.tobytes() + net.predict(X).tobytes())
        finally:
            set_num_threads(None)
    assert len(results) == 1


def test_the_readmes_numba():
    pytest.importorskip("numba")
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip("needs the README beside the tests")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "from numba" in block]
    names = {"Activation": Activation}
    exec(block, names)
    net = network(names["softsign"], "identity", "auto", "float32")
    X, _ = data("float32")
    (W, b), (V, c) = net.parameters
    Z = X @ W + b
    np.testing.assert_allclose(net.predict(X), Z / (1 + np.abs(Z)) @ V + c, rtol=1e-4, atol=1e-5)


def test_numba(backend, dtype):
    numba = pytest.importorskip("numba")
    import math

    pointer = numba.types.CPointer(getattr(numba.types, dtype))

    @numba.cfunc(numba.types.void(numba.intp, pointer, pointer))
    def forward(n, z, a):
        for j in range(n):
            a[j] = math.sin(z[j])

    @numba.cfunc(numba.types.void(numba.intp, pointer, pointer, pointer, pointer))
    def backward(n, da, z, a, dz):
        for j in range(n):
            dz[j] = da[j] * math.cos(z[j])

    sine = Activation.from_c("sine", **{dtype: (forward, backward)})
    X, Y = data(dtype)
    net, twin = (
        network(activation, "identity", where, dtype)
        for activation, where in ((sine, backend), (FORMULAS["sine"], "numpy"))
    )
    for one in (net, twin):
        one.fit(X, Y, optimizer=Adam(), epochs=2)
    np.testing.assert_allclose(net.arena.flat, twin.arena.flat, atol=1e-5)


def test_files_and_copies(in_c, tmp_path, backend):
    X, _ = data("float32")
    net = network(in_c["sine"], "identity", backend, "float32")
    net.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="activation 'sine' is not known"):
        Network.load(tmp_path / "model.safetensors")
    loaded = Network.load(
        tmp_path / "model.safetensors", custom={"sine": in_c["sine"]}, backend=backend
    )
    for same in (loaded, copy.deepcopy(net)):
        assert same.predict(X).tobytes() == net.predict(X).tobytes()
    with pytest.raises(TypeError, match="activation 'sine' cannot be pickled"):
        pickle.dumps(net)


def test_equal_functions_have_one_code(in_c):
    library = in_c["sine"].native._keep
    again = Activation.from_c("again", **library)
    assert again.code == in_c["sine"].code != in_c["centre"].code
    assert again.code not in {activation.code for activation in ACTIVATIONS.values()}


def test_a_dtype_without_functions_is_refused(in_c, backend):
    pair = in_c["sine"].native._keep["float32"]
    sine = Activation.from_c("sine", float32=pair)
    net = network(sine, "identity", backend, "float32")
    with pytest.raises(ValueError, match=r"dtype: expected float32, .*layers\[0\].*'sine'"):
        network(sine, "identity", backend, "float64")
    with pytest.raises(ValueError, match="dtype: expected float32"):
        net.astype("float64")
    with pytest.raises(TypeError, match="expected float32, got float64"):
        sine.forward(np.zeros((2, 3)))


def test_outputs_that_are_no_probabilities_are_refused(in_c):
    with pytest.raises(ValueError, match=r"loss: cross_entropy needs outputs in \[0, 1\]"):
        Network(3, [Dense(3, in_c["sine"])], loss="cross_entropy")
    pair = in_c["sine"].native._keep["float32"]
    declared = Activation.from_c("mine", float32=pair, probabilities=True)
    Network(3, [Dense(3, declared)], loss="cross_entropy")


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        ({}, ValueError, "float32, float64: expected"),
        ({"float32": 3}, TypeError, r"float32: expected a pair \(forward, backward\)"),
        ({"float64": (1, 2, 3)}, TypeError, "float64: expected a pair"),
        ({"float32": (np.sin, 1)}, TypeError, "float32: expected an address, .* got ufunc"),
        ({"float32": (0, 1)}, ValueError, "float32: expected the address of a function, got 0"),
        ({"float32": (True, 1)}, TypeError, "float32: expected an address"),
    ],
)
def test_what_is_no_function(functions, error, message):
    with pytest.raises(error, match=message):
        Activation.from_c("mine", **functions)


def test_names_of_the_package_are_taken():
    with pytest.raises(ValueError, match="name: expected one of your own, got 'relu'"):
        Activation.from_c("relu", float32=(1, 2))


def test_the_table_can_be_full(monkeypatch):
    monkeypatch.setattr(cfunctions, "TABLE", np.zeros((1, 4), dtype=np.uintp))
    monkeypatch.setattr(cfunctions, "_codes", {})
    Activation.from_c("first", float32=(1, 2))
    with pytest.raises(RuntimeError, match="a process can have 1 activations in C"):
        Activation.from_c("second", float32=(3, 4))
