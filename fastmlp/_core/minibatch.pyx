"""The minibatch epochs: one nogil call, one parallel region, two barriers a step.

Each thread runs

    batch_rows       its rows of the batch, forward and back, down to every dZ
    barrier
    update_weights   its rows of every weight matrix: gradient and optimizer
    barrier

over all steps. Where the first layer is wide, batch_slices, its share of that layer's products, and
a barrier come before. With batch norms batch_rows has stages, of which each needs sums over the
whole batch. Where the norm of the whole gradient limits it, update_weights comes in two halves with
a barrier between; where layers limit the norm of their weights, that is one more phase.
csrc/minibatch.inl.h says why the bits do not depend on the number of threads.
"""

import numpy as np

from fastmlp.arena import aligned_empty

from cython.parallel cimport parallel
from libc.math cimport INFINITY, isfinite, sqrt
from libc.stdint cimport uint8_t, uint64_t

from fastmlp._core.kernels cimport (
    FM_APART,
    FM_APPLY,
    FM_DENSE,
    FM_FUSED,
    FM_GRADIENT,
    fm_barrier,
    fm_barrier_init,
    fm_barrier_wait,
    fm_batch,
    fm_bits,
    fm_data,
    fm_flush_subnormals,
    fm_kernels,
    fm_matrix,
    fm_net,
    fm_set_control,
    fm_start,
    fm_start_init,
    fm_start_work,
    fm_team_size,
    fm_thread,
    fm_update,
)
from fastmlp._core.net cimport BoundData, BoundNet, address, bound_data
from fastmlp._core.signals cimport SignalWatch, now


cdef struct epoch_run:
    # What the threads share; `stop`, `steps` and `sums`, the row of the epoch, are thread 0's.
    fm_barrier barrier
    const fm_kernels *kernels
    const fm_net *net
    const fm_data *data
    fm_batch batch
    fm_update update
    const Py_ssize_t *order
    const uint64_t *seeds
    Py_ssize_t n_epochs
    Py_ssize_t n_samples
    Py_ssize_t batch_size
    const double *scalars
    char *scratch
    size_t scratch_size
    Py_ssize_t *correct
    Py_ssize_t steps
    double *sums
    double *losses
    const double *rates
    double clip_norm
    char *weights
    char *average
    Py_ssize_t n_weights
    double average_share
    size_t itemsize
    int n_stages
    bint penalised
    bint measures_norm
    bint constrained
    bint divide_penalty
    bint stop


cdef double weight_of(const fm_data *data, const fm_batch *batch) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t i
    if data.weight == NULL:
        return <double>batch.n
    for i in range(batch.n):
        total += data.weight[batch.index[i]]
    return total


cdef void finish_batch(
    epoch_run *run, const fm_batch *batch, Py_ssize_t step, SignalWatch watch
) noexcept nogil:
    """Thread 0, between the barriers: add up the batch's losses; decide whether to go on."""
    cdef double loss = 0
    cdef Py_ssize_t i
    for i in range(batch.n):
        loss += batch.losses[i]
    run.sums[0] += loss
    run.sums[1] += batch.weight
    run.losses[step] = loss / batch.weight if batch.weight > 0 else loss
    run.steps = step + 1
    run.stop = not isfinite(run.sums[0]) or watch.interrupted()


cdef void count_penalty(epoch_run *run, const fm_batch *batch, Py_ssize_t step) noexcept nogil:
    """Thread 0, behind the update: its strips' penalties belong to the loss before it."""
    cdef double penalty = run.kernels.sum_of_penalties(run.net)
    run.sums[0] += penalty * batch.weight
    run.losses[step] += penalty


cdef void average_part(epoch_run *run, int part, int n_parts) noexcept nogil:
    """Nobody changes a weight before the next barrier."""
    cdef Py_ssize_t start = run.n_weights * part // n_parts
    cdef Py_ssize_t stop = run.n_weights * (part + 1) // n_parts
    run.kernels.average_weights(
        stop - start, run.average_share, run.weights + start * run.itemsize,
        run.average + start * run.itemsize
    )


cdef Py_ssize_t run_step(
    epoch_run *run, fm_batch *batch, fm_update *update, Py_ssize_t step, int part, int n_parts,
    SignalWatch watch
) noexcept nogil:
    """Returns how many of this thread's samples were right."""
    cdef Py_ssize_t correct = 0
    cdef const double *scalars = run.scalars + 4 * step
    cdef double norm
    cdef int stage
    cdef void *scratch = run.scratch + part * run.scratch_size
    batch.weight = weight_of(run.data, batch)
    batch.penalty_scale = 1 / batch.weight if run.divide_penalty and batch.weight > 0 else 1
    update.step_m, update.step_g = scalars[0], scalars[1]
    update.epsilon, update.shrink = scalars[2], scalars[3]
    if batch.X[1].cols > 0:
        run.kernels.batch_slices(run.net, run.data, batch, part, n_parts, scratch)
        fm_barrier_wait(&run.barrier, part, n_parts)
    for stage in range(run.n_stages):
        if stage > 0:
            run.kernels.batch_statistics(run.net, batch, stage - 1, part, n_parts)
            fm_barrier_wait(&run.barrier, part, n_parts)
        correct += run.kernels.batch_rows(
            run.net, run.data, batch, stage, batch.n * part // n_parts,
            batch.n * (part + 1) // n_parts, scratch
        )
        fm_barrier_wait(&run.barrier, part, n_parts)
    if part == 0:
        finish_batch(run, batch, step, watch)
    if run.rates != NULL:
        update.lr = run.rates[step]
    if run.clip_norm < INFINITY:
        update.mode = FM_GRADIENT
        run.kernels.update_weights(run.net, batch, update, part, n_parts, scratch)
        fm_barrier_wait(&run.barrier, part, n_parts)
        norm = sqrt(run.kernels.sum_of_squares(run.net))
        update.mode = FM_APPLY
        update.factor = run.clip_norm / norm if norm > run.clip_norm else 1
    run.kernels.update_weights(run.net, batch, update, part, n_parts, scratch)
    fm_barrier_wait(&run.barrier, part, n_parts)
    if part == 0 and run.penalised:
        count_penalty(run, batch, step)
    if part == 0 and run.measures_norm:
        run.sums[3] += sqrt(run.kernels.sum_of_squares(run.net))
    if run.constrained:
        run.kernels.constrain_weights(run.net, part, n_parts)
        fm_barrier_wait(&run.barrier, part, n_parts)
    if run.average != NULL:
        average_part(run, part, n_parts)
    return correct


cdef void run_epochs(epoch_run *run, int part, int n_parts, SignalWatch watch) noexcept nogil:
    cdef fm_batch batch = run.batch
    cdef fm_update update = run.update
    cdef Py_ssize_t epoch, start, step = 0
    cdef double began = now()
    cdef uint64_t control = fm_flush_subnormals()
    for epoch in range(run.n_epochs):
        batch.seed = run.seeds[epoch]
        start = 0
        while start < run.n_samples:
            batch.n = min(run.batch_size, run.n_samples - start)
            batch.index = run.order + epoch * run.n_samples + start
            batch.first = run.batch.first + start
            run.correct[part * run.n_epochs + epoch] += run_step(
                run, &batch, &update, step, part, n_parts, watch
            )
            if run.stop:
                break
            step += 1
            start += run.batch_size
        if part == 0:
            run.sums[4] = now() - began
            began += run.sums[4]
            run.sums += 5
        if run.stop:
            break
    fm_set_control(control)


cdef tuple slices_of(const fm_net *net, Py_ssize_t n_inputs):
    """Widths of the inputs' two slices; of all inputs where the first layer is small, or of so few
    units that its strips may be of another height.

    Two threads whose caches are near each other gain nothing by them from 512-64 or 300-128 and 6%
    from 784-256; where they are far, 15% to 40%. The first slice is a multiple of 24: whole strips
    of all kernels. It is the wider one: images have more to skip in their upper half, and the
    scratch is made for it.
    """
    cdef const fm_matrix *W = &net.layers[0].W
    if net.layers[0].kind != FM_DENSE or n_inputs < 256 or W.rows * W.cols < 1 << 16 or W.cols < 16:
        return (n_inputs,)
    first = (n_inputs + 47) // 48 * 24
    return first, n_inputs - first


cdef class MinibatchTrainer:
    """Epochs over some data with one optimizer rule.

    Parameters
    ----------
    bound : BoundNet
        With working memory for a batch.
    labels : bool
        Whether the targets are labels, not rows.
    rule : Rule
        Of the optimizer.
    options : StepOptions
    weights, average : ndarray of shape (n_weights,), or None
        All parameters, and where their moving average is kept.
    state : OptimizerState
        Its ``step`` counts the finished steps, also where Ctrl-C ends an epoch.
    """

    cdef BoundNet bound
    cdef BoundData data
    cdef fm_update update
    cdef fm_batch batch
    cdef object options, weights, average
    cdef double average_share
    cdef list keep, bits
    cdef SignalWatch watch
    cdef readonly object state

    def __init__(
        self, BoundNet bound, bint labels, rule, options, state, weights=None, average=None
    ):
        dtype = np.dtype(np.float32 if bound.dtype == 0 else np.float64)
        self.bound = bound
        self.options = options
        self.weights, self.average = weights, average
        self.average_share = 1 - (rule.average or 0)
        self.update.rule = rule.code
        self.update.beta1, self.update.beta2, self.update.l2 = rule.beta1, rule.beta2, rule.l2
        self.update.clip = options.clip_value
        self.update.factor = 1
        self.update.mode = FM_FUSED
        self.watch = SignalWatch()
        self.state = state
        losses = np.zeros(bound.n_rows)
        cdef double[::1] losses_view = losses
        self.keep, self.bits = [losses], []
        self.batch.losses = &losses_view[0]
        for slice, width in enumerate(slices_of(&bound.net, bound.n_inputs)):
            self.batch.X[slice] = bound.own(bound.n_rows, width, dtype)
            self.bits.append(self.new_bits(width))
        for i in range(bound.net.n_layers - 1):
            self.bits.append(self.new_bits(bound.net.layers[i].A.cols))
        if not labels:
            n_outputs = bound.net.layers[bound.net.n_layers - 1].W.cols
            self.batch.Y = bound.own(bound.n_rows, n_outputs, dtype)

    cdef object new_bits(self, Py_ssize_t width):
        return np.zeros((self.bound.n_rows + 7, (width + 7) // 8 + 8), dtype=np.uint8)

    def bind(self, BoundData data, bint of_inputs=False, bint of_layers=False):
        """What the next epochs train on, or None.

        Zeros `of_inputs` and `of_layers`, what layers give to the next, are left out of the
        products, where that pays; only for finite weights.
        """
        cdef int i, n_slices = len(self.bits) - self.bound.net.n_layers + 1
        cdef fm_bits bits
        self.data = data
        for i, array in enumerate(self.bits):
            bits.data = <uint8_t *>address(array)
            bits.ld = array.shape[1]
            if not (of_inputs if i < n_slices else of_layers):
                bits.data = NULL
            if i < n_slices:
                self.batch.nonzero[i] = bits
            else:
                self.bound.net.layers[i - n_slices].nonzero = bits

    def epochs(
        self, const Py_ssize_t[::1] order, const double[:, ::1] scalars, int n_threads,
        double[:, ::1] sums, double[::1] losses, const double[::1] rates=None,
        const uint64_t[::1] seeds=None, uint64_t first=0
    ):
        """Passes over samples, one a row of `sums`, of which `order` has those of all.

        scalars (n_epochs * n_steps, 4), rates (n_epochs * n_steps,), for layers with a decay of
        their own # IN
        seeds (n_epochs,) # IN, of the layers' random numbers; first: place of the first sample
        sums (n_epochs, 5), losses (n_epochs * n_steps,) # OUT, see EpochResults; zeros before

        Returns
        -------
        int
            How many threads worked.
        """
        cdef epoch_run run
        cdef fm_start start
        cdef SignalWatch watch = self.watch
        cdef BoundData data = bound_data(self.data)
        cdef int team = 1
        run.n_epochs = sums.shape[0]
        run.n_samples = order.shape[0] // run.n_epochs
        n_steps = run.n_epochs * ((run.n_samples + self.bound.n_rows - 1) // self.bound.n_rows)
        if order.shape[0] != run.n_epochs * run.n_samples or sums.shape[1] != 5:
            raise ValueError(f"sums: expected shape ({run.n_epochs}, 5) for as many equal passes")
        if scalars.shape[0] != n_steps or scalars.shape[1] != 4:
            raise ValueError(f"scalars: expected shape ({n_steps}, 4)")
        for name, array in (("losses", losses), ("rates", rates)):
            if array is not None and array.shape[0] != n_steps:
                raise ValueError(f"{name}: expected shape ({n_steps},)")
        if seeds is None:
            seeds = np.zeros(run.n_epochs, dtype=np.uint64)
        if seeds.shape[0] != run.n_epochs:
            raise ValueError(f"seeds: expected shape ({run.n_epochs},)")
        fm_barrier_init(&run.barrier)
        run.kernels = self.bound.kernels
        run.net = &self.bound.net
        run.data = &data.data
        run.batch = self.batch
        run.batch.first = first
        run.update = self.update
        run.order = &order[0]
        run.seeds = &seeds[0]
        run.batch_size = self.bound.n_rows
        run.scalars = &scalars[0, 0]
        scratch_size = self.bound.kernels.scratch_size(run.net, &run.batch) // 64 * 64 + 64
        run.scratch_size = scratch_size + FM_APART
        size = (n_threads - 1) * run.scratch_size + scratch_size
        scratch = aligned_empty(size, np.dtype(np.int8))
        scratch[:] = 0
        cdef char[::1] scratch_view = scratch
        run.scratch = &scratch_view[0]
        correct = np.zeros((n_threads, run.n_epochs), dtype=np.intp)
        cdef Py_ssize_t[:, ::1] correct_view = correct
        run.correct = &correct_view[0, 0]
        run.steps = 0
        run.sums = &sums[0, 0]
        run.losses = &losses[0]
        run.rates = NULL
        if rates is not None:
            run.rates = &rates[0]
        run.clip_norm = self.options.clip_norm
        run.weights = run.average = NULL
        if self.average is not None:
            run.weights = <char *>address(self.weights)
            run.average = <char *>address(self.average)
            run.n_weights, run.itemsize = self.weights.size, self.weights.itemsize
            run.average_share = self.average_share
        run.n_stages = run.kernels.n_stages(run.net)
        run.penalised = self.bound.penalised
        run.measures_norm = self.options.measures_norm
        run.constrained = self.bound.constrained
        run.divide_penalty = self.options.divide_penalty
        run.stop = False
        with nogil:
            if n_threads == 1:
                run_epochs(&run, 0, 1, watch)
            else:
                fm_start_init(&start)
                with parallel(num_threads=n_threads):
                    fm_start_work(&start)
                    if fm_thread() == 0:
                        team_size(&team)
                    run_epochs(&run, fm_thread(), fm_team_size(), watch)
        # Here and not in Python, where a signal could come between the steps and their number.
        self.state.step += run.steps
        np.sum(correct, axis=0, out=np.asarray(sums)[:, 2])
        watch.reraise()
        return team


cdef void team_size(int *team) noexcept nogil:
    team[0] = fm_team_size()
