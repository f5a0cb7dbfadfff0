"""Plain stochastic gradient descent, sample by sample, on one thread. Kernel: csrc/sgd.inl.h."""

import numpy as np

from libc.math cimport isfinite
from libc.stdint cimport int32_t

from fastmlp._core.kernels cimport fm_data, fm_kernels, fm_net
from fastmlp._core.net cimport BoundData, BoundNet, bound_data
from fastmlp._core.signals cimport SignalWatch

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
    Py_ssize_t correct
    double *losses
    double loss
    double weight


cdef void run_samples(
    sample_run *run, const Py_ssize_t *order, const double *rates, Py_ssize_t n, SignalWatch watch
) noexcept nogil:
    cdef Py_ssize_t i
    cdef double loss = 0, weight
    for i in range(n):
        run.correct += run.kernels.sgd_sample(
            run.net, run.data, order + i, n - i, rates[i], run.values, run.indices, &loss
        )
        run.loss += loss
        weight = 1 if run.data.weight == NULL else run.data.weight[order[i]]
        run.weight += weight
        if run.losses != NULL:
            run.losses[i] = loss / weight if weight > 0 else loss
        run.steps = i + 1
        if not isfinite(run.loss) or (i % LOOK_EVERY == 0 and watch.interrupted()):
            break


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

    def epoch(
        self, const Py_ssize_t[::1] order, const double[::1] rates, double[::1] losses=None
    ):
        """One pass over the samples `order`, one learning rate each.

        losses (n,) # OUT, each sample's loss; unwritten behind a stop

        Returns
        -------
        loss, weight : float
            Sums over the samples of weight times loss, and of the weights.
        correct : int
        """
        cdef sample_run run
        cdef char[::1] values = self.values
        cdef int32_t[::1] indices = self.indices
        cdef SignalWatch watch = self.watch
        cdef BoundData data = bound_data(self.data)
        if rates.shape[0] != order.shape[0]:
            raise ValueError(f"rates: expected {order.shape[0]} learning rates")
        if losses is not None and losses.shape[0] != order.shape[0]:
            raise ValueError(f"losses: expected shape ({order.shape[0]},)")
        run.kernels = self.bound.kernels
        run.net = &self.bound.net
        run.data = &data.data
        run.values = &values[0]
        run.indices = &indices[0]
        run.steps = run.correct = 0
        run.losses = NULL if losses is None else &losses[0]
        run.loss = run.weight = 0
        with nogil:
            self.bound.copy_transposed()
            run_samples(&run, &order[0], &rates[0], order.shape[0], watch)
        # Here and not in Python, where a signal could come between the steps and their number.
        self.state.step += run.steps
        watch.reraise()
        return run.loss, run.weight, run.correct
