// What the kernels of decode attention share: the items that lanes are cut into, and the parts that items leave.
#ifndef PITH_CUDA_ATTEND_ITEMS_CUH
#define PITH_CUDA_ATTEND_ITEMS_CUH

#include <math.h>

#include "cuda/cache.cuh"

namespace pith {

constexpr int ATTEND_WARPS = 4, ATTEND_THREADS = ATTEND_WARPS * 32;
constexpr uint32_t FAN = 16; // parts that one block merges at a time

// Chunks grow with the lane so that a short one still spreads over many multiprocessors and a long one has few parts to
// merge. Whole pages; a function of the row count alone.
// A lane has at most 16 * 128 chunks, and a chunk at most 32 pages, one for each lane of a warp.
constexpr uint32_t LONGEST_IN_SMALL_CHUNKS = FAN * 128 * 4 * PITH_PAGE_ROWS;
__host__ __device__ inline uint32_t chunk_pages(uint32_t n_rows) {
    return n_rows <= 2048 ? 2 : n_rows <= LONGEST_IN_SMALL_CHUNKS ? 4 : 32;
}
__host__ __device__ inline uint32_t chunks_of(uint32_t n_rows) {
    const uint32_t rows = chunk_pages(n_rows) * PITH_PAGE_ROWS;
    return n_rows / rows + (n_rows % rows != 0);
}

// Plan: per layer a count and its items, chunks of a lane in ascending order and side by side: (n_layers, 1 +
// cap_items), the first of which holds the count. Everything that a block needs to find its pages is in the item: a
// chain of table look-ups would cost more than a short lane's rows.
struct alignas(16) item {
    uint32_t lane;   // token * G + KV head
    uint32_t chunk;  // of the lane
    uint32_t n_rows; // of the lane
    int32_t first;   // where the lane's page ids begin
};

struct attend_args {
    sections at;
    const int32_t *pages;
    const item *plan; // of this layer
    const uint16_t *q;
    uint16_t *out;
    float *parts;       // (cap, part_floats): sums (g, D), then maximum and weight of each head (g, 2)
    uint32_t *counters; // (2, cap): arrived parts of a group of FAN, arrived groups of a lane
    uint32_t cap, H, G;
    bool out_bf16;
    bool early;     // see chain.h
    uint32_t ahead; // slices
};

// Parts begin on 16 bytes: they are written and merged four sums at a time.
__host__ __device__ inline size_t part_floats(uint32_t g, uint32_t d) { return (g * (d + 2) + 3) / 4 * 4; }
inline size_t counter_words(uint32_t cap) { return ((size_t)cap * 2 + 3) / 4 * 4; }

template <int D> struct part {
    float *acc; // (g, D)
    float *ml;  // (g, 2)
};
template <int D> __device__ __forceinline__ part<D> part_at(const attend_args &p, uint32_t index, uint32_t g) {
    float *base = p.parts + (size_t)index * part_floats(g, D);
    return {base, base + (size_t)g * D};
}

__device__ __forceinline__ void store_out(const attend_args &p, size_t at, float x) {
    p.out[at] = p.out_bf16 ? half_bits<true>(x) : half_bits<false>(x);
}

using attend_kernel = void (*)(attend_args);

// For head sizes of 64 to 256 in steps of 32 and up to 16 query heads to a KV head; else NULL.
attend_kernel attend_plain_kernel(const pith_geometry *, pith_half);
attend_kernel attend_ahead_kernel(const pith_geometry *, pith_half);

// The instance of KERNEL<D, NT, BF16> for a geometry.
#define PITH_ATTEND_KERNEL_FOR(KERNEL, geo, type)                                                                      \
    const uint32_t g = (geo)->n_heads / (geo)->n_kv_heads;                                                             \
    if ((geo)->elt_bytes != 2 || g == 0 || g > 16) return nullptr;                                                     \
    switch ((geo)->head_dim) {                                                                                         \
        PITH_ATTEND_CASE(KERNEL, 64, type)                                                                             \
        PITH_ATTEND_CASE(KERNEL, 96, type)                                                                             \
        PITH_ATTEND_CASE(KERNEL, 128, type)                                                                            \
        PITH_ATTEND_CASE(KERNEL, 160, type)                                                                            \
        PITH_ATTEND_CASE(KERNEL, 192, type)                                                                            \
        PITH_ATTEND_CASE(KERNEL, 224, type)                                                                            \
        PITH_ATTEND_CASE(KERNEL, 256, type)                                                                            \
    default: return nullptr;                                                                                           \
    }
#define PITH_ATTEND_CASE(KERNEL, D, type)                                                                              \
    case D:                                                                                                            \
        if (g <= 8) return (type) == PITH_HALF_BF16 ? KERNEL<D, 1, true> : KERNEL<D, 1, false>;                        \
        return (type) == PITH_HALF_BF16 ? KERNEL<D, 2, true> : KERNEL<D, 2, false>;

} // namespace pith

#endif
