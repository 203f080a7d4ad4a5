// In place of the toolkit's header: the language that nvcc adds to C++, as far as Pith's kernels use it. The compiler
// is told to include it first, as nvcc does.
#ifndef PITH_EMULATE_RUNTIME_H
#define PITH_EMULATE_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <math.h>

#include <cuda_runtime_api.h>

// ------------------------------------------------------------------------------------------------------ qualifiers

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static // blocks run one after the other

// ---------------------------------------------------------------------------------------------------------- vectors

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

#include "emulate/warp.h"

// ------------------------------------------------------------------------------------------------ threads, warps

inline void __syncthreads() { emulate::block_barrier(); }
inline void __threadfence() {}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulate::in_warp<char>(mask, char(), [](const char *, char *) {});
}
template <typename T> T __shfl_sync(unsigned mask, T x, unsigned lane) { return emulate::shuffle(mask, x, lane % 32); }
template <typename T> T __shfl_xor_sync(unsigned mask, T x, unsigned other) {
    return emulate::shuffle(mask, x, emulate::lane() ^ other);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, unsigned down) {
    return emulate::shuffle(mask, x, emulate::lane() < down ? emulate::lane() : emulate::lane() - down);
}
inline bool __any_sync(unsigned mask, bool x) {
    return emulate::in_warp<char>(mask, (char)x, [](const char *in, char *out) {
        char any = 0;
        for (int i = 0; i < 32; i++) any |= in[i];
        std::memset(out, any, 32);
    });
}
inline unsigned __ballot_sync(unsigned mask, bool x) {
    return emulate::in_warp<unsigned>(mask, (char)x, [](const char *in, unsigned *out) {
        unsigned all = 0;
        for (int i = 0; i < 32; i++) all |= (unsigned)in[i] << i;
        for (int i = 0; i < 32; i++) out[i] = all;
    });
}
inline unsigned __match_any_sync(unsigned mask, unsigned x) {
    return emulate::in_warp<unsigned>(mask, x, [](const unsigned *in, unsigned *out) {
        for (int i = 0; i < 32; i++) {
            out[i] = 0;
            for (int j = 0; j < 32; j++) out[i] |= (unsigned)(in[j] == in[i]) << j;
        }
    });
}

// ----------------------------------------------------------------------------------------------------------- memory

template <typename T> T __ldcg(const T *p) { return *p; }
template <typename T> T __ldcs(const T *p) { return *p; }
template <typename T> void __stcg(T *p, T x) { *p = x; }
inline uint32_t atomicAdd(uint32_t *p, uint32_t x) {
    const uint32_t before = *p;
    *p += x;
    return before;
}

inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long x) {
    const unsigned long long before = *p;
    *p += x;
    return before;
}

inline uint32_t atomicInc(uint32_t *p, uint32_t last) { // from `last` back to 0
    const uint32_t before = *p;
    *p = before >= last ? 0 : before + 1;
    return before;
}

// ------------------------------------------------------------------------------------------------------- arithmetic

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float emulated_fast_exp(float x) { return expf(x); } // glibc has a function of the other name
#define __expf emulated_fast_exp
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }

inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t which) {
    const uint64_t both = (uint64_t)high << 32 | low;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) out |= (uint32_t)(both >> (which >> 4 * i & 7) * 8 & 255) << 8 * i;
    return out;
}

// --------------------------------------------------------------------------------------------------------- launches

typedef enum cudaLaunchAttributeID {
    cudaLaunchAttributeClusterDimension,
    cudaLaunchAttributeProgrammaticStreamSerialization
} cudaLaunchAttributeID;
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        dim3 clusterDim;
        int programmaticStreamSerializationAllowed;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
typedef enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize,
    cudaFuncAttributePreferredSharedMemoryCarveout
} cudaFuncAttribute;
struct cudaFuncAttributes {
    int ptxVersion;
};

namespace emulate {
cudaError_t set_attribute(const void *kernel, cudaFuncAttribute, int);
cudaError_t launch(const void *kernel, const cudaLaunchConfig_t &, std::function<void()>);
} // namespace emulate

template <typename T> cudaError_t cudaMalloc(T **p, size_t bytes) { return cudaMalloc((void **)p, bytes); }
template <typename Kernel> cudaError_t cudaFuncSetAttribute(Kernel *kernel, cudaFuncAttribute what, int value) {
    return emulate::set_attribute((const void *)kernel, what, value);
}
// A build for sm_80: without clusters, and every launch starts when all before it have ended.
template <typename Kernel> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, Kernel *) {
    out->ptxVersion = 80;
    return cudaSuccess;
}
// Few blocks, so that each has more than one piece of work.
template <typename Kernel> cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, Kernel *, int, size_t) {
    *out = 1;
    return cudaSuccess;
}
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments &&...arguments) {
    return emulate::launch((const void *)kernel, *config, [=] { kernel(arguments...); });
}

#endif
