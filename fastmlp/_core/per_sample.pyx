"""Plain stochastic gradient descent, sample by sample, on one thread. Kernel: csrc/sgd.inl.h."""

import numpy as np

from libc.math cimport isfinite
from libc.stdint cimport int32_t, uint64_t

from fastmlp._core.kernels cimport (
    FM_TOGETHER, fm_flush_subnormals, fm_samples, fm_set_control,
)
from fastmlp._core.net cimport BoundData, BoundNet, bound_data
from fastmlp._core.signals cimport SignalWatch, now

from fastmlp.arena import aligned_empty

# Rows of working memory.
ROWS = 2 * FM_TOGETHER

cdef enum:
    # Samples in one call of the kernel, between two looks for a signal; each takes under a
    # microsecond on small nets.
    LOOK_EVERY = 256


cdef class PerSampleTrainer:
    """Epochs of plain SGD with batches of one.

    Parameters
    ----------
    bound : BoundNet
        With working memory for `ROWS` rows.
    state : OptimizerState
        Its ``step`` counts the finished samples, also where Ctrl-C ends an epoch.
    """

    cdef BoundNet bound
    cdef BoundData data
    cdef object values, lists
    cdef SignalWatch watch
    cdef readonly object state

    def __init__(self, BoundNet bound, state):
        self.bound = bound
        self.watch = SignalWatch()
        self.state = state
        # Written whole vectors at a time.
        room = bound.n_inputs + 16
        n_values = FM_TOGETHER * room
        self.values = aligned_empty(2 * n_values, np.dtype(np.float64)).reshape(2, n_values)
        self.lists = aligned_empty(2 * room, np.dtype(np.int32)).reshape(2, room)

    def bind(self, BoundData data):
        """What the next epochs train on, or None."""
        self.data = data

    def epochs(
        self, const Py_ssize_t[::1] order, const double[::1] rates, double[:, ::1] sums,
        double[::1] losses
    ):
        """Passes over samples, one a row of `sums`, of which `order` has those of all.

        rates (n_epochs * n_samples,) # IN
        sums (n_epochs, 5), losses (n_epochs * n_samples,) # OUT, see EpochResults; zeros before
        """
        cdef fm_samples run
        cdef double[:, ::1] values = self.values
        cdef int32_t[:, ::1] lists = self.lists
        cdef SignalWatch watch = self.watch
        cdef BoundData data = bound_data(self.data)
        cdef Py_ssize_t epoch, end, n = order.shape[0] // sums.shape[0]
        cdef bint stop = False
        cdef double began
        cdef uint64_t control
        if order.shape[0] != n * sums.shape[0] or sums.shape[1] != 5:
            raise ValueError(f"sums: expected shape ({sums.shape[0]}, 5) for as many equal passes")
        if rates.shape[0] != order.shape[0]:
            raise ValueError(f"rates: expected {order.shape[0]} learning rates")
        if losses.shape[0] != order.shape[0]:
            raise ValueError(f"losses: expected shape ({order.shape[0]},)")
        run.order, run.rates, run.n, run.steps = &order[0], &rates[0], order.shape[0], 0
        run.losses = &losses[0]
        for slot in range(2):
            run.values[slot], run.lists[slot] = &values[slot, 0], &lists[slot, 0]
        with nogil:
            control = fm_flush_subnormals()
            self.bound.copy_transposed()
            for epoch in range(sums.shape[0]):
                began, end = now(), (epoch + 1) * n
                while run.steps < end and not stop:
                    self.bound.kernels.sgd_samples(
                        &self.bound.net, &data.data, &run, min(LOOK_EVERY, end - run.steps),
                        &sums[epoch, 0]
                    )
                    stop = not isfinite(sums[epoch, 0]) or watch.interrupted()
                sums[epoch, 4] = now() - began
                if stop:
                    break
            fm_set_control(control)
        # Here and not in Python, where a signal could come between the steps and their number.
        self.state.step += run.steps
        watch.reraise()
