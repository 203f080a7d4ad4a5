// The packing node of decode steps: columns of activations as the products behind it read them, made from the residual
// stream by a norm, or from gate and up by an activation, or as they are. A task is a column.
#include <math.h>

#include "cpu/cpu.h"

enum { LANES = 16 };

// Where a column is made before it is packed: behind the packed ones.
static float *unpacked(const pith_node *node, uint8_t *packed, uint32_t column, int64_t k) {
    return (float *)(void *)(packed + node->n * node->packed_bytes) + (size_t)column * (size_t)k;
}

// ggml aligns values to 32 bytes, packed rows want a cache line: the tensor has room for the difference.
size_t pith_cpu_input_bytes(const pith_node *node, int64_t k) {
    return node->n * (node->packed_bytes + (size_t)k * sizeof(float)) + 32;
}

// y = x / sqrt(mean of x^2 + eps) * w. The sum is 16 partial sums, by i mod 16, folded in halves.
static void norm(const float *x, const float *w, float eps, int64_t k, float *y) {
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

// dst: (n, packed bytes) from src 0: (n, K), and src 1, the same shape, when there is an activation.
void pith_node_pack(struct ggml_tensor *dst, int ith, int nth, void *userdata) {
    (void)ith, (void)nth;
    pith_node *node = userdata;
    const struct ggml_tensor *from = dst->src[0], *up = dst->src[1];
    const int64_t k = from->ne[0];
    uint8_t *packed = pith_align64(dst->data);
    for (uint32_t c; (c = atomic_fetch_add_explicit(&node->next, 1, memory_order_relaxed)) < node->n;) {
        const float *x = (const float *)from->data + (size_t)c * (size_t)k;
        float *y = unpacked(node, packed, c, k);
        if (node->norm) norm(x, node->norm, node->eps, k, y);
        else if (up)
            node->plan->cpu->kernels->swiglu(x, (const float *)up->data + (size_t)c * (size_t)k, (uint32_t)k, y);
        else y = (float *)(uintptr_t)x;
        node->product->pack(node->product, y, packed + c * node->packed_bytes, k);
    }
}
