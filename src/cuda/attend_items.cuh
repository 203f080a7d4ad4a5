// What the kernels of decode attention share: the items that lanes are cut into, and the parts that items leave.
#ifndef PITH_CUDA_ATTEND_ITEMS_CUH
#define PITH_CUDA_ATTEND_ITEMS_CUH

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/chain.h"

namespace pith {

// Chunks grow with the lane so that a short one still spreads over many warps and a long one has few parts to merge.
// Whole pages; a function of the row count alone. One warp has a chunk, and half a page of it under way at a time: a
// short lane's is read in two trips to memory. A part's sums are 4 KB where g is 8 and d 128, as much as 8 of the
// chunk's rows, written and read once more: long lanes, which have chunks for all warps, have more rows to a part.
// A chunk has at most 32 pages, one for each lane of a warp.
constexpr uint32_t LONGEST_IN_1_PAGE = 1024, LONGEST_IN_2_PAGES = 8192, LONGEST_IN_4_PAGES = 1 << 19;
__host__ __device__ inline uint32_t chunk_pages(uint32_t n_rows) {
    if (n_rows <= LONGEST_IN_2_PAGES) return n_rows <= LONGEST_IN_1_PAGE ? 1 : 2;
    return n_rows <= LONGEST_IN_4_PAGES ? 4 : 32;
}
__host__ __device__ inline uint32_t chunks_of(uint32_t n_rows) {
    const uint32_t rows = chunk_pages(n_rows) * PITH_PAGE_ROWS;
    return n_rows / rows + (n_rows % rows != 0);
}

// Plan: per layer a count and its items, chunks of a lane in ascending order and side by side, (1 + cap_items), the
// first of which holds the count; then where each lane's parts are, (cap_items), of which n * G are used. Everything
// that a warp needs to find its pages is in the item: a chain of table look-ups would cost more than a short lane's
// rows.
struct alignas(16) item {
    uint32_t lane;   // token * G + KV head
    uint32_t chunk;  // of the lane
    uint32_t n_rows; // of the lane
    int32_t first;   // where the lane's page ids begin
};

struct lane_parts {
    uint32_t first, n; // n 0: padding
};
struct layer_plan {
    item *items;
    lane_parts *lanes;
};
__host__ __device__ inline size_t layer_plan_items(uint32_t cap) { return 1 + (size_t)cap + (cap + 1) / 2; }
__host__ __device__ inline layer_plan plan_of_layer(void *plan, uint32_t layer, uint32_t cap) {
    item *items = static_cast<item *>(plan) + layer * layer_plan_items(cap);
    return {items, reinterpret_cast<lane_parts *>(items + 1 + cap)};
}

struct attend_args {
    sections at;
    const int32_t *pages;
    const item *plan;
    const uint16_t *q;
    uint16_t *out;
    float *parts; // (cap, part_floats)
    uint32_t *n_taken;
    const lane_parts *lanes; // (n, G)
    uint32_t H, G;
    bool out_bf16;
    bool early; // see chain.h
};

// What an item leaves: sums as a warp's products have them, four to each of its lanes, (heads / 8, D / 16, 32, 4), then
// maximum and weight of each head (heads, 2). Heads are padded to a multiple of 8; what is of padding alone is not
// written. Parts begin on 16 bytes.
template <int NT> __host__ __device__ constexpr size_t part_floats(uint32_t d) { return 8 * NT * ((size_t)d + 2); }
inline size_t part_floats(uint32_t g, uint32_t d) { return g <= 8 ? part_floats<1>(d) : part_floats<2>(d); }
constexpr size_t COUNTER_BYTES = 16; // in front of the parts: how many items were taken

// A kernel for a head size, a number of heads and a type, and how its blocks are.
struct attend_kernel {
    void (*run)(attend_args); // NULL: there is none
    uint32_t threads;
    size_t shared_bytes;
};

// For head sizes of 64 to 256 in steps of 32 and up to 16 query heads to a KV head.
attend_kernel attend_stream_kernel(const pith_geometry *, pith_half);

// Behind it: what parts make of each lane's output.
cudaError_t attend_merge(const attend_args &, const pith_geometry *, uint32_t n, pith_cuda_follow, cudaStream_t);

} // namespace pith

#endif
