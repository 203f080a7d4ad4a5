// Packing of activations and the portable kernels: product_i8.h in plain C, one row and one column at a time.
#include "cpu/product_i8_pack.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/half.h"
#include "ggml.h"

enum { PACK_ALIGN = 64, MAX_BLOCKS = 8 };

// ---------------------------------------------------------------------------------------------- activations

size_t pith_i8_packed_bytes(const pith_product *self, int64_t k) {
    (void)self;
    size_t bytes = (size_t)(k / PITH_I8_BLOCK) * sizeof(pith_i8_block);
    return (bytes + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;
}

void pith_i8_pack(const pith_product *self, const float *x, void *packed, int64_t k) {
    (void)self;
    pith_i8_pack_blocks(x, packed, k);
}

// ------------------------------------------------------------------------------------------------- decoding

// 32 weights: s * (q - z) - m, z already taken off.
typedef struct block1 {
    int8_t q[PITH_I8_BLOCK];
    float s[2]; // of its halves
    float m;
} block1;

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return pith_f16_to_f32(h);
}

static void decode_q8_0(const uint8_t *w, block1 *out) {
    memcpy(out->q, w + Q8_0_CODES, PITH_I8_BLOCK);
    out->s[0] = out->s[1] = half_at(w);
    out->m = 0;
}

static void decode_q4_0(const uint8_t *w, block1 *out) {
    for (int i = 0; i < 16; i++) {
        out->q[i] = (int8_t)((w[Q4_0_CODES + i] & 15) - 8);
        out->q[i + 16] = (int8_t)((w[Q4_0_CODES + i] >> 4) - 8);
    }
    out->s[0] = out->s[1] = half_at(w);
    out->m = 0;
}

// Scale and minimum of block j. The 12 bytes A B C of 4 bytes each: blocks 0 to 3 in the low 6 bits of A and of B;
// blocks 4 to 7 with their low 4 bits in the two halves of C's bytes, their upper 2 bits on top of A and B.
static void decode_scale(const uint8_t *w, int j, block1 *out) {
    const uint8_t *a = w + 4, *b = a + 4, *c = b + 4;
    const int i = j % 4;
    const int s = j < 4 ? a[i] & 63 : (c[i] & 15) | (a[i] >> 6 << 4);
    const int m = j < 4 ? b[i] & 63 : c[i] >> 4 | (b[i] >> 6 << 4);
    out->s[0] = out->s[1] = half_at(w) * (float)s;
    out->m = half_at(w + 2) * (float)m;
}

static void decode_q4_k(const uint8_t *w, block1 out[8]) {
    for (int j = 0; j < 8; j++) {
        decode_scale(w, j, &out[j]);
        for (int i = 0; i < PITH_I8_BLOCK; i++)
            out[j].q[i] = (int8_t)(w[Q4_K_CODES + j / 2 * 32 + i] >> j % 2 * 4 & 15);
    }
}

static void decode_q5_k(const uint8_t *w, block1 out[8]) {
    for (int j = 0; j < 8; j++) {
        decode_scale(w, j, &out[j]);
        for (int i = 0; i < PITH_I8_BLOCK; i++) {
            int low = w[Q5_K_CODES + j / 2 * 32 + i] >> j % 2 * 4 & 15, high = w[Q5_K_HIGH + i] >> j & 1;
            out[j].q[i] = (int8_t)(low | high << 4);
        }
    }
}

static void decode_q6_k(const uint8_t *w, block1 out[8]) {
    for (int j = 0; j < 8; j++) {
        const uint8_t *low = w + j / 4 * 64 + j % 2 * 32, *high = w + Q6_K_HIGH + j / 4 * 32;
        for (int i = 0; i < PITH_I8_BLOCK; i++) {
            int q = (low[i] >> j % 4 / 2 * 4 & 15) | (high[i] >> j % 4 * 2 & 3) << 4;
            out[j].q[i] = (int8_t)(q - 32);
        }
        for (int h = 0; h < 2; h++) out[j].s[h] = half_at(w + Q6_K_D) * (float)(int8_t)w[Q6_K_SCALES + 2 * j + h];
        out[j].m = 0;
    }
}

// ------------------------------------------------------------------------------------------------- products

static int32_t dot16(const int8_t *q, const int8_t *a) {
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) sum += q[i] * a[i];
    return sum;
}

static float multiply(int type, const block1 *b, const pith_i8_block *a, float acc) {
    const int32_t first = dot16(b->q, a->a), second = dot16(b->q + 16, a->a + 16);
    if (type == GGML_TYPE_Q6_K) {
        acc = fmaf((float)first, b->s[0] * a->d, acc);
        return fmaf((float)second, b->s[1] * a->d, acc);
    }
    acc = fmaf((float)(first + second), b->s[0] * a->d, acc);
    return type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K ? fmaf(-b->m, a->e, acc) : acc;
}

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    void (*decode)(const uint8_t *, block1 *) = self->type == GGML_TYPE_Q8_0   ? decode_q8_0
                                                : self->type == GGML_TYPE_Q4_0 ? decode_q4_0
                                                : self->type == GGML_TYPE_Q4_K ? decode_q4_k
                                                : self->type == GGML_TYPE_Q5_K ? decode_q5_k
                                                                               : decode_q6_k;
    const int n_blocks = self->type == GGML_TYPE_Q8_0 || self->type == GGML_TYPE_Q4_0 ? 1 : MAX_BLOCKS;
    const int64_t n_units = k / (n_blocks * PITH_I8_BLOCK);
    const size_t unit_bytes = ggml_type_size((enum ggml_type)self->type), x_bytes = pith_i8_packed_bytes(self, k);
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
        float acc[PITH_PRODUCT_MAX_COLUMNS] = {0};
        for (int64_t i = 0; i < n_units; i++) {
            block1 blocks[MAX_BLOCKS];
            decode(row + (size_t)i * unit_bytes, blocks);
            for (uint32_t c = 0; c < n; c++) {
                const uint8_t *column = (const uint8_t *)packed + c * x_bytes;
                const pith_i8_block *a = (const pith_i8_block *)(const void *)column + i * n_blocks;
                for (int b = 0; b < n_blocks; b++) acc[c] = multiply(self->type, &blocks[b], &a[b], acc[c]);
            }
        }
        for (uint32_t c = 0; c < n; c++) y[c * y_stride + (size_t)r] = acc[c];
    }
}

#define KERNEL(type)                                                                                                   \
    { GGML_TYPE_##type, "portable", pith_i8_packed_bytes, pith_i8_pack, rows }
const pith_product pith_i8_portable[] = {KERNEL(Q8_0), KERNEL(Q4_0), KERNEL(Q4_K),
                                         KERNEL(Q5_K), KERNEL(Q6_K), {0, NULL, NULL, NULL, NULL}};
