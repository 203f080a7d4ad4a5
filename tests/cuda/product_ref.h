// Operands for the tests of products: weights in blocks as GGUF stores them, and what each weight is, in double
// precision; activations, and what a product makes of them.
#ifndef PITH_TEST_PRODUCT_REF_H
#define PITH_TEST_PRODUCT_REF_H

#include "base/half.h"
#include "cuda/quant.cuh"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

static const char *const TYPE_NAME[] = {"bf16", "f16", "q8_0", "q4_0", "q4_k", "q6_k"};

struct Random {
    uint64_t s;
    uint32_t next() {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        return (uint32_t)(s >> 32);
    }
    int between(int a, int b) { return a + (int)(next() % (uint32_t)(b - a + 1)); }
    float unit() { return (float)(next() >> 8) / 8388608.f - 1.f; } // [-1, 1)
};

static inline bool is_quant(pith_cuda_type t) { return t >= PITH_CUDA_Q8_0; }
static inline size_t row_bytes(pith_cuda_type t, uint32_t k) {
    const pith_quant_layout l = pith_quant_layout_of(t);
    return is_quant(t) ? (size_t)(k / l.block) * l.block_bytes : (size_t)k * 2;
}
static inline void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline uint16_t get16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

// (m, k) as in the file. Exact: scales are 1/64, floats small integers over 8, so that sums of a few thousand products
// with small integers are exact in f32. Otherwise anything, of magnitude about 1/32.
static inline std::vector<uint8_t> random_weights(pith_cuda_type t, uint32_t m, uint32_t k, bool exact, Random &r) {
    std::vector<uint8_t> w(row_bytes(t, k) * m);
    if (!is_quant(t)) {
        for (size_t i = 0; i < w.size(); i += 2) {
            const float v = exact ? (float)r.between(-8, 8) / 8.f : r.unit() / 16.f;
            put16(&w[i], t == PITH_CUDA_BF16 ? pith_f32_to_bf16(v) : pith_f32_to_f16(v));
        }
        return w;
    }
    const pith_quant_layout l = pith_quant_layout_of(t);
    for (auto &b : w) b = (uint8_t)r.next();
    const float base = t == PITH_CUDA_Q8_0 ? 1 / 2048.f : t == PITH_CUDA_Q4_0 ? 1 / 128.f : 1 / 8192.f;
    for (size_t at = 0; at < w.size(); at += l.block_bytes) {
        const auto d = [&] { return pith_f32_to_f16(exact ? 1 / 64.f : base * (1.f + 0.5f * r.unit())); };
        const size_t place = t == PITH_CUDA_Q6_K ? 208 : 0;
        put16(&w[at + place], d());
        if (t == PITH_CUDA_Q4_K) put16(&w[at + 2], d());
        if (t == PITH_CUDA_Q6_K && exact)
            for (int i = 0; i < 16; i++) w[at + 192 + i] = (uint8_t)r.between(-8, 8);
    }
    return w;
}

// Weight i of a row. Block layouts: ggml-common.h of ggml.
static inline double weight_at(pith_cuda_type t, const uint8_t *row, uint32_t i) {
    if (t == PITH_CUDA_BF16) return pith_bf16_to_f32(get16(row + 2 * i));
    if (t == PITH_CUDA_F16) return pith_f16_to_f32(get16(row + 2 * i));
    const pith_quant_layout l = pith_quant_layout_of(t);
    const uint8_t *b = row + (size_t)(i / l.block) * l.block_bytes;
    const uint32_t e = i % l.block;
    if (t == PITH_CUDA_Q8_0) return (double)pith_f16_to_f32(get16(b)) * (int8_t)b[2 + e];
    if (t == PITH_CUDA_Q4_0)
        return (double)pith_f16_to_f32(get16(b)) * ((e < 16 ? b[2 + e] & 15 : b[2 + e - 16] >> 4) - 8);
    if (t == PITH_CUDA_Q4_K) {
        const uint32_t j = e / 32;
        const uint8_t *s = b + 4;
        const int sc = j < 4 ? s[j] & 63 : (s[j + 4] & 15) + 16 * (s[j - 4] >> 6);
        const int mn = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) + 16 * (s[j] >> 6);
        const uint8_t c = b[16 + e / 64 * 32 + e % 32];
        return (double)pith_f16_to_f32(get16(b)) * sc * (e % 64 < 32 ? c & 15 : c >> 4) -
               (double)pith_f16_to_f32(get16(b + 2)) * mn;
    }
    const uint32_t half = e / 128, in = e % 128; // 64 bytes of low halves serve 128 weights, 32 of high bits likewise
    const uint8_t low = b[half * 64 + in % 64], high = b[128 + half * 32 + in % 32];
    const int q = (in < 64 ? low & 15 : low >> 4) + 16 * (high >> (in / 32 * 2) & 3) - 32;
    return (double)pith_f16_to_f32(get16(b + 208)) * (int8_t)b[192 + e / 16] * q;
}

// (n, k) activations. Exact: small integers; for packed weights every block has one of 127 too and all of it is times a
// power of two, so that rounding to 8 bits changes nothing.
static inline std::vector<uint16_t> random_activations(pith_cuda_type t, uint32_t n, uint32_t k, bool exact,
                                                       Random &r) {
    std::vector<uint16_t> x((size_t)n * k);
    float unit = 1;
    uint32_t largest = 0;
    for (size_t i = 0; i < x.size(); i++) {
        if (i % 32 == 0 && is_quant(t)) unit = ldexpf(1, r.between(-1, 1)), largest = (uint32_t)r.between(0, 31);
        float v = exact ? (float)r.between(-4, 4) * unit : r.unit();
        if (exact && is_quant(t) && i % 32 == largest) v = (r.between(0, 1) ? 127.f : -127.f) * unit;
        x[i] = t == PITH_CUDA_F16 ? pith_f32_to_f16(v) : pith_f32_to_bf16(v);
    }
    return x;
}

// A row of activations as a product with these weights sees it.
static inline std::vector<double> activations_seen(pith_cuda_type t, const uint16_t *x, uint32_t k) {
    std::vector<double> seen(k);
    for (uint32_t i = 0; i < k; i++) seen[i] = t == PITH_CUDA_F16 ? pith_f16_to_f32(x[i]) : pith_bf16_to_f32(x[i]);
    for (uint32_t from = 0; is_quant(t) && from < k; from += 32) {
        float largest = pith_f32_from_bits(pith::LEAST_LARGEST);
        for (uint32_t i = from; i < from + 32; i++) largest = fmaxf(largest, fabsf((float)seen[i]));
        const float scale = pith::activation_scale(largest), inverse = pith::activation_inverse(scale);
        for (uint32_t i = from; i < from + 32; i++)
            seen[i] = (double)scale * (int8_t)pith::activation_code((float)seen[i], inverse);
    }
    return seen;
}

#endif
