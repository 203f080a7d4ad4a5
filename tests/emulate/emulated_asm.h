// What cuda/asm.cuh has on a device, for the emulator.
#ifndef PITH_EMULATE_ASM_H
#define PITH_EMULATE_ASM_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

#include "emulate/warp.h"

namespace pith {

// ----------------------------------------------------------------------------------------------------------- memory

inline uint4 load_weights(const void *p) { return *static_cast<const uint4 *>(p); }
inline uint32_t load_weights4(const void *p) { return *static_cast<const uint32_t *>(p); }
inline uint2 load_shared8(const void *p) { return *static_cast<const uint2 *>(p); }
inline uint32_t load_shared4(const void *p) { return *static_cast<const uint32_t *>(p); }
inline uint4 load_x(const void *p) { return *static_cast<const uint4 *>(p); }
inline uint32_t load_x2(const void *p) { return *static_cast<const uint16_t *>(p); }
inline uint2 load_x8(const void *p) { return *static_cast<const uint2 *>(p); }

#define PITH_CUDA_DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulate::dynamic_shared())

inline void copy_on(size_t bytes, void *shared, const void *global, bool valid = true) {
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes)
        emulate::fault("a copy off its alignment");
    emulate::copy_later(shared, valid ? global : nullptr, bytes);
}
inline void copy16_async(void *shared, const void *global, bool valid = true) { copy_on(16, shared, global, valid); }
inline void copy_weights16_async(void *shared, const void *global) { copy_on(16, shared, global); }
template <int BYTES> void copy_weights_async(void *shared, const void *global) {
    static_assert(BYTES == 4 || BYTES == 8);
    copy_on(BYTES, shared, global);
}
inline uint32_t shared_address(const void *p) { return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(p)); }
inline void copies_commit() { emulate::commit_copies(); }
template <int N> void copies_wait() { emulate::wait_for_copies(N); }

// ---------------------------------------------------------------------------------------------------------- launches

inline void wait_for_previous() {}
inline void let_next_start() {}

// ------------------------------------------------------------------------------------------------------- arithmetic

inline float exp2_or_0(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
inline uint32_t larger_bf16x2(uint32_t a, uint32_t b) { // magnitudes compare as their bits do
    const uint32_t low = max(a & 0x7fffu, b & 0x7fffu), high = max(a & 0x7fff0000u, b & 0x7fff0000u);
    return low | high | ((a ^ b) & 0x80008000u);
}
inline uint32_t largest_of_warp(uint32_t x) {
    return emulate::in_warp<uint32_t>(0xffffffffu, x, [](const uint32_t *in, uint32_t *out) {
        for (uint32_t lane = 1; lane < 32; lane++) out[0] = lane == 1 ? max(in[0], in[1]) : max(out[0], in[lane]);
        for (uint32_t lane = 1; lane < 32; lane++) out[lane] = out[0];
    });
}
inline void keep(uint32_t &) {}

// ----------------------------------------------------------------------------------------------------- tensor cores

struct mma_operands {
    float c[4];
    uint32_t a[4], b[2];
};
struct mma_sums {
    float c[4];
};

void mma_of_warp(const mma_operands *in, mma_sums *out, bool bf16);

template <bool BF16> void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const mma_operands mine = {{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    const mma_sums sums = emulate::in_warp<mma_sums>(
        0xffffffffu, mine, [](const mma_operands *in, mma_sums *out) { mma_of_warp(in, out, BF16); });
    std::memcpy(c, sums.c, sizeof c);
}
template <typename T16> void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    mma<std::is_same_v<T16, __nv_bfloat16>>(c, a, b0, b1);
}
template <typename T16>
void mma_from(float (&d)[4], const float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    std::memcpy(d, c, sizeof d);
    mma<T16>(d, a, b0, b1);
}

struct byte_operands {
    uint32_t c[4], a[4], b[2];
};
struct byte_sums {
    uint32_t d[4];
};

void mma_bytes_of_warp(const byte_operands *in, byte_sums *out, bool is_signed); // a

template <bool SIGNED>
void mma_bytes(uint32_t (&d)[4], const uint32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const byte_operands mine = {{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    const byte_sums sums = emulate::in_warp<byte_sums>(
        0xffffffffu, mine, [](const byte_operands *in, byte_sums *out) { mma_bytes_of_warp(in, out, SIGNED); });
    std::memcpy(d, sums.d, sizeof d);
}

// ------------------------------------------------------------------------------------- matrices of 8x8 16-bit elements

// What lane `lane` holds of the transpose of a matrix whose row r begins at row(r).
template <typename Row> uint32_t of_transpose(uint32_t lane, Row row) {
    const uint32_t p = lane / 4, t = lane % 4;
    uint16_t low, high;
    std::memcpy(&low, row(2 * t) + 2 * p, 2), std::memcpy(&high, row(2 * t + 1) + 2 * p, 2);
    return low | (uint32_t)high << 16;
}

inline uint32_t transpose8(uint32_t x) {
    return emulate::in_warp<uint32_t>(0xffffffffu, x, [](const uint32_t *in, uint32_t *out) {
        const auto row = [in](uint32_t r) { return reinterpret_cast<const uint8_t *>(in + 4 * r); };
        for (uint32_t lane = 0; lane < 32; lane++) out[lane] = of_transpose(lane, row);
    });
}

struct four_words {
    uint32_t r[4];
};
template <bool TRANSPOSED> void load_four(uint32_t (&r)[4], const void *at) {
    if (reinterpret_cast<uintptr_t>(at) % 16) emulate::fault("a row of a matrix off 16 bytes");
    const four_words words = emulate::in_warp<four_words>(
        0xffffffffu, static_cast<const uint8_t *>(at), [](const uint8_t *const *in, four_words *out) {
            for (uint32_t lane = 0; lane < 32; lane++)
                for (uint32_t i = 0; i < 4; i++) {
                    if (TRANSPOSED) out[lane].r[i] = of_transpose(lane, [&](uint32_t row) { return in[8 * i + row]; });
                    else std::memcpy(&out[lane].r[i], in[8 * i + lane / 4] + lane % 4 * 4, 4);
                }
        });
    std::memcpy(r, words.r, sizeof r);
}
inline void load_matrix4(uint32_t (&r)[4], const void *at) { load_four<false>(r, at); }
inline void load_matrix4_trans(uint32_t (&r)[4], const void *at) { load_four<true>(r, at); }

} // namespace pith

#endif
