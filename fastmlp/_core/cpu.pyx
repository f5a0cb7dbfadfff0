"""The one owner of the kernel tables: which instruction set runs; OpenMP's limits; a line's way
from one CPU to another.

Also the door through which arrays reach the kernels, `matrix_of`.
"""

from fastmlp._core.kernels cimport (
    FM_FLOAT32,
    FM_FLOAT64,
    atomic_int,
    fm_have_openmp,
    fm_isa_names,
    fm_isa_supported,
    fm_kernels,
    fm_kernels_of,
    fm_matrix,
    fm_max_threads,
    fm_pass_line,
    fm_release_threads,
    fm_set_native_activations,
)

cdef const fm_kernels *tables[2]


cdef const fm_kernels *table(int dtype) noexcept nogil:
    return tables[dtype]


def built_isas():
    """Instruction sets of this build, best last."""
    names = []
    cdef const char *const *name = fm_isa_names()
    while name[0] != NULL:
        names.append(name[0].decode())
        name += 1
    return names


def supported_isas():
    """Those that this CPU can run, best last."""
    return [name for name in built_isas() if fm_isa_supported(name.encode())]


def set_isa(str isa):
    """Switch all kernels; only while none of them runs: at start-up and in tests."""
    if isa not in supported_isas():
        built = "" if isa not in built_isas() else ", which was built but this CPU cannot run"
        raise ValueError(
            f"FASTMLP_ISA: expected one of {', '.join(supported_isas())}; got {isa!r}{built}"
        )
    name = isa.encode()
    tables[0] = fm_kernels_of(name, FM_FLOAT32)
    tables[1] = fm_kernels_of(name, FM_FLOAT64)


def set_native_activations(const size_t[:, ::1] table):
    """Where the addresses of activations in C are; the array must not go away."""
    fm_set_native_activations(&table[0, 0])


def current_isa():
    """Name of the instruction set that runs."""
    return tables[0].isa.decode()


def have_openmp():
    """Whether this build has threads."""
    return fm_have_openmp()


def openmp_limit():
    """Threads that OpenMP would start now: OMP_NUM_THREADS, threadpoolctl and joblib set it."""
    return fm_max_threads()


def pass_line(int[::1] line, int first, int n):
    """Add 1 to line[0] when it is first, first + 2, ..., n times; another thread does the rest."""
    with nogil:
        fm_pass_line(<atomic_int *>&line[0], first, n)


def release_threads():
    """End OpenMP's worker threads; they come back when they are needed."""
    fm_release_threads()


cdef fm_matrix matrix_of(const real[:, :] array, str name) except *:
    """The array as the kernels see it; its rows have to be contiguous."""
    cdef fm_matrix matrix
    if array.shape[1] > 1 and array.strides[1] != sizeof(real):
        raise ValueError(f"{name}: expected contiguous rows")
    if array.shape[0] > 1 and array.strides[0] % <Py_ssize_t>sizeof(real) != 0:
        raise ValueError(f"{name}: expected aligned rows")
    matrix.data = <void *>&array[0, 0] if array.shape[0] and array.shape[1] else NULL
    matrix.rows = array.shape[0]
    matrix.cols = array.shape[1]
    matrix.ld = array.strides[0] // <Py_ssize_t>sizeof(real)
    return matrix


cdef const void *rows_of(const real[:] array, str name) except? NULL:
    """Address of a contiguous array."""
    if array.shape[0] > 1 and array.strides[0] != sizeof(real):
        raise ValueError(f"{name}: expected a contiguous array")
    return <const void *>&array[0] if array.shape[0] else NULL


set_isa(supported_isas().pop())
