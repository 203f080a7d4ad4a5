// Bound: bytes, each surviving row read and written once. 8192 rows of 28 layers of a 7B model are 470 MB each way,
// 0.22 ms.
//
// One block moves one section (K, V or positions) of one lane, so that the order of its moves needs no other block:
// tiles in ascending order, each read whole into registers, a barrier, then written. That is enough:
//
//   - a tile's writes may hit rows that the tile itself reads: the barrier is between;
//   - they hit no row that a later tile reads: those sources lie above all sources of this tile, whose last source is
//   not
//     below its last destination;
//   - a later tile's writes come behind its own barrier, which every thread reaches only after it has read this tile.
//
// So there is one barrier per tile, and the next tile's reads overlap with this one's writes.
#include "cuda/compact.h"

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

constexpr int THREADS = 256, IN_FLIGHT = 8; // 16-byte pieces per thread and tile: 32 KB per block

struct lane_args {
    const int32_t *pages; // ids of this lane
    uint32_t first, n;
    const uint32_t *rows;
};

// Sections of rows of ROW_BYTES / 16 pieces.
__device__ void move_rows(const sections &at, const lane_args &lane, bool values, uint32_t pieces) {
    const uint32_t total = lane.n * pieces;
    const size_t section = values ? at.v_offset : 0;
    auto address = [&](uint32_t row, uint32_t piece) {
        return reinterpret_cast<uint4 *>(page_k(at, lane.pages[row / PITH_PAGE_ROWS]) + section +
                                         ((size_t)(row % PITH_PAGE_ROWS) * pieces + piece) * 16);
    };
    for (uint32_t from = 0; from < total; from += THREADS * IN_FLIGHT) {
        uint4 data[IN_FLIGHT];
        uint32_t moved = 0;
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; u++) {
            const uint32_t i = from + u * THREADS + threadIdx.x;
            if (i >= total) continue;
            const uint32_t t = i / pieces, row = lane.rows[t];
            if (row == lane.first + t) continue; // in place already
            data[u] = __ldcg(address(row, i % pieces));
            moved |= 1u << u;
        }
        __syncthreads();
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; u++) {
            const uint32_t i = from + u * THREADS + threadIdx.x;
            if (moved >> u & 1) __stcg(address(lane.first + i / pieces, i % pieces), data[u]);
        }
    }
}

__device__ void move_positions(const sections &at, const lane_args &lane) {
    for (uint32_t from = 0; from < lane.n; from += THREADS) {
        const uint32_t i = from + threadIdx.x, row = i < lane.n ? lane.rows[i] : 0;
        const int32_t pos =
            i < lane.n ? __ldcg(page_pos(at, lane.pages[row / PITH_PAGE_ROWS]) + row % PITH_PAGE_ROWS) : 0;
        const uint32_t to = lane.first + i;
        __syncthreads();
        if (i < lane.n) __stcg(page_pos(at, lane.pages[to / PITH_PAGE_ROWS]) + to % PITH_PAGE_ROWS, pos);
    }
}

__device__ void move_section(const sections &at, const lane_args &lane, uint32_t section, uint32_t pieces) {
    if (section < 2) move_rows(at, lane, section == 1, pieces);
    else move_positions(at, lane);
}

__global__ void __launch_bounds__(THREADS) compact_kernel(sections at, lane_args lane, uint32_t pieces) {
    move_section(at, lane, blockIdx.x, pieces);
}

struct layers_args {
    sections at;
    const int32_t *pages, *first, *n_rows;
    uint32_t model_layers, G, seq, layer0, n, k, room, pieces;
    const uint32_t *candidates;
};

__global__ void __launch_bounds__(THREADS) compact_layers_kernel(layers_args p, const uint32_t *survivors) {
    const uint32_t kv = blockIdx.y, layer = blockIdx.z;
    const size_t entry = ((size_t)p.seq * p.model_layers + p.layer0 + layer) * p.G + kv,
                 lane = (size_t)layer * p.G + kv;
    const uint32_t first = p.candidates[lane * p.n];
    const lane_args args = {p.pages + p.first[entry], first, (uint32_t)p.n_rows[entry] - first - (p.n - p.k),
                            survivors + lane * p.room};
    move_section(p.at, args, blockIdx.x, p.pieces);
}

// How many of keep (k), ascending, are below x.
__device__ uint32_t below(const uint32_t *keep, uint32_t k, uint32_t x) {
    uint32_t lo = 0;
    for (uint32_t hi = k; lo < hi;) {
        const uint32_t mid = (lo + hi) / 2;
        if (keep[mid] < x) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

// A survivor's place is its distance from the first candidate less the dropped candidates in between, so every thread
// can place its rows alone: the i-th kept candidate c has c - i dropped ones below it; the rows between candidates c
// and c + 1, which are none, have c + 1 less the number of kept ones up to c.
__global__ void __launch_bounds__(1024)
    survivors_kernel(layers_args p, uint32_t n_sets, const uint32_t *keep, uint32_t *survivors) {
    const uint32_t kv = blockIdx.x, layer = blockIdx.y;
    const size_t entry = ((size_t)p.seq * p.model_layers + p.layer0 + layer) * p.G + kv,
                 lane = (size_t)layer * p.G + kv;
    const uint32_t *rows = p.candidates + lane * p.n;
    const uint32_t *kept = keep + ((size_t)layer * n_sets + (n_sets == 1 ? 0 : kv)) * p.k;
    uint32_t *out = survivors + lane * p.room;
    const uint32_t first = rows[0], n_rows = (uint32_t)p.n_rows[entry];
    for (uint32_t i = threadIdx.x; i < p.k; i += blockDim.x) {
        const uint32_t c = kept[i];
        out[rows[c] - first - (c - i)] = rows[c];
    }
    for (uint32_t c = threadIdx.x; c + 1 < p.n; c += blockDim.x) {
        if (rows[c + 1] == rows[c] + 1) continue;
        const uint32_t dropped = c + 1 - below(kept, p.k, c + 1);
        for (uint32_t row = rows[c] + 1; row < rows[c + 1]; row++) out[row - first - dropped] = row;
    }
    for (uint32_t row = rows[p.n - 1] + 1 + threadIdx.x; row < n_rows; row += blockDim.x)
        out[row - first - (p.n - p.k)] = row;
}

layers_args layers_of(const pith_cuda_cache *c, const pith_cuda_event *e, const uint32_t *candidates, uint32_t k,
                      uint32_t room) {
    return {sections_of(*c), c->pages, c->first, c->n_rows, c->geo.n_layers,          c->geo.n_kv_heads, e->seq,
            e->layer0,       e->n,     k,        room,      c->geo.head_dim * 2 / 16, candidates};
}

} // namespace

extern "C" cudaError_t pith_cuda_survivors(const pith_cuda_cache *c, const pith_cuda_event *e,
                                           const uint32_t *candidates, uint32_t n_sets, const uint32_t *keep,
                                           uint32_t k, uint32_t *survivors, uint32_t room, cudaStream_t stream) {
    if (e->n == 0 || e->n_layers == 0) return cudaSuccess;
    if (k > e->n) return cudaErrorInvalidValue;
    return launch_kernel(survivors_kernel, dim3(c->geo.n_kv_heads, e->n_layers), 1024, 0, stream,
                         layers_of(c, e, candidates, k, room), n_sets, keep, survivors);
}

extern "C" cudaError_t pith_cuda_compact_layers(const pith_cuda_cache *c, const pith_cuda_event *e,
                                                const uint32_t *candidates, uint32_t k, const uint32_t *survivors,
                                                uint32_t room, cudaStream_t stream) {
    if (e->n == 0 || e->n_layers == 0) return cudaSuccess;
    if (k > e->n || c->geo.head_dim % 8 || c->geo.elt_bytes != 2) return cudaErrorInvalidValue;
    return launch_kernel(compact_layers_kernel, dim3(3, c->geo.n_kv_heads, e->n_layers), THREADS, 0, stream,
                         layers_of(c, e, candidates, k, room), survivors);
}

extern "C" cudaError_t pith_cuda_compact(const pith_cuda_cache *c, const int32_t *pages, uint32_t first,
                                         const uint32_t *rows, uint32_t n, cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    if (c->geo.head_dim % 8 || c->geo.elt_bytes != 2) return cudaErrorInvalidValue;
    return launch_kernel(compact_kernel, 3, THREADS, 0, stream, sections_of(*c), lane_args{pages, first, n, rows},
                         c->geo.head_dim * 2 / 16);
}
