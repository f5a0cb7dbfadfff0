"""IDX files, the format of MNIST.

A file may come from a stranger: the sizes it states are checked against the bytes that are there
before memory is taken for them.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_idx"]

_IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20  # bytes


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST.

    Two zero bytes, a type code, the number of dimensions, each dimension as uint32, the values with
    the last dimension fastest; everything big-endian.

    Parameters
    ----------
    path : str or path-like
        Raw or gzip: the first two bytes decide, not the name.

    Returns
    -------
    ndarray
        uint8, int8, int16, int32, float32 or float64 in native byte order, of 1 to 4 dimensions,
        C-contiguous, writable.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not an IDX file, fewer or more values than its header states, or a broken gzip stream. A
        header that lies costs no memory, and gzip unpacks no more than the header states.

    References
    ----------
    http://yann.lecun.com/exdb/mnist/, "The IDX file format".
    """
    path = Path(path)
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        stream: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
        try:
            dtype, shape = _read_idx_header(stream, path)
            stated = math.prod(shape) * dtype.itemsize
            if is_gzip:
                # The byte beyond the stated ones finds a file that is too long, and a bomb, without
                # unpacking all of it. Where there is none, gzip has by then checked its own CRC.
                data = bytearray()
                while chunk := stream.read(min(_CHUNK, stated + 1 - len(data))):
                    data += chunk
                found = len(data)
            else:
                found = os.fstat(file.fileno()).st_size - file.tell()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: broken gzip stream: {error}") from error
        if found != stated:
            problem = f"truncated after {found}" if found < stated else f"more than {stated}"
            raise ValueError(
                f"{path}: {problem} bytes of values, expected {stated} for {dtype} of shape {shape}"
            )
        stored = dtype.newbyteorder(">")
        values = np.frombuffer(data, stored) if is_gzip else np.fromfile(file, stored)
    return values.reshape(shape).astype(dtype, copy=False)


def _read_idx_header(
    stream: IO[bytes] | gzip.GzipFile, path: Path
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    is_idx = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_DTYPES
    if not is_idx or not 1 <= magic[3] <= 4:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise ValueError(
            f"{path}: not an IDX file: begins with {magic.hex(' ') or 'nothing'}, "
            f"expected 00 00, a type code ({codes}) and 01 to 04 dimensions"
        )
    dtype, ndim = _IDX_DTYPES[magic[2]], magic[3]
    dimensions = stream.read(4 * ndim)
    if len(dimensions) < 4 * ndim:
        raise ValueError(
            f"{path}: truncated after {len(dimensions)} bytes of dimensions, expected {4 * ndim}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", dimensions)
    # Where one dimension is 0 the file's size says nothing of the others, yet NumPy has a limit.
    if math.prod(n or 1 for n in shape) * dtype.itemsize > sys.maxsize:
        raise ValueError(f"{path}: no memory can hold {dtype} of the stated shape {shape}")
    return dtype, shape
