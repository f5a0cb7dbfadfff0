/* The only file that touches OpenMP. Without it, a team is one thread. */
#ifndef FASTMLP_THREADS_H
#define FASTMLP_THREADS_H

#ifdef _OPENMP
#include <omp.h>

static inline int fm_have_openmp(void) { return 1; }
static inline int fm_max_threads(void) { return omp_get_max_threads(); }
static inline int fm_thread(void) { return omp_get_thread_num(); }
static inline int fm_team_size(void) { return omp_get_num_threads(); }
static inline void fm_barrier(void) {
#pragma omp barrier
}
/* Ends this thread's worker threads. A forked child has none of them, and libgomp would wait for
 * them for ever: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=58378 */
static inline void fm_release_threads(void) {
#if _OPENMP >= 201811 && !defined(__clang__)
  omp_pause_resource_all(omp_pause_hard);
#endif
}
#else
static inline int fm_have_openmp(void) { return 0; }
static inline int fm_max_threads(void) { return 1; }
static inline int fm_thread(void) { return 0; }
static inline int fm_team_size(void) { return 1; }
static inline void fm_barrier(void) {}
static inline void fm_release_threads(void) {}
#endif
#endif
