// The inputs of products in decode steps: columns of activations as products read them, made from the residual stream
// by a norm, or from gate and up by an activation, or as they are. Several columns are packed by a node of their own, a
// task for each; a single one by every thread for itself, in the product's node: waiting for one another takes longer.
#include <math.h>

#include "cpu/cpu.h"

enum { LANES = 16 };

// ggml aligns values to 32 bytes, packed rows want a cache line: there is room for the difference.
size_t pith_cpu_input_bytes(const pith_node *pack, int64_t k) {
    return (pack->n * (pack->packed_bytes + (size_t)k * sizeof(float)) + 32 + 63) / 64 * 64;
}

// The sum is 16 partial sums, by i mod 16, folded in halves.
void pith_cpu_norm(const float *x, const float *w, float eps, int64_t k, float *y) {
    float partial[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++) partial[l] += x[i + l] * x[i + l];
    for (; i < k; i++) partial[i % LANES] += x[i] * x[i];
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int l = 0; l < step; l++) partial[l] += partial[l + step];
    const float scale = 1.0f / sqrtf(partial[0] / (float)k + eps);
    for (i = 0; i < k; i++) y[i] = x[i] * scale * w[i];
}

static void pack_column(const pith_node *pack, const struct ggml_tensor *x, const struct ggml_tensor *up,
                        uint32_t column, uint8_t *packed) {
    const int64_t k = x->ne[0];
    const size_t at = (size_t)column * (size_t)k;
    const float *from = (const float *)x->data + at;
    float *made = (float *)(void *)(packed + pack->n * pack->packed_bytes) + at; // behind the packed ones
    if (pack->norm) pith_cpu_norm(from, pack->norm, pack->eps, k, made);
    else if (up) pack->plan->cpu->kernels->swiglu(from, (const float *)up->data + at, (uint32_t)k, made);
    pack->product->pack(pack->product, pack->norm || up ? made : from, packed + column * pack->packed_bytes, k);
}

// dst: (n, packed bytes) from src 0: (n, K), and src 1, the same shape, when there is an activation.
void pith_node_pack(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)ith, (void)nth;
    pith_node *pack = userdata;
    uint8_t *packed = pith_align64(dst->data);
    for (uint32_t c; (c = atomic_fetch_add_explicit(&pack->next, 1, memory_order_relaxed)) < pack->n;)
        pack_column(pack, dst->src[0], dst->src[1], c, packed);
}

const uint8_t *pith_cpu_pack_own(const pith_node *pack, const struct ggml_tensor *x, const struct ggml_tensor *up,
                                 int ith) {
    // ggml's work buffer belongs to the node that runs.
    uint8_t *packed = pith_align64(pack->plan->cpu->work) + (size_t)ith * pith_cpu_input_bytes(pack, x->ne[0]);
    pack_column(pack, x, up, 0, packed);
    return packed;
}
