// Which instruction set extensions this CPU has and this operating system lets programs use.
//
// Asked of the processor itself: the compilers' builtins differ in the names they accept, and the result must not
// depend on how the program was compiled.
#ifndef PITH_CPU_CPUID_H
#define PITH_CPU_CPUID_H

#include <stdbool.h>

// Every member includes the ones it stands on: a set flag means that all of its instructions may be executed.
typedef struct pith_cpu_features {
    bool avx2;        // AVX2, FMA, F16C
    bool avx512;      // the above, AVX-512 F, BW, DQ, VL
    bool avx512_vnni; // the above, AVX-512 VNNI
    bool avx512_bf16; // avx512 and AVX-512 BF16
    bool avx_vnni;    // avx2 and the 256-bit VEX form of VNNI
    bool neon;        // AArch64: always
} pith_cpu_features;

// Executes CPUID a few times (microseconds; more in a virtual machine): ask once and keep the answer.
void pith_cpu_detect(pith_cpu_features *out);

// Is `name` an entry of the comma-separated list? Spaces around entries do not count. `list` may be NULL: no.
bool pith_cpu_listed(const char *list, const char *name);

#endif
