// Bound: bytes, each surviving row read and written once. 8192 rows of 28 layers of a 7B model are 470 MB each way,
// 0.3 ms at 3 TB/s.
//
// One block moves one column of one section (K, V or positions) of one lane: the same 128 bytes of every row, or what
// is left of them. Columns have nothing to do with one another, so the order of a block's moves needs no other block.
// Tiles of rows go in ascending order, each read whole into shared memory, a barrier, then written. That is enough:
//
//   - a tile's writes may hit rows that the tile itself or one before it reads: these have arrived in every thread that
//     has reached the barrier;
//   - they hit no row that a later tile reads: those sources lie above all sources of this tile, whose last source is
//     not below its last destination. So later tiles may be read as early as one likes.
//
// So there is one barrier per tile, and the reads of the next two tiles are under way while one is written. Which rows
// they read, and where these are, is looked up one and two tiles before that.
#include "cuda/compact.h"

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

constexpr int THREADS = 256, COLUMN = 8, IN_FLIGHT = 4; // 16-byte pieces of a row, and per thread and tile
constexpr int TILE = THREADS / COLUMN * IN_FLIGHT;      // rows: 16 KB of a column
constexpr int STAGES = 3;                               // tiles in shared memory: one in use, two under way

struct lane_args {
    const int32_t *pages; // ids of this lane
    uint32_t first, n;
    const uint32_t *rows;
};

// What a thread knows of the tiles ahead: its rows in three tiles' time, the pieces to read in two (NULL: in place, or
// no row), and which pieces of the last tiles moved, the latest in the lowest bits.
struct ahead {
    uint32_t row[IN_FLIGHT];
    const uint8_t *from[IN_FLIGHT];
    uint32_t moved;
};

// A column of rows of `row_bytes`, which begins at `column` in its page.
struct column {
    sections at;
    lane_args lane;
    size_t offset;
    uint32_t row_bytes, row; // the thread's first row of a tile
    bool has_piece;          // the last column may be narrower than the others
    __device__ uint8_t *piece(uint32_t r) const {
        return page_k(at, lane.pages[r / PITH_PAGE_ROWS]) + offset + (size_t)(r % PITH_PAGE_ROWS) * row_bytes;
    }
    __device__ uint32_t index(uint32_t tile, int u) const { return tile * TILE + u * (THREADS / COLUMN) + row; }
};

__device__ __forceinline__ void look_up_rows(ahead &to, const column &c, uint32_t tile) {
#pragma unroll
    for (int u = 0; u < IN_FLIGHT; u++) {
        const uint32_t i = c.index(tile, u);
        to.row[u] = c.has_piece && i < c.lane.n ? c.lane.rows[i] : c.lane.first + i;
    }
}
__device__ __forceinline__ void look_up_pieces(ahead &to, const column &c, uint32_t tile) {
    to.moved <<= IN_FLIGHT;
#pragma unroll
    for (int u = 0; u < IN_FLIGHT; u++) {
        const bool moves = to.row[u] != c.lane.first + c.index(tile, u);
        to.from[u] = moves ? c.piece(to.row[u]) : nullptr;
        to.moved |= (uint32_t)moves << u;
    }
}
__device__ __forceinline__ void read_tile(const ahead &of, uint4 *stage) {
#pragma unroll
    for (int u = 0; u < IN_FLIGHT; u++)
        if (of.from[u]) copy16_async(stage + u * THREADS + threadIdx.x, of.from[u]);
    copies_commit();
}

__device__ void move_rows(const column &c) {
    __shared__ uint4 stages[STAGES][TILE * COLUMN];
    const uint32_t n_tiles = (c.lane.n + TILE - 1) / TILE;
    ahead next = {};
    for (uint32_t tile = 0; tile < 2; tile++) {
        look_up_rows(next, c, tile), look_up_pieces(next, c, tile);
        read_tile(next, stages[tile]);
    }
    look_up_rows(next, c, 2), look_up_pieces(next, c, 2);
    look_up_rows(next, c, 3);
    uint32_t stage = 0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        const uint32_t moved = next.moved >> 2 * IN_FLIGHT; // next.moved ends with tile + 2
        uint8_t *to[IN_FLIGHT];
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; u++) to[u] = moved >> u & 1 ? c.piece(c.lane.first + c.index(tile, u)) : nullptr;
        copies_wait<1>();
        __syncthreads();
        // The stage that the tile before has left: its threads read it in front of the barrier.
        read_tile(next, stages[stage == 0 ? STAGES - 1 : stage - 1]);
        look_up_pieces(next, c, tile + 3);
        look_up_rows(next, c, tile + 4);
#pragma unroll
        for (int u = 0; u < IN_FLIGHT; u++)
            if (to[u]) __stcg(reinterpret_cast<uint4 *>(to[u]), stages[stage][u * THREADS + threadIdx.x]);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
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

__host__ __device__ constexpr uint32_t columns_of(uint32_t pieces) { return (pieces + COLUMN - 1) / COLUMN; }

// Part 0, 1, ...: the columns of K, then those of V, then positions.
__device__ void move_part(const sections &at, const lane_args &lane, uint32_t part, uint32_t pieces) {
    const uint32_t n_columns = columns_of(pieces);
    if (part == 2 * n_columns) {
        move_positions(at, lane);
        return;
    }
    const uint32_t piece = part % n_columns * COLUMN + threadIdx.x % COLUMN;
    move_rows({at, lane, (part < n_columns ? 0 : at.v_offset) + piece * 16, pieces * 16, threadIdx.x / COLUMN,
               piece < pieces});
}

__global__ void __launch_bounds__(THREADS) compact_kernel(sections at, lane_args lane, uint32_t pieces) {
    move_part(at, lane, blockIdx.x, pieces);
}

struct layers_args {
    sections at;
    const int32_t *pages, *first, *n_rows;
    uint32_t model_layers, G, seq, layer0, n, k, room, pieces;
    const uint32_t *candidates;
};

// Lanes side by side, so that positions, which take less time than rows, come last.
__global__ void __launch_bounds__(THREADS, 4) compact_layers_kernel(layers_args p, const uint32_t *survivors) {
    const size_t lane = blockIdx.x, entry = ((size_t)p.seq * p.model_layers + p.layer0) * p.G + lane;
    const uint32_t first = p.candidates[lane * p.n];
    const lane_args args = {p.pages + p.first[entry], first, (uint32_t)p.n_rows[entry] - first - (p.n - p.k),
                            survivors + lane * p.room};
    move_part(p.at, args, blockIdx.y, p.pieces);
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
    const layers_args args = layers_of(c, e, candidates, k, room);
    // Four blocks to a multiprocessor want nearly all of its shared memory.
    const cudaError_t err =
        cudaFuncSetAttribute(compact_layers_kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100);
    if (err) return err;
    return launch_kernel(compact_layers_kernel, dim3(c->geo.n_kv_heads * e->n_layers, 2 * columns_of(args.pieces) + 1),
                         THREADS, 0, stream, args, survivors);
}

extern "C" cudaError_t pith_cuda_compact(const pith_cuda_cache *c, const int32_t *pages, uint32_t first,
                                         const uint32_t *rows, uint32_t n, cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    if (c->geo.head_dim % 8 || c->geo.elt_bytes != 2) return cudaErrorInvalidValue;
    const uint32_t pieces = c->geo.head_dim * 2 / 16;
    return launch_kernel(compact_kernel, 2 * columns_of(pieces) + 1, THREADS, 0, stream, sections_of(*c),
                         lane_args{pages, first, n, rows}, pieces);
}
