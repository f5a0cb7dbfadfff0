"""Ctrl-C inside a nogil loop.

Python only notes a signal when it arrives; somebody has to ask. `interrupted` asks every 50 ms, in
the thread that called the loop; no handler of its own is installed.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, clockid_t, timespec

from fastmlp._core.kernels cimport fm_keep_subnormals, fm_set_control

cdef extern from *:
    """
    #include <time.h>
    #ifdef CLOCK_MONOTONIC_COARSE /* to some milliseconds, in 5 ns and not 30 */
    #define FM_COARSE_CLOCK CLOCK_MONOTONIC_COARSE
    #else
    #define FM_COARSE_CLOCK CLOCK_MONOTONIC
    #endif
    """
    clockid_t FM_COARSE_CLOCK

cdef double INTERVAL = 0.05


cdef double read_clock(clockid_t clock) noexcept nogil:
    cdef timespec t
    clock_gettime(clock, &t)
    return <double>t.tv_sec + 1e-9 * <double>t.tv_nsec


cdef double now() noexcept nogil:
    return read_clock(CLOCK_MONOTONIC)


cdef class SignalWatch:
    """Remembers what a signal handler raised until the loop has ended."""

    cdef bint interrupted(self) noexcept nogil:
        """Whether a handler raised (KeyboardInterrupt, say); cheap enough for every step."""
        cdef double time = read_clock(FM_COARSE_CLOCK)
        if time < self.next_look:
            return False
        self.next_look = time + INTERVAL
        return self.look()

    cdef bint look(self) noexcept with gil:
        cdef uint64_t control = fm_keep_subnormals()  # for the handlers
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.error = error
        fm_set_control(control)
        return self.error is not None

    def reraise(self):
        """Raise what the handler raised, if it did."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
