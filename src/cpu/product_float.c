// Packing of activations and the portable kernels: product_float.h in plain C.
#include "cpu/product_float.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "ggml.h"

enum { LANES = PITH_FLOAT_LANES };

size_t pith_float_packed_bytes(const pith_product *self, int64_t k) {
    (void)self;
    return (size_t)((k + LANES - 1) / LANES * LANES) * sizeof(float);
}

void pith_float_pack(const pith_product *self, const float *x, void *packed, int64_t k) {
    const size_t bytes = (size_t)k * sizeof(float);
    memcpy(packed, x, bytes);
    memset((uint8_t *)packed + bytes, 0, pith_float_packed_bytes(self, k) - bytes);
}

// Element i of a row.
static float weight(int type, const uint8_t *row, int64_t i) {
    uint16_t half;
    float full;
    if (type == GGML_TYPE_F32) return memcpy(&full, row + i * 4, sizeof full), full;
    memcpy(&half, row + i * 2, sizeof half);
    return type == GGML_TYPE_F16 ? pith_f16_to_f32(half) : pith_bf16_to_f32(half);
}

static void rows(const pith_product *self, const void *w, size_t row_bytes, int64_t k, const void *packed, uint32_t n,
                 int64_t r0, int64_t r1, float *y, size_t y_stride) {
    const size_t x_bytes = pith_float_packed_bytes(self, k);
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *row = (const uint8_t *)w + (size_t)r * row_bytes;
        for (uint32_t c = 0; c < n; c++) {
            const float *x = (const float *)(const void *)((const uint8_t *)packed + c * x_bytes);
            float acc[LANES] = {0};
            for (int64_t i = 0; i < k; i++) acc[i % LANES] = fmaf(weight(self->type, row, i), x[i], acc[i % LANES]);
            for (int step = LANES / 2; step; step /= 2)
                for (int l = 0; l < step; l++) acc[l] += acc[l + step];
            y[c * y_stride + (size_t)r] = acc[0];
        }
    }
}

#define KERNEL(type) {GGML_TYPE_##type, "portable", pith_float_packed_bytes, pith_float_pack, rows}
const pith_product pith_float_portable[] = {KERNEL(F32), KERNEL(F16), KERNEL(BF16), {0, NULL, NULL, NULL, NULL}};
