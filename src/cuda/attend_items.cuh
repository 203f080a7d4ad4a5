// What the kernels of decode attention share: the items that lanes are cut into, and the parts that items leave.
#ifndef PITH_CUDA_ATTEND_ITEMS_CUH
#define PITH_CUDA_ATTEND_ITEMS_CUH

#include <math.h>

#include "cuda/cache.cuh"

namespace pith {

constexpr uint32_t FAN = 16; // parts that are merged at a time

// Chunks grow with the lane so that a short one still spreads over many warps and a long one has few parts to merge.
// Whole pages; a function of the row count alone. One warp has a chunk, and half a page of it under way at a time: a
// short lane's is read in two trips to memory. A part's sums are 4 KB where g is 8 and d 128, as much as 8 of the
// chunk's rows, written and read once more: long lanes, which have chunks for all warps, have more rows to a part.
// A lane has at most 16 * 128 chunks, and a chunk at most 32 pages, one for each lane of a warp.
constexpr uint32_t LONGEST_IN_1_PAGE = FAN * PITH_PAGE_ROWS, LONGEST_IN_2_PAGES = 16384,
                   LONGEST_IN_4_PAGES = FAN * 128 * 4 * PITH_PAGE_ROWS;
__host__ __device__ inline uint32_t chunk_pages(uint32_t n_rows) {
    if (n_rows <= LONGEST_IN_2_PAGES) return n_rows <= LONGEST_IN_1_PAGE ? 1 : 2;
    return n_rows <= LONGEST_IN_4_PAGES ? 4 : 32;
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
    float *parts;       // (cap, part_floats), see part
    uint32_t *counters; // (2, cap): arrived parts of a group of FAN, arrived groups of a lane; then how many were taken
    uint32_t cap, H, G;
    bool out_bf16;
    bool early; // see chain.h
};

// What an item leaves: sums as a warp's products have them, four to each of its lanes, (heads / 8, D / 16, 32, 4), then
// maximum and weight of each head (heads, 2). Heads are padded to a multiple of 8; what is of padding alone is not
// written. Parts begin on 16 bytes.
constexpr uint32_t padded_heads(uint32_t g) { return g <= 8 ? 8 : 16; }
inline size_t part_floats(uint32_t g, uint32_t d) { return (size_t)padded_heads(g) * (d + 2); }
inline size_t counter_words(uint32_t cap) { return ((size_t)cap * 2 + 1 + 3) / 4 * 4; }

// A kernel for a head size, a number of heads and a type, and how its blocks are.
struct attend_kernel {
    void (*run)(attend_args); // NULL: there is none
    uint32_t threads;
    size_t shared_bytes;
};

// For head sizes of 64 to 256 in steps of 32 and up to 16 query heads to a KV head.
attend_kernel attend_stream_kernel(const pith_geometry *, pith_half);

} // namespace pith

#endif
