#include <stdint.h>
#include <string.h>

#include "cpu/cpuid.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has(uint32_t word, unsigned bit) { return word >> bit & 1u; }

// Register state that the operating system saves and restores: XCR0. Without it the CPU's word is not enough.
static uint64_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

void pith_cpu_detect(pith_cpu_features *out) {
    enum { YMM = 0x06, ZMM = 0xe6 }; // XCR0: SSE and AVX; with mask registers and both parts of the ZMM state
    uint32_t a, b, c, d;
    *out = (pith_cpu_features){0};

    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    const bool osxsave = has(c, 27), fma = has(c, 12), f16c = has(c, 29), avx = has(c, 28);
    const uint64_t state = osxsave ? saved_state() : 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    const uint32_t n_subleaves = a;

    out->avx2 = avx && fma && f16c && has(b, 5) && (state & YMM) == YMM;
    out->avx512 = out->avx2 && has(b, 16) && has(b, 17) && has(b, 30) && has(b, 31) && (state & ZMM) == ZMM;
    out->avx512_vnni = out->avx512 && has(c, 11);
    if (n_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        out->avx_vnni = out->avx2 && has(a, 4);
        out->avx512_bf16 = out->avx512 && has(a, 5);
    }
}

#else

void pith_cpu_detect(pith_cpu_features *out) {
    *out = (pith_cpu_features){0};
#if defined(__aarch64__)
    out->neon = true;
#endif
}

#endif

bool pith_cpu_listed(const char *list, const char *name) {
    const size_t length = strlen(name);
    while (list && *list) {
        list += strspn(list, ", ");
        const size_t entry = strcspn(list, ", ");
        if (entry == length && memcmp(list, name, length) == 0) return true;
        list += entry;
    }
    return false;
}
