// The choice among the levels of our kernels.
#include "cpu/kernels_isa.h"
#include "cpu/cpuid.h"

size_t pith_cpu_kernels_all(const pith_cpu_kernels *out[4]) {
    pith_cpu_features cpu;
    size_t n = 0;
    pith_cpu_detect(&cpu);
#if defined(__x86_64__)
    if (cpu.avx512) out[n++] = &pith_kernels_avx512;
    if (cpu.avx2) out[n++] = &pith_kernels_avx2;
#elif defined(__aarch64__)
    if (cpu.neon) out[n++] = &pith_kernels_neon;
#endif
    out[n++] = &pith_kernels_portable;
    return n;
}

const pith_cpu_kernels *pith_cpu_kernels_choose(const char *disabled) {
    const pith_cpu_kernels *all[4];
    const size_t n = pith_cpu_kernels_all(all);
    for (size_t i = 0; i + 1 < n; i++)
        if (!pith_cpu_listed(disabled, all[i]->name)) return all[i];
    return all[n - 1]; // portable, whatever the list says: something has to run
}
