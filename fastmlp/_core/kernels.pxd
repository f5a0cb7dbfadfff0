"""The C boundary, csrc/fastmlp.h, threads.h and subnormals.h, line by line."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from "fastmlp.h" nogil:
    enum: FM_FLOAT32
    enum: FM_FLOAT64
    enum: FM_FUSED
    enum: FM_GRADIENT
    enum: FM_APPLY

    ctypedef struct fm_matrix:
        void *data
        Py_ssize_t rows
        Py_ssize_t cols
        Py_ssize_t ld

    ctypedef struct fm_loss:
        int code
        int activation
        int fused
        const void *option

    ctypedef struct fm_targets:
        const int64_t *labels
        const void *rows
        Py_ssize_t ld

    ctypedef struct fm_update:
        int rule
        double beta1
        double beta2
        double l2
        double step_m
        double step_g
        double epsilon
        double shrink
        double lr
        double clip
        double factor
        int mode

    ctypedef struct fm_bits:
        uint8_t *data
        Py_ssize_t ld

    enum: FM_DENSE
    enum: FM_DROPOUT
    enum: FM_LAYER_NORM
    enum: FM_BATCH_NORM

    ctypedef struct fm_layer:
        int kind
        int activation
        fm_matrix W
        fm_matrix WT
        void *b
        void *W_moments[2]
        void *b_moments[2]
        double l1
        double l2
        double *penalties
        double *squares
        fm_matrix G
        void *gb
        double decay
        double max_norm
        double rate
        double epsilon
        fm_matrix H
        void *mean
        void *variance
        void *inverse
        void *gains
        void *shifts
        void *running[2]
        fm_matrix Z
        fm_matrix A
        fm_matrix D
        fm_bits nonzero

    ctypedef struct fm_net:
        int n_layers
        int first_trained
        fm_layer *layers
        fm_loss loss
        double loss_factor
        double gradient_factor

    ctypedef struct fm_data:
        const void *X
        Py_ssize_t n_features
        Py_ssize_t ldx
        int is_uint8
        const int64_t *labels
        const void *Y
        Py_ssize_t ldy
        const double *weight

    ctypedef struct fm_batch:
        const Py_ssize_t *index
        Py_ssize_t n
        double weight
        double penalty_scale
        uint64_t seed
        uint64_t first
        fm_matrix X[2]
        fm_matrix Y
        double *losses
        fm_bits nonzero[2]

    enum: FM_TOGETHER

    ctypedef struct fm_samples:
        const Py_ssize_t *order
        const double *rates
        Py_ssize_t n
        Py_ssize_t steps
        void *values[2]
        int32_t *lists[2]
        double *losses

    ctypedef struct fm_kernels:
        const char *isa
        int vector_bytes
        void (*affine_forward)(
            const fm_matrix *X, const fm_matrix *W, const void *b, fm_matrix *Z) noexcept nogil
        void (*affine_backward_weights)(
            const fm_matrix *X, const fm_matrix *dZ, fm_matrix *dW) noexcept nogil
        void (*affine_backward_bias)(const fm_matrix *dZ, void *db) noexcept nogil
        void (*transpose)(const fm_matrix *W, fm_matrix *WT) noexcept nogil
        void (*activation_forward)(
            int activation, const fm_matrix *Z, fm_matrix *A) noexcept nogil
        void (*activation_backward)(
            int activation, const fm_matrix *dA, const fm_matrix *Z, const fm_matrix *A,
            fm_matrix *dZ) noexcept nogil
        void (*loss_forward)(
            const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z, const fm_targets *Y,
            double *values) noexcept nogil
        void (*loss_backward)(
            const fm_loss *loss, const fm_matrix *A, const fm_matrix *Z, const fm_targets *Y,
            const double *scale, fm_matrix *dZ) noexcept nogil
        Py_ssize_t (*count_correct)(
            const fm_loss *loss, const fm_matrix *A, const fm_targets *Y) noexcept nogil
        void (*optimizer_update)(
            const fm_update *update, Py_ssize_t n, const void *g, void *w, void *s0,
            void *s1) noexcept nogil
        void (*gather)(
            const fm_data *data, const Py_ssize_t *index, Py_ssize_t n,
            fm_matrix *X) noexcept nogil
        size_t (*forward_scratch_size)(
            const fm_net *net, Py_ssize_t n, Py_ssize_t n_features
        ) noexcept nogil
        int (*net_forward)(const fm_net *net, const fm_matrix *X, void *scratch) noexcept nogil
        size_t (*scratch_size)(const fm_net *net, const fm_batch *batch) noexcept nogil
        int (*n_stages)(const fm_net *net) noexcept nogil
        void (*batch_slices)(
            const fm_net *net, const fm_data *data, fm_batch *batch, int part, int n_parts,
            void *scratch) noexcept nogil
        Py_ssize_t (*batch_rows)(
            const fm_net *net, const fm_data *data, fm_batch *batch, int stage, Py_ssize_t start,
            Py_ssize_t stop, void *scratch) noexcept nogil
        void (*batch_statistics)(
            const fm_net *net, const fm_batch *batch, int stage, int part,
            int n_parts) noexcept nogil
        void (*update_weights)(
            const fm_net *net, const fm_batch *batch, const fm_update *update, int part,
            int n_parts, void *scratch) noexcept nogil
        double (*sum_of_penalties)(const fm_net *net) noexcept nogil
        double (*sum_of_squares)(const fm_net *net) noexcept nogil
        void (*constrain_weights)(const fm_net *net, int part, int n_parts) noexcept nogil
        void (*average_weights)(
            Py_ssize_t n, double share, const void *w, void *average) noexcept nogil
        void (*sgd_samples)(
            const fm_net *net, const fm_data *data, fm_samples *run, Py_ssize_t n,
            double *sums) noexcept nogil

    const fm_kernels *fm_kernels_of(const char *isa, int dtype)
    const char *const *fm_isa_names()
    bint fm_isa_supported(const char *isa)
    void fm_set_native_activations(const void *table)
    bint fm_needs_z(int activation)
    bint fm_needs_row(int activation)

cdef extern from "threads.h" nogil:
    bint fm_have_openmp()
    int fm_max_threads()
    int fm_thread()
    int fm_team_size()
    void fm_release_threads()

    cdef enum:
        FM_APART

    ctypedef struct fm_start:
        pass

    void fm_start_init(fm_start *start)
    void fm_start_work(fm_start *start)

    ctypedef struct atomic_int:
        pass

    void fm_pass_line(atomic_int *line, int first, int n)

    ctypedef struct fm_barrier:
        pass

    void fm_barrier_init(fm_barrier *barrier)
    void fm_barrier_wait(fm_barrier *barrier, int thread, int team_size)

cdef extern from "subnormals.h" nogil:
    uint64_t fm_flush_subnormals()
    uint64_t fm_keep_subnormals()
    void fm_set_control(uint64_t control)
