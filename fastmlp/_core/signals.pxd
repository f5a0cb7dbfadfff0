cdef double now() noexcept nogil


cdef class SignalWatch:
    cdef object error
    cdef double next_look

    cdef bint interrupted(self) noexcept nogil
    cdef bint look(self) noexcept with gil
