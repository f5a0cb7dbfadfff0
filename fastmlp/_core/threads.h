/* The only file that touches OpenMP; the start of a team's work, its barrier, what it exchanges.
 * Without OpenMP a team is one thread. */
#ifndef FASTMLP_THREADS_H
#define FASTMLP_THREADS_H

#include <sched.h>
#include <stdatomic.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef _OPENMP
#include <omp.h>

static inline int fm_have_openmp(void) { return 1; }
static inline int fm_max_threads(void) { return omp_get_max_threads(); }
static inline int fm_thread(void) { return omp_get_thread_num(); }
static inline int fm_team_size(void) { return omp_get_num_threads(); }
/* Ends this thread's worker threads. A forked child has none of them, and libgomp would wait for
 * them for ever: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=58378 */
static inline void fm_release_threads(void) {
#if defined(__GNUC__) && __GNUC__ >= 9 && !defined(__clang__) /* with libgomp */
  omp_pause_resource_all(omp_pause_hard);
#endif
}
#else
static inline int fm_have_openmp(void) { return 0; }
static inline int fm_max_threads(void) { return 1; }
static inline int fm_thread(void) { return 0; }
static inline int fm_team_size(void) { return 1; }
static inline void fm_release_threads(void) {}
#endif

/* Bytes between the memory of two threads. Hardware that reads ahead does not stop where one
 * thread's memory ends, and a line of the next one's that it has taken has to be got back: two
 * threads on far CPUs, 28-300-300-300-300-300-1, ms for 300 steps with a line between 222, with two
 * pages 214, five 200, seventeen 192, more 192 to 195. */
enum { FM_APART = 17 << 12 };

static inline void fm_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

/* What the threads of a team do first. Behind a pause of the program they have slept. On virtual
 * machines, where a CPU that sleeps does not count as free, the scheduler often puts them into the
 * queue of the CPU that wakes them, where they stay until its next tick, 4 ms later: 20 ms behind
 * the last call 100 rows through 784-256-128-10 took 7.7 ms, 1000 rows 3.8 to 8.6. So the caller
 * gives way once, if somebody has not come after 8 us, and who finds itself on the caller's CPU
 * leaves it: 0.7 and 2.9 ms (one thread 0.8 and 5.1). */
typedef struct {
  int cpu; /* the caller's */
  atomic_int present;
} fm_start;

static inline void fm_start_init(fm_start *start) {
#ifdef __linux__
  start->cpu = sched_getcpu();
#endif
  atomic_init(&start->present, 1);
}

static inline void fm_start_work(fm_start *start) {
#ifdef __linux__
  enum { SPINS = 500 };
  if (fm_thread() == 0) {
    for (int i = 0; atomic_load(&start->present) < fm_team_size(); i++) {
      if (i == SPINS) {
        sched_yield();
        return;
      }
      fm_pause();
    }
    return;
  }
  atomic_fetch_add(&start->present, 1);
  cpu_set_t allowed;
  if (sched_getcpu() != start->cpu || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR((size_t)start->cpu, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed); /* which does not bring it back */
#else
  (void)start;
#endif
}

/* One of two threads that change a line by turns: n times, when it is `first`, first + 2, ..., it
 * adds 1. Gives way where the other one may be waiting for this CPU. */
static inline void fm_pass_line(atomic_int *line, int first, int n) {
  enum { SPINS = 500 };
  for (int i = first; i < first + 2 * n; i += 2) {
    for (int spins = 0; atomic_load_explicit(line, memory_order_acquire) != i; spins++)
      spins < SPINS ? fm_pause() : (void)sched_yield();
    atomic_store_explicit(line, i + 1, memory_order_release);
  }
}

/* A barrier that spins for about 30 us, longer than a team's threads are apart when each has a
 * core, and then sleeps. OpenMP's own spins for milliseconds: when another process holds one of the
 * cores, that takes the time from the very thread that is waited for. For the same reason a thread
 * sleeps at once when one that is missing was last seen on its own CPU, where the scheduler puts
 * both beside a busy process: a step of 20 us then takes 45 us and not 80. */
enum { FM_SEEN = 64, FM_CPUS = 4096 };

typedef struct {
  _Alignas(64) atomic_int arrived;
  _Alignas(64) atomic_uint phase;
  atomic_int sleepers;
  /* Of each thread: FM_CPUS times its phase, plus its CPU. */
  _Alignas(64) atomic_uint seen[FM_SEEN];
} fm_barrier;

static inline void fm_barrier_init(fm_barrier *barrier) {
  atomic_init(&barrier->arrived, 0);
  atomic_init(&barrier->phase, 0);
  atomic_init(&barrier->sleepers, 0);
  for (int i = 0; i < FM_SEEN; i++) atomic_init(&barrier->seen[i], ~0u);
}

/* Leaves word where this thread is; whether one that has not arrived was last seen there. */
static inline int fm_shares_its_cpu(fm_barrier *barrier, unsigned phase, int thread,
                                    int team_size) {
  int shared = 0;
#ifdef __linux__
  const unsigned here = (unsigned)sched_getcpu() % FM_CPUS, now = phase * FM_CPUS;
  if (thread < FM_SEEN)
    atomic_store_explicit(&barrier->seen[thread], now + here, memory_order_relaxed);
  for (int i = 0; i < team_size && i < FM_SEEN; i++) {
    const unsigned seen = atomic_load_explicit(&barrier->seen[i], memory_order_relaxed);
    shared |= seen % FM_CPUS == here && seen - here != now;
  }
#endif
  return shared;
}

static inline void fm_barrier_wait(fm_barrier *barrier, int thread, int team_size) {
  enum { SPINS = 2000 };
  if (team_size == 1) return;
  const unsigned phase = atomic_load(&barrier->phase);
  const int shared = fm_shares_its_cpu(barrier, phase, thread, team_size);
  if (atomic_fetch_add(&barrier->arrived, 1) == team_size - 1) {
    atomic_store(&barrier->arrived, 0);
    atomic_store(&barrier->phase, phase + 1);
#ifdef __linux__
    if (atomic_load(&barrier->sleepers))
      syscall(SYS_futex, &barrier->phase, FUTEX_WAKE_PRIVATE, team_size, NULL, NULL, 0);
#endif
    return;
  }
  for (int i = 0; i < SPINS && !shared; i++) {
    if (atomic_load_explicit(&barrier->phase, memory_order_acquire) != phase) return;
    fm_pause();
  }
#ifdef __linux__
  atomic_fetch_add(&barrier->sleepers, 1);
  while (atomic_load(&barrier->phase) == phase)
    syscall(SYS_futex, &barrier->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
  atomic_fetch_sub(&barrier->sleepers, 1);
#else
  while (atomic_load(&barrier->phase) == phase) sched_yield();
#endif
}
#endif
