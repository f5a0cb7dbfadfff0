"""Plain stochastic gradient descent, sample by sample, on one thread. Kernel: csrc/sgd.inl.h."""

import numpy as np

from libc.math cimport isfinite
from libc.stdint cimport int32_t

from fastmlp._core.kernels cimport fm_data, fm_kernels, fm_net
from fastmlp._core.net cimport BoundData, BoundNet, bound_data
from fastmlp._core.signals cimport SignalWatch, now

cdef enum:
    # Samples between two looks at the clock; each takes under a microsecond on small nets.
    LOOK_EVERY = 256


cdef struct sample_run:
    const fm_kernels *kernels
    const fm_net *net
    const fm_data *data
    void *values
    int32_t *indices
    Py_ssize_t steps
    double *losses
    bint stop


cdef void run_samples(
    sample_run *run, const Py_ssize_t *order, const double *rates, Py_ssize_t n, double *sums,
    SignalWatch watch
) noexcept nogil:
    """One pass."""
    cdef Py_ssize_t i
    cdef double loss = 0, weight, began = now()
    for i in range(n):
        sums[2] += run.kernels.sgd_sample(
            run.net, run.data, order + i, n - i, rates[i], run.values, run.indices, &loss
        )
        sums[0] += loss
        weight = 1 if run.data.weight == NULL else run.data.weight[order[i]]
        sums[1] += weight
        run.losses[run.steps] = loss / weight if weight > 0 else loss
        run.steps += 1
        run.stop = not isfinite(sums[0]) or (run.steps % LOOK_EVERY == 0 and watch.interrupted())
        if run.stop:
            break
    sums[4] = now() - began


cdef class PerSampleTrainer:
    """Epochs of plain SGD with batches of one.

    Parameters
    ----------
    bound : BoundNet
        With working memory for one row.
    state : OptimizerState
        Its ``step`` counts the finished samples, also where Ctrl-C ends an epoch.
    """

    cdef BoundNet bound
    cdef BoundData data
    cdef object values, indices
    cdef SignalWatch watch
    cdef readonly object state

    def __init__(self, BoundNet bound, state):
        self.bound = bound
        self.watch = SignalWatch()
        self.state = state
        # The list of non-zero features is written whole vectors at a time.
        room = bound.n_inputs + 16
        self.values = np.zeros(room * 8, dtype=np.int8)
        self.indices = np.zeros(room, dtype=np.int32)

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
        cdef sample_run run
        cdef char[::1] values = self.values
        cdef int32_t[::1] indices = self.indices
        cdef SignalWatch watch = self.watch
        cdef BoundData data = bound_data(self.data)
        cdef Py_ssize_t epoch, n = order.shape[0] // sums.shape[0]
        if order.shape[0] != n * sums.shape[0] or sums.shape[1] != 5:
            raise ValueError(f"sums: expected shape ({sums.shape[0]}, 5) for as many equal passes")
        if rates.shape[0] != order.shape[0]:
            raise ValueError(f"rates: expected {order.shape[0]} learning rates")
        if losses.shape[0] != order.shape[0]:
            raise ValueError(f"losses: expected shape ({order.shape[0]},)")
        run.kernels = self.bound.kernels
        run.net = &self.bound.net
        run.data = &data.data
        run.values = &values[0]
        run.indices = &indices[0]
        run.steps = 0
        run.losses = &losses[0]
        run.stop = False
        with nogil:
            self.bound.copy_transposed()
            for epoch in range(sums.shape[0]):
                run_samples(
                    &run, &order[epoch * n], &rates[epoch * n], n, &sums[epoch, 0], watch
                )
                if run.stop:
                    break
        # Here and not in Python, where a signal could come between the steps and their number.
        self.state.step += run.steps
        watch.reraise()
