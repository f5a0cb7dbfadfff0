"""Activations that are C functions, and the table by which the compiled loop finds them.

A function takes one row of ``n`` units, contiguous, of its type (float or double):

    void forward(ptrdiff_t n, const T *z, T *a);                                   a may be z
    void backward(ptrdiff_t n, const T *da, const T *z, const T *a, T *dz);        dz may be da

It is called without the GIL, from several threads at once.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

__all__ = ["CFunctions"]

Array = np.ndarray

# Codes from here on are rows of the table: FM_NATIVE in csrc/fastmlp.h.
FIRST_CODE = 1000
# Addresses of forward and backward for float32, and for float64; 0: none. The core reads it where
# it lies, so it never moves and a row never changes.
TABLE = np.zeros((1024, 4), dtype=np.uintp)
_codes: dict[tuple[int, ...], int] = {}
_lock = threading.Lock()

_FORWARD = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, *[ctypes.c_void_p] * 2)
_BACKWARD = ctypes.CFUNCTYPE(None, ctypes.c_ssize_t, *[ctypes.c_void_p] * 4)


class CFunctions:
    """Forward and backward functions for one or both dtypes; callable from NumPy too.

    Parameters
    ----------
    float32, float64 : (forward, backward) or None
        Addresses, ctypes functions, or anything with an ``address`` (numba's ``cfunc``).

    Attributes
    ----------
    code : int
        Number in the compiled core; equal functions have equal numbers.
    dtypes : tuple of str
        What there are functions for.
    """

    def __init__(self, float32: Any, float64: Any):
        given = {"float32": float32, "float64": float64}
        self.dtypes = tuple(name for name, functions in given.items() if functions is not None)
        if not self.dtypes:
            raise ValueError("float32, float64: expected (forward, backward) for at least one")
        self._keep = given  # what an address belongs to must not be collected
        row = tuple(address for name in given for address in _addresses(given[name], name))
        with _lock:
            if row not in _codes:
                if len(_codes) == len(TABLE):
                    raise RuntimeError(f"a process can have {len(TABLE)} activations in C")
                TABLE[len(_codes)] = row
                _codes[row] = FIRST_CODE + len(_codes)
        self.code = _codes[row]
        self._functions = {
            "float32": (_FORWARD(row[0]), _BACKWARD(row[1])),
            "float64": (_FORWARD(row[2]), _BACKWARD(row[3])),
        }

    def forward(self, Z: Array) -> Array:
        A = np.empty_like(Z, order="C")
        self._call(0, A, Z)
        return A

    def backward(self, dA: Array, Z: Array, A: Array) -> Array:
        dZ = np.empty_like(Z, order="C")
        self._call(1, dZ, dA, Z, A)
        return dZ

    def _call(self, which: int, out: Array, *arrays: Array) -> None:
        if out.dtype.name not in self.dtypes:
            raise TypeError(f"expected {' or '.join(self.dtypes)}, got {out.dtype}")
        function, n = self._functions[out.dtype.name][which], out.shape[-1]
        arrays = (*(np.ascontiguousarray(array, out.dtype) for array in arrays), out)
        starts = [array.ctypes.data for array in arrays]
        for offset in range(0, out.nbytes, n * out.itemsize):
            function(n, *(start + offset for start in starts))


def _addresses(functions: Any, name: str) -> tuple[int, int]:
    if functions is None:
        return 0, 0
    if not isinstance(functions, (tuple, list)) or len(functions) != 2:
        raise TypeError(f"{name}: expected a pair (forward, backward)")
    forward, backward = (_address(function, name) for function in functions)
    return forward, backward


def _address(function: Any, name: str) -> int:
    if isinstance(function, ctypes._CFuncPtr):  # type: ignore[attr-defined]
        function = ctypes.cast(function, ctypes.c_void_p).value
    address = getattr(function, "address", function)
    if isinstance(address, bool) or not isinstance(address, int):
        raise TypeError(
            f"{name}: expected an address, a ctypes function or numba's cfunc, got "
            f"{type(function).__name__}"
        )
    if address <= 0:
        raise ValueError(f"{name}: expected the address of a function, got {address}")
    return address
