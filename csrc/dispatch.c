/* Which tables this build has, and which of them this CPU can run. */
#include <string.h>

#include "fastmlp.h"

#define DECLARE(isa) extern const fm_kernels fm_kernels_##isa##_f32, fm_kernels_##isa##_f64;

typedef struct {
  const char *name;
  const fm_kernels *tables[FM_N_DTYPES];
  int (*supported)(void);
} isa_entry;

static int always(void) { return 1; }

DECLARE(baseline)
#if defined(__x86_64__)
DECLARE(avx2)
DECLARE(avx512)

/* __builtin_cpu_supports asks CPUID and, by XGETBV, whether the system saves the registers. */
static int has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int has_avx512(void) {
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
DECLARE(neon)
#endif

#define ENTRY(isa, check) {#isa, {&fm_kernels_##isa##_f32, &fm_kernels_##isa##_f64}, check}
static const isa_entry entries[] = {
    ENTRY(baseline, always),
#if defined(__x86_64__)
    ENTRY(avx2, has_avx2),
    ENTRY(avx512, has_avx512),
#elif defined(__aarch64__)
    ENTRY(neon, always),
#endif
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

static const isa_entry *find(const char *isa) {
  for (int i = 0; i < N_ENTRIES; i++)
    if (strcmp(entries[i].name, isa) == 0) return &entries[i];
  return NULL;
}

const char *const *fm_isa_names(void) {
  static const char *names[N_ENTRIES + 1];
  for (int i = 0; i < N_ENTRIES; i++) names[i] = entries[i].name;
  return names;
}

int fm_isa_supported(const char *isa) {
  const isa_entry *entry = find(isa);
  return entry && entry->supported();
}

const fm_native_activation (*fm_native_activations)[FM_N_DTYPES];

void fm_set_native_activations(const void *table) { fm_native_activations = table; }

const fm_kernels *fm_kernels_of(const char *isa, enum fm_dtype dtype) {
  const isa_entry *entry = find(isa);
  return entry && entry->supported() ? entry->tables[dtype] : NULL;
}
