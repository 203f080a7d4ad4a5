// The few instructions that the kernels need and C++ does not have. Where there is no nvcc the kernels run on the host,
// as tests, and tests/emulate says what these do there.
#ifndef PITH_CUDA_ASM_CUH
#define PITH_CUDA_ASM_CUH

#ifndef __CUDACC__
#include <emulated_asm.h>
#else

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace pith {

// ------------------------------------------------------------------------------------------------------------- memory

// Weights: read once, never written while a kernel runs. Past L1, which is for activations; the whole 128-byte line
// into L2, since another warp wants its other half at almost the same time.
__device__ __forceinline__ uint4 load_weights(const void *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
__device__ __forceinline__ uint32_t load_weights4(const void *p) {
    uint32_t v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
// Supers: eight steps share them, so these may stay in L1.
__device__ __forceinline__ uint2 load_shared8(const void *p) {
    uint2 v;
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}
__device__ __forceinline__ uint32_t load_shared4(const void *p) {
    uint32_t v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

// Activations. Never the read-only path: with overlapping launches the kernel that writes them may still run when the
// one that reads them starts, and only ordinary loads are ordered by wait_for_previous().
__device__ __forceinline__ uint4 load_x(const void *p) {
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ uint32_t load_x2(const void *p) {
    uint16_t v;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(p) : "memory");
    return v;
}
__device__ __forceinline__ uint2 load_x8(const void *p) {
    uint2 v;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}

// The block's shared memory whose size the launch gives.
#define PITH_CUDA_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]

__device__ __forceinline__ void copy16_async(void *shared, const void *global, bool valid) {
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    const int bytes = valid ? 16 : 0; // the rest of the 16 is filled with 0
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy16_async(void *shared, const void *global) {
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
}
// Weights: past L1 where the instruction can, as load_weights() has them.
__device__ __forceinline__ void copy_weights16_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}
template <int BYTES> __device__ __forceinline__ void copy_weights_async(void *shared, const void *global) { // 4 or 8
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "n"(BYTES)
                 : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// -------------------------------------------------------------------------------------------------- copies of tensors

__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

#if __CUDA_ARCH__ >= 900
// A barrier in shared memory that one arrival completes, and bytes that it expects.
__device__ __forceinline__ void barrier_begin(uint64_t *b) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(b)) : "memory");
}
// Before a copy, which is another proxy's, arrives at one.
__device__ __forceinline__ void barriers_begun() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t *b, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t *b, uint32_t parity) {
    asm volatile("{\n.reg .pred p;\nAGAIN: mbarrier.try_wait.parity.shared.b64 p, [%0], %1;\n@!p bra AGAIN;\n}" ::"r"(
                     shared_address(b)),
                 "r"(parity)
                 : "memory");
}
// The tile at (k, row) of a map. 0x12f0...: the policy "evict first", as createpolicy makes it: weights are read once.
template <typename Map>
__device__ __forceinline__ void copy_tile(void *to, const Map *map, uint32_t k, uint32_t row, uint64_t *b) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
                 "l"(map), "r"(k), "r"(row), "r"(shared_address(b)), "l"(0x12f0000000000000ull)
                 : "memory");
}
// Bytes in a row: a multiple of 16, from 16 to 16.
__device__ __forceinline__ void copy_run(void *to, const void *from, uint32_t bytes, uint64_t *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b)), "l"(0x12f0000000000000ull)
                 : "memory");
}
#endif

// ------------------------------------------------------------------------------------------------------------ launches

// Before anything that an earlier kernel writes is read, and before anything that it reads is written.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --------------------------------------------------------------------------------------------------------- arithmetic

// exp2f without its care for results below 2^-126, which are 0 here. Of 0 it is exactly 1.
__device__ __forceinline__ float exp2_or_0(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The larger magnitudes of two pairs of bf16, NaN above all, with any signs.
__device__ __forceinline__ uint32_t larger_bf16x2(uint32_t a, uint32_t b) {
    uint32_t c;
#if __CUDA_ARCH__ >= 900
    asm("max.NaN.xorsign.abs.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
#else
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a & 0x7fff7fffu), "r"(b & 0x7fff7fffu));
#endif
    return c;
}
// The largest of a warp's.
__device__ __forceinline__ uint32_t largest_of_warp(uint32_t x) { return __reduce_max_sync(0xffffffffu, x); }

// Keeps a value in its register: the compiler would rather compute it again each time that it is used.
__device__ __forceinline__ void keep(uint32_t &x) { asm volatile("" : "+r"(x)); }

// ------------------------------------------------------------------------------------------------------- tensor cores

// c (16, 8) += a (16, 16) b (16, 8), f32 sums. Lane = 4 p + t holds
//     a[0] = A[p][2t..2t+1]  a[1] = A[p+8][2t..]  a[2] = A[p][2t+8..]  a[3] = A[p+8][2t+8..]
//     b0   = B[2t..2t+1][p]  b1   = B[2t+8..][p]
//     c[0..1] = C[p][2t..2t+1]   c[2..3] = C[p+8][2t..2t+1]
// Which k the two times eight of an operand stand for is up to us, as long as it is the same for both.
template <typename T16>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (sizeof(T16) == 2 && __is_same(T16, __nv_bfloat16))
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = c + a b, where c stays.
template <typename T16>
__device__ __forceinline__ void mma_from(float (&d)[4], const float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
    if constexpr (__is_same(T16, __nv_bfloat16))
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%10, %11, %12, %13};"
            : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%10, %11, %12, %13};"
            : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// The same for kernels that know their type as a bool.
template <bool BF16>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (BF16)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d (16, 8) = c + a (16, 32) b (32, 8) in integers; b has signed bytes, a signed or unsigned ones. Lane = 4 p + t holds
//     a[0] = A[p][4t..4t+3]  a[1] = A[p+8][4t..]  a[2] = A[p][4t+16..]  a[3] = A[p+8][4t+16..]
//     b0   = B[4t..4t+3][p]  b1   = B[4t+16..][p]
// and c and d as above.
template <bool SIGNED>
__device__ __forceinline__ void mma_bytes(uint32_t (&d)[4], const uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                          uint32_t b1) {
    if constexpr (SIGNED)
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%10, %11, %12, %13};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
    else
        asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%10, %11, %12, %13};"
            : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

// ------------------------------------------------------------------------------------- matrices of 8x8 16-bit elements

// The transpose of an 8x8 matrix of 16-bit elements: in, lane 4 p + t holds M[p][2t..2t+1]; out, M[2t..2t+1][p].
__device__ __forceinline__ uint32_t transpose8(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

// Four such matrices: lane 8 i + r says where row r of matrix i begins; r[i] is the lane's part of it, or of its
// transpose.
__device__ __forceinline__ void load_matrix4(uint32_t (&r)[4], const void *at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(at))
                 : "memory");
}
__device__ __forceinline__ void load_matrix4_trans(uint32_t (&r)[4], const void *at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(at))
                 : "memory");
}

} // namespace pith

#endif
#endif
