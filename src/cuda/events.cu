// Everything here is deterministic: sums run in an order that the shapes fix, and the only atomics count integers.
#include "cuda/events.h"

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

__device__ __forceinline__ float round_bf16(float x) { return unpack2<true>(pack2<true>(x, 0.0f)).x; }

// The sum over the threads before this one and over all; a value per thread. One block of THREADS.
template <int THREADS> __device__ uint32_t scan_block(uint32_t x, uint32_t *total, uint32_t *shared) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = x;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t below = __shfl_up_sync(FULL, sum, step);
        if (lane >= step) sum += below;
    }
    __syncthreads(); // the scan before has been read
    if (lane == 31) shared[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        uint32_t s = lane < THREADS / 32 ? shared[lane] : 0;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t below = __shfl_up_sync(FULL, s, step);
            if (lane >= step) s += below;
        }
        if (lane < THREADS / 32) shared[lane] = s;
    }
    __syncthreads();
    *total = shared[THREADS / 32 - 1];
    return sum - x + (warp ? shared[warp - 1] : 0);
}

// ------------------------------------------------------------------------------------------------ candidates

constexpr int WIDE = 1024;

struct lanes_args {
    sections at;
    const int32_t *pages, *first, *n_rows;
    uint32_t model_layers, G, seq, layer0;
};

lanes_args lanes_of(const pith_cuda_cache *c, const pith_cuda_event *e) {
    return {sections_of(*c), c->pages, c->first, c->n_rows, c->geo.n_layers, c->geo.n_kv_heads, e->seq, e->layer0};
}
__device__ __forceinline__ size_t entry_of(const lanes_args &a, uint32_t layer, uint32_t kv) {
    return ((size_t)a.seq * a.model_layers + a.layer0 + layer) * a.G + kv;
}

// One block per lane, four rows per thread at a time: a lane of 9216 rows takes three rounds. Bound: latency.
__global__ void __launch_bounds__(WIDE)
    candidates_kernel(lanes_args a, const pith_span *protect, uint32_t n_protect, uint32_t n_tail, uint32_t room,
                      uint32_t *rows, uint32_t *counts) {
    __shared__ uint32_t shared[WIDE / 32];
    const uint32_t kv = blockIdx.x, layer = blockIdx.y, n_rows = (uint32_t)a.n_rows[entry_of(a, layer, kv)];
    const int32_t *ids = a.pages + a.first[entry_of(a, layer, kv)];
    uint32_t *out = rows + ((size_t)layer * a.G + kv) * room, base = 0;
    for (uint32_t from = 0; from < n_rows; from += 4 * WIDE) {
        const uint32_t row = from + 4 * threadIdx.x; // four rows of one page
        uint32_t free_rows = 0;
        if (row < n_rows) {
            const int4 four =
                *reinterpret_cast<const int4 *>(page_pos(a.at, ids[row / PITH_PAGE_ROWS]) + row % PITH_PAGE_ROWS);
            const int32_t pos[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                bool is_free = row + i < n_rows;
                for (uint32_t s = 0; s < n_protect; s++)
                    is_free &= pos[i] < protect[s].begin || pos[i] >= protect[s].end;
                free_rows |= (uint32_t)is_free << i;
            }
        }
        uint32_t total, at = base + scan_block<WIDE>(__popc(free_rows), &total, shared);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (free_rows >> i & 1) {
                if (at < room) out[at] = row + i;
                at++;
            }
        base += total;
    }
    if (counts && threadIdx.x == 0) counts[(size_t)layer * a.G + kv] = base > n_tail ? base - n_tail : 0;
}

// ------------------------------------------------------------------------------------------------------ mass
//
// Bound: tensor cores. With R = 32 queries, H = 28, d = 128 and S = 9088, a layer has 2.1 GFLOP of scores. They are
// computed twice, once for the softmax's sums and once for the weights: storing (H, R, S) instead would move
// 66 MB a layer. Queries are rounded to the cache's type, as attention has them (PITH_ARITH_BF16: keys and queries to
// bf16), so that one instruction takes both. Keys come from memory once per pass, for all heads.
//
// Beside a tensor instruction for 128 scores there is room for about 20 others, so what is done to a score is counted:
//
//   - sums_kernel keeps 32 queries in a warp's registers and lets the candidates stream by. A lane has sums of its own
//     for four queries, relative to a score that it has seen, and not always the largest: a new one is taken when
//     weights exceed MASS_LARGE. Lanes meet once, at the end, and not for every eight scores;
//   - the products start from minus that reference in place of 0 (in the second pass from minus the largest of all
//     lanes'), which costs nothing. A multiplication and an exponential make a score a weight. Where products are exact
//     and the largest scores are equal and far above the others, they are the reference, and weigh exactly 1. (One
//     fused multiply-add in place of the difference and the multiplication would not do: the rounding of the reference
//     times log2 e would stay behind.);
//   - in scores_kernel a warp keeps 32 candidates and the queries stream by, so that a weight is added where it is, by
//     one multiply-add with the sum's reciprocal. Weights of 0 and 1 give the same bits as a division does.
//
// PITH_ARITH_BF16 is what its definition says, operation by operation, at whatever it costs.
//
// The order of d inside a dot product is free, so that 16 bytes of a row are the operands of two products.

constexpr int MASS_WARPS = 8, MASS_THREADS = MASS_WARPS * 32;
constexpr int MASS_TILE = 32;                     // rows that a warp keeps, and rows of a tile that streams by
constexpr int MASS_STAGES = 3;                    // tiles in shared memory: one in use, two under way
constexpr int MASS_CHUNK = 512;                   // candidates of a block of sums_kernel
constexpr int MASS_ROWS = MASS_WARPS * MASS_TILE; // of scores_kernel
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float MASS_LARGE = 0x1p16f; // weights that are summed as they come, without a new reference

// Rows of shared memory start 16 banks apart, so that the 16-byte reads of eight lanes, two rows of 64 bytes, hit all.
template <int D> constexpr int mass_stride = D % 64 ? D : D + 32; // elements

struct mass_args {
    lanes_args lanes;
    const uint32_t *rows;    // (n_layers, G, S)
    const uint16_t *queries; // (n_layers, H, R padded to MASS_TILE, d)
    float2 *partial;         // (n_layers, H, n_chunks, R padded) reference and sum of a chunk's candidates
    float2 *stats;           // (n_layers, H, R padded): stats_kernel
    float *score;            // (n_layers, H, S)
    uint32_t H, S, R, R_padded, n_chunks;
};

// The queries in the form that the products take: (n_layers, H, R padded, d). Padding is 0. A block has one head's.
template <bool BF16>
__global__ void __launch_bounds__(256)
    queries_kernel(const float *window, uint32_t cap, const uint32_t *slots, uint32_t R, uint32_t R_padded,
                   uint32_t layer0, uint32_t H, uint32_t d, uint16_t *out) {
    const uint32_t h = blockIdx.x, layer = blockIdx.y;
    uint16_t *to = out + ((size_t)layer * H + h) * R_padded * d;
    for (uint32_t i = 2 * threadIdx.x; i < R_padded * d; i += 2 * blockDim.x) {
        const uint32_t r = i / d;
        float2 q = make_float2(0.0f, 0.0f);
        if (r < R)
            q = *reinterpret_cast<const float2 *>(window + (((size_t)(layer0 + layer) * cap + slots[r]) * H + h) * d +
                                                  i % d);
        *reinterpret_cast<uint32_t *>(to + i) = pack2<BF16>(q.x, q.y);
    }
}

// How a score becomes a weight. `scale` is the exponent's per unit of a score: of the products' own, but for REF, where
// a score is a logit as PyTorch has it.
template <int D, bool REF> struct softmax {
    const float root = sqrtf((float)D), scale = REF ? LOG2_E : LOG2_E / root;
    __device__ __forceinline__ float score(float product) const {
        if constexpr (REF) return round_bf16(__fdiv_rn(round_bf16(product), root));
        else return product;
    }
    // Of a score less what it is relative to.
    __device__ __forceinline__ float weight(float x) const {
        if constexpr (REF) return exp2f(x * scale);
        else return exp2_or_0(x * scale);
    }
};

template <bool BF16> struct half_of { using type = __nv_bfloat16; };
template <> struct half_of<false> { using type = __half; };

// Eight numbers of the cache as the products take them.
template <bool REF, bool KEY_BF16> __device__ __forceinline__ void key_as_operand(uint4 &w) {
    if constexpr (REF && !KEY_BF16) {
        uint32_t *words = &w.x;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 x = unpack2<false>(words[i]);
            words[i] = pack2<true>(x.x, x.y);
        }
    }
}

// Scores of a warp's 32 rows times 16 of a tile: s[u][mt][i] of row 16 mt + p + 8 (i / 2) and row 8 u + 2 t + i % 2 of
// the 16, for lane 4 p + t. They start from c. `tile` is the lane's: row p of the 16, 8 t elements in.
template <int D, typename T16, typename Convert>
__device__ __forceinline__ void multiply(float (&s)[2][2][4], const float (&c)[2][2][4],
                                         const uint4 (&kept)[2][2][D / 32], const uint16_t *tile, Convert convert) {
#pragma unroll
    for (int j = 0; j < D / 32; j++)
#pragma unroll
        for (int u = 0; u < 2; u++) {
            uint4 b = *reinterpret_cast<const uint4 *>(tile + u * 8 * mass_stride<D> + j * 32);
            convert(b);
#pragma unroll
            for (int mt = 0; mt < 2; mt++) {
                const uint32_t a0[4] = {kept[mt][0][j].x, kept[mt][1][j].x, kept[mt][0][j].y, kept[mt][1][j].y};
                const uint32_t a1[4] = {kept[mt][0][j].z, kept[mt][1][j].z, kept[mt][0][j].w, kept[mt][1][j].w};
                if (j == 0) mma_from<T16>(s[u][mt], c[u][mt], a0, b.x, b.y);
                else mma<T16>(s[u][mt], a0, b.x, b.y);
                mma<T16>(s[u][mt], a1, b.z, b.w);
            }
        }
}

// What a lane knows of four queries, 16 mt + p + 8 a: minus a score that its weights are relative to, and their sum.
struct running {
    float minus_ref[2][2], sum[2][2];
};

// The scores' own maxima become what weights are relative to, where they are above it or nothing has weighed anything.
template <int D, bool REF>
__device__ __forceinline__ void raise(running &of, const softmax<D, REF> &soft, float (&s)[2][2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int mt = i / 2, a = i % 2;
        float &sum = of.sum[mt][a], &minus_ref = of.minus_ref[mt][a];
        float up = fmaxf(fmaxf(s[0][mt][2 * a], s[0][mt][2 * a + 1]), fmaxf(s[1][mt][2 * a], s[1][mt][2 * a + 1]));
        if (REF) up += minus_ref;
        if (!(up > 0.0f || (sum == 0.0f && up > -INFINITY))) up = 0.0f;
        if (sum != 0.0f) sum *= soft.weight(-up);
        minus_ref -= up;
        if (!REF)
#pragma unroll
            for (int j = 0; j < 4; j++) s[j / 2][mt][2 * a + j % 2] -= up;
    }
}

template <int D, bool REF>
__device__ __forceinline__ void sum_weights(float (&sum)[2][2], const running &of, const softmax<D, REF> &soft,
                                            const float (&s)[2][2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int mt = i / 2, a = i % 2;
        float w[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float x = s[j / 2][mt][2 * a + j % 2];
            w[j] = soft.weight(REF ? x + of.minus_ref[mt][a] : x);
        }
        sum[mt][a] = (w[0] + w[1]) + (w[2] + w[3]);
    }
}

// 16 candidates more, of which n_here exist: fewer than 16 in the last tile alone.
template <int D, bool REF, bool KEY_BF16, bool LAST>
__device__ __forceinline__ void add_candidates(running &of, const softmax<D, REF> &soft, bool first, uint32_t n_here,
                                               const uint4 (&kept)[2][2][D / 32], const uint16_t *tile) {
    float s[2][2][4], c[2][2][4], sum[2][2];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int u = i / 8, mt = i / 4 % 2, e = i % 4;
        c[u][mt][e] = REF ? 0.0f : of.minus_ref[mt][e / 2];
        if (LAST && 8 * u + 2 * (threadIdx.x % 4) + e % 2 >= n_here) c[u][mt][e] = -INFINITY; // weighs nothing
    }
    multiply<D, typename half_of<REF || KEY_BF16>::type>(s, c, kept, tile, key_as_operand<REF, KEY_BF16>);
    if constexpr (REF)
#pragma unroll
        for (int i = 0; i < 16; i++) s[i / 8][i / 4 % 2][i % 4] = soft.score(s[i / 8][i / 4 % 2][i % 4]);
    sum_weights(sum, of, soft, s);
    const float most = fmaxf(fmaxf(sum[0][0], sum[0][1]), fmaxf(sum[1][0], sum[1][1]));
    if (REF || first || __any_sync(FULL, most > MASS_LARGE)) {
        raise(of, soft, s);
        sum_weights(sum, of, soft, s);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) of.sum[i / 2][i % 2] += sum[i / 2][i % 2];
}

// The tile of queries of a warp of sums_kernel.
struct mass_unit {
    uint32_t n_q, n, index; // tiles of a head, of the heads that share keys; which one
    uint32_t kv, h, r0;
};
__device__ __forceinline__ mass_unit unit_of(const mass_args &p) {
    mass_unit u;
    const uint32_t g = p.H / p.lanes.G, n_groups = gridDim.y / p.lanes.G;
    u.n_q = p.R_padded / MASS_TILE, u.n = g * u.n_q;
    u.index = blockIdx.y % n_groups * (blockDim.x / 32) + threadIdx.x / 32;
    u.kv = blockIdx.y / n_groups, u.h = u.kv * g + u.index / u.n_q, u.r0 = u.index % u.n_q * MASS_TILE;
    return u;
}

// A chunk's sums, of the four lanes that share queries.
template <int D, bool REF>
__device__ __forceinline__ void store_sums(const mass_args &p, const running &of, const softmax<D, REF> &soft) {
    const mass_unit unit = unit_of(p);
    float2 *out = p.partial + (((size_t)blockIdx.z * p.H + unit.h) * p.n_chunks + blockIdx.x) * p.R_padded + unit.r0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = of.sum[i / 2][i % 2];
        const float mine = sum == 0.0f ? -INFINITY : -of.minus_ref[i / 2][i % 2]; // nothing is relative to nothing
        float ref = mine;
#pragma unroll
        for (int step = 1; step < 4; step *= 2) ref = fmaxf(ref, __shfl_xor_sync(FULL, ref, step));
        sum *= soft.weight(mine - soft_shift(ref));
#pragma unroll
        for (int step = 1; step < 4; step *= 2) sum += __shfl_xor_sync(FULL, sum, step);
        if (threadIdx.x % 4 == 0) out[8 * i + threadIdx.x % 32 / 4] = make_float2(ref, sum);
    }
}

// References and sums of MASS_CHUNK candidates for up to 8 tiles of queries of the heads that share them, a warp each.
// REF: PITH_ARITH_BF16. KEY_BF16: the cache's type.
template <int D, bool REF, bool KEY_BF16>
__global__ void __launch_bounds__(MASS_THREADS, D <= 128 ? 2 : 1) sums_kernel(mass_args p) {
    constexpr int STRIDE = mass_stride<D>, PIECES = D / 8;
    PITH_CUDA_DYNAMIC_SHARED(uint16_t, tiles); // (MASS_STAGES, MASS_TILE, STRIDE)
    __shared__ const uint8_t *keys[MASS_CHUNK];
    const uint32_t pr = threadIdx.x % 32 / 4, t = threadIdx.x % 4, layer = blockIdx.z;
    const mass_unit unit = unit_of(p);
    const bool has_unit = unit.index < unit.n;
    const uint32_t begin = blockIdx.x * MASS_CHUNK, n = min(p.S - begin, (uint32_t)MASS_CHUNK);
    const uint32_t n_tiles = (n + MASS_TILE - 1) / MASS_TILE;

    const uint32_t *rows = p.rows + ((size_t)layer * p.lanes.G + unit.kv) * p.S + begin;
    const int32_t *ids = p.lanes.pages + p.lanes.first[entry_of(p.lanes, layer, unit.kv)];
    for (uint32_t i = threadIdx.x; i < n_tiles * MASS_TILE; i += blockDim.x) {
        const uint32_t row = rows[min(i, n - 1)];
        keys[i] = page_k(p.lanes.at, ids[row / PITH_PAGE_ROWS]) + (size_t)(row % PITH_PAGE_ROWS) * (2 * D);
    }
    uint4 kept[2][2][D / 32];
    if (has_unit) {
        const uint16_t *from = p.queries + (((size_t)layer * p.H + unit.h) * p.R_padded + unit.r0) * D;
#pragma unroll
        for (int i = 0; i < 4 * (D / 32); i++)
            kept[i / 2 % 2][i % 2][i / 4] = __ldcg(
                reinterpret_cast<const uint4 *>(from + (16 * (i / 2 % 2) + 8 * (i % 2) + pr) * D + i / 4 * 32 + t * 8));
    }
    __syncthreads();
    auto fetch = [&](uint32_t tile) {
        uint16_t *to = tiles + tile % MASS_STAGES * (MASS_TILE * STRIDE);
        if (tile < n_tiles)
            for (int i = threadIdx.x; i < MASS_TILE * PIECES; i += blockDim.x)
                copy16_async(to + i / PIECES * STRIDE + i % PIECES * 8,
                             keys[tile * MASS_TILE + i / PIECES] + i % PIECES * 16);
        copies_commit();
    };
    const softmax<D, REF> soft;
    running of = {};
    fetch(0), fetch(1);
    const uint16_t *mine = tiles + pr * STRIDE + t * 8;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        copies_wait<1>();
        __syncthreads(); // this tile has arrived, the one before has been read
        fetch(tile + 2);
        const uint16_t *now = mine + tile % MASS_STAGES * (MASS_TILE * STRIDE);
        const uint32_t left = n - tile * MASS_TILE;
        if (!has_unit) continue;
        if (left < MASS_TILE) { // the chunk's last, behind the loop
            add_candidates<D, REF, KEY_BF16, true>(of, soft, tile == 0, left, kept, now);
            if (left > 16) add_candidates<D, REF, KEY_BF16, true>(of, soft, false, left - 16, kept, now + 16 * STRIDE);
            break;
        }
        add_candidates<D, REF, KEY_BF16, false>(of, soft, tile == 0, 16, kept, now);
        add_candidates<D, REF, KEY_BF16, false>(of, soft, false, 16, kept, now + 16 * STRIDE);
    }
    if (has_unit) store_sums(p, of, soft);
}

// What scores_kernel wants of a query: minus its reference, and 1 / sum; REF: the maximum and the sum. Padding weighs
// nothing. One thread per query, chunks in ascending order.
template <int D, bool REF> __global__ void stats_kernel(mass_args p) {
    const uint32_t r = blockIdx.x * blockDim.x + threadIdx.x;
    const size_t head = (size_t)blockIdx.z * p.H + blockIdx.y;
    if (r >= p.R_padded) return;
    const float2 *from = p.partial + head * p.n_chunks * p.R_padded + r;
    const softmax<D, REF> soft;
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < p.n_chunks; i++) max = fmaxf(max, from[(size_t)i * p.R_padded].x);
    max = soft_shift(max);
    for (uint32_t i = 0; i < p.n_chunks; i++) {
        const float2 part = from[(size_t)i * p.R_padded];
        sum = fmaf(part.y, soft.weight(part.x - max), sum);
    }
    if (r >= p.R) sum = INFINITY;
    p.stats[head * p.R_padded + r] = REF ? make_float2(max, sum) : make_float2(-max, __fdiv_rn(1.0f, sum));
}

// The weights that 16 queries give a warp's candidates. stats: of two queries each, from the lane's on.
template <int D, bool REF, bool KEY_BF16>
__device__ __forceinline__ void add_weights(float (&sum)[2][2], const softmax<D, REF> &soft,
                                            const uint4 (&kept)[2][2][D / 32], const uint16_t *tile,
                                            const float4 *stats) {
    float s[2][2][4], c[2][2][4];
    const float4 of[2] = {stats[0], stats[4]};
#pragma unroll
    for (int i = 0; i < 16; i++) c[i / 8][i / 4 % 2][i % 4] = REF ? 0.0f : i % 2 ? of[i / 8].z : of[i / 8].x;
    multiply<D, typename half_of<REF || KEY_BF16>::type>(s, c, kept, tile, [](uint4 &) {});
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int u = i / 8, mt = i / 4 % 2, e = i % 4;
        const float a = e % 2 ? of[u].z : of[u].x, b = e % 2 ? of[u].w : of[u].y;
        float &to = sum[mt][e / 2];
        if constexpr (REF) to += round_bf16(__fdiv_rn(soft.weight(soft.score(s[u][mt][e]) - a), b));
        else to = fmaf(soft.weight(s[u][mt][e]), b, to);
    }
}

// Sums over the four lanes t = 0 to 3: lane t gets x[t / 2][t % 2]'s.
__device__ __forceinline__ float over_four_lanes(const float (&x)[2][2], uint32_t t) {
    float y[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        y[i] = (t & 1 ? x[i][1] : x[i][0]) + __shfl_xor_sync(FULL, t & 1 ? x[i][0] : x[i][1], 1);
    return (t & 2 ? y[1] : y[0]) + __shfl_xor_sync(FULL, t & 2 ? y[0] : y[1], 2);
}

// REF: PITH_ARITH_BF16. KEY_BF16: the cache's type.
template <int D, bool REF, bool KEY_BF16>
__global__ void __launch_bounds__(MASS_THREADS, D <= 128 ? 2 : 1) scores_kernel(mass_args p) {
    constexpr int STRIDE = mass_stride<D>, PIECES = D / 8, STAGE = MASS_TILE * (STRIDE + sizeof(float2) / 2);
    PITH_CUDA_DYNAMIC_SHARED(uint16_t, tiles); // (MASS_STAGES): (MASS_TILE, STRIDE) queries, (MASS_TILE) of stats
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t kv = blockIdx.y, layer = blockIdx.z, g = p.H / p.lanes.G;
    const softmax<D, REF> soft;

    // Tiles of queries of one head, heads of the group one after another: in memory too.
    const uint32_t n_q = p.R_padded / MASS_TILE, n_tiles = g * n_q, head0 = layer * p.H + kv * g;
    auto fetch = [&](uint32_t tile, uint32_t stage) {
        uint16_t *to = tiles + stage * STAGE;
        const size_t query = (size_t)head0 * p.R_padded + tile * MASS_TILE;
        if (tile < n_tiles) {
            const uint16_t *from = p.queries + query * D + threadIdx.x * 8;
#pragma unroll
            for (int i = 0; i < MASS_TILE * PIECES; i += MASS_THREADS) {
                const int piece = i + threadIdx.x;
                if (i + MASS_THREADS <= MASS_TILE * PIECES || piece < MASS_TILE * PIECES)
                    copy16_async(to + piece / PIECES * STRIDE + piece % PIECES * 8, from + i * 8);
            }
            if (threadIdx.x < MASS_TILE / 2)
                copy16_async(to + MASS_TILE * STRIDE + threadIdx.x * 8, p.stats + query + threadIdx.x * 2);
        }
        copies_commit();
    };
    fetch(0, 0), fetch(1, 1);

    // Candidates 16 mt + pr and + 8 of the warp's 32.
    const uint32_t first = blockIdx.x * MASS_ROWS + warp * MASS_TILE;
    const uint32_t *rows = p.rows + ((size_t)layer * p.lanes.G + kv) * p.S;
    const int32_t *ids = p.lanes.pages + p.lanes.first[entry_of(p.lanes, layer, kv)];
    uint4 kept[2][2][D / 32];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t row = rows[min(first + 8 * i + pr, p.S - 1)];
        const uint8_t *k = page_k(p.lanes.at, ids[row / PITH_PAGE_ROWS]) + (size_t)(row % PITH_PAGE_ROWS) * (2 * D);
#pragma unroll
        for (int j = 0; j < D / 32; j++) {
            kept[i / 2][i % 2][j] = __ldcg(reinterpret_cast<const uint4 *>(k + j * 64 + t * 16));
            key_as_operand<REF, KEY_BF16>(kept[i / 2][i % 2][j]);
        }
    }
    float sum[2][2] = {}; // of the candidate's weights, this lane's queries only
    uint32_t stage = 0, left = n_q, head = head0;
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        copies_wait<1>();
        __syncthreads(); // this tile has arrived, the one before has been read
        fetch(tile + 2, stage == 0 ? MASS_STAGES - 1 : stage - 1);
        const uint16_t *now = tiles + stage * STAGE;
#pragma unroll 1 // registers
        for (uint32_t half = 0; half < 2; half++)
            add_weights<D, REF, KEY_BF16>(sum, soft, kept, now + (16 * half + pr) * STRIDE + t * 8,
                                          reinterpret_cast<const float4 *>(now + MASS_TILE * STRIDE) + 8 * half + t);
        stage = stage == MASS_STAGES - 1 ? 0 : stage + 1;
        if (--left) continue;
        // The head's last tile.
        const uint32_t j = first + 8 * t + pr;
        const float x = over_four_lanes(sum, t);
        if (j < p.S) p.score[(size_t)head * p.S + j] = REF ? round_bf16(x) : x;
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i / 2][i % 2] = 0.0f;
        left = n_q, head++;
    }
}

struct mass_layout {
    uint32_t R_padded, n_chunks;
    size_t n_queries, partial, stats, bytes; // offsets; queries come first
};
mass_layout layout_of(const pith_geometry *geo, uint32_t n_layers, uint32_t n, uint32_t n_slots) {
    mass_layout m;
    m.R_padded = (n_slots + MASS_TILE - 1) / MASS_TILE * MASS_TILE;
    m.n_chunks = (n + MASS_CHUNK - 1) / MASS_CHUNK;
    m.n_queries = (size_t)n_layers * geo->n_heads * m.R_padded;
    m.partial = pith_page_align(m.n_queries * geo->head_dim * sizeof(uint16_t));
    m.stats = m.partial + pith_page_align(m.n_queries * m.n_chunks * sizeof(float2));
    m.bytes = m.stats + pith_page_align(m.n_queries * sizeof(float2));
    return m;
}

template <int D, bool REF, bool KEY_BF16>
cudaError_t run_mass(const mass_args &args, uint32_t n_layers, cudaStream_t stream) {
    const uint32_t n_units = args.H / args.lanes.G * (args.R_padded / MASS_TILE),
                   n_groups = (n_units + MASS_WARPS - 1) / MASS_WARPS, n_warps = (n_units + n_groups - 1) / n_groups;
    const size_t tiles = (size_t)MASS_STAGES * MASS_TILE * mass_stride<D> * sizeof(uint16_t),
                 stats = (size_t)MASS_STAGES * MASS_TILE * sizeof(float2);
    auto *sums = sums_kernel<D, REF, KEY_BF16>;
    auto *scores = scores_kernel<D, REF, KEY_BF16>;
    // 56 KB with d 256: above what a block gets unasked. The calls are host-side and cheap.
    cudaError_t err = cudaFuncSetAttribute(sums, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)tiles);
    if (!err) err = cudaFuncSetAttribute(scores, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(tiles + stats));
    if (!err)
        err = launch_kernel(sums, dim3(args.n_chunks, args.lanes.G * n_groups, n_layers), n_warps * 32, tiles, stream,
                            args);
    if (!err)
        err = launch_kernel(stats_kernel<D, REF>, dim3((args.R_padded + 127) / 128, args.H, n_layers),
                            args.R_padded < 128 ? args.R_padded : 128, 0, stream, args);
    return err ? err
               : launch_kernel(scores, dim3((args.S + MASS_ROWS - 1) / MASS_ROWS, args.lanes.G, n_layers), MASS_THREADS,
                               tiles + stats, stream, args);
}

template <int D>
cudaError_t run_dim(const mass_args &args, bool ref, bool bf16, uint32_t n_layers, cudaStream_t stream) {
    if (ref)
        return bf16 ? run_mass<D, true, true>(args, n_layers, stream)
                    : run_mass<D, true, false>(args, n_layers, stream);
    return bf16 ? run_mass<D, false, true>(args, n_layers, stream) : run_mass<D, false, false>(args, n_layers, stream);
}

// --------------------------------------------------------------------------------------- aggregation, pooling

// One thread per output, heads in ascending order: the CPU's bits. Bound: bytes, 1 MB a layer.
__global__ void aggregate_kernel(const float *in, float *out, uint32_t H, uint32_t n_sets, uint32_t n, bool maximum,
                                 bool ref) {
    const uint32_t j = blockIdx.x * blockDim.x + threadIdx.x, set = blockIdx.y, layer = blockIdx.z,
                   per_set = H / n_sets;
    if (j >= n) return;
    const float *from = in + ((size_t)layer * H + (size_t)set * per_set) * n + j;
    float x = from[0];
    for (uint32_t h = 1; h < per_set; h++) {
        const float y = from[(size_t)h * n];
        x = maximum ? (y > x ? y : x) : __fadd_rn(x, y);
    }
    if (!maximum) {
        x = __fdiv_rn(x, (float)per_set);
        if (ref) x = round_bf16(x);
    }
    out[((size_t)layer * n_sets + set) * n + j] = x;
}

// One thread per output, neighbours in ascending order; they come from the L1 cache.
__global__ void pool_kernel(const float *in, float *out, uint32_t n, pith_pool how, uint32_t width, bool ref) {
    const uint32_t j = blockIdx.x * blockDim.x + threadIdx.x, half = width / 2;
    if (j >= n) return;
    const float *set = in + (size_t)blockIdx.y * n;
    const uint32_t begin = j > half ? j - half : 0, end = n - j > half ? j + half + 1 : n;
    float sum = 0.0f, top = set[begin];
    for (uint32_t i = begin; i < end; i++) {
        const float x = set[i];
        sum = __fadd_rn(sum, x);
        top = x > top ? x : top;
    }
    const float x = how == PITH_POOL_MAX ? top : __fdiv_rn(sum, (float)(ref ? width : end - begin));
    out[(size_t)blockIdx.y * n + j] = ref ? round_bf16(x) : x;
}

// ------------------------------------------------------------------------------------------------------- top

// As the CPU's: 0 and -0 are one, NaN is below everything.
__device__ __forceinline__ uint32_t order_image(float x) {
    if (isnan(x)) return 0;
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The k-th largest image by its bytes from the highest, then everything above it and the lowest of its equals, in
// order. One block per set: five passes over at most 128 KB that come from L2. Pooled scores share exponents, so
// counting the first byte hits few counters; each warp counts equal bytes with one atomic.
__global__ void __launch_bounds__(WIDE) top_kernel(const float *score, uint32_t n, uint32_t k, uint32_t *keep) {
    __shared__ uint32_t count[256], shared[WIDE / 32], found[2];
    const float *set = score + (size_t)blockIdx.x * n;
    uint32_t *out = keep + (size_t)blockIdx.x * k, known = 0, mask = 0, wanted = k;
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t shift = 32; shift > 0;) {
        shift -= 8;
        if (threadIdx.x < 256) count[threadIdx.x] = 0;
        __syncthreads();
        for (uint32_t from = 0; from < n; from += WIDE) {
            const uint32_t j = from + threadIdx.x, image = j < n ? order_image(set[j]) : 0;
            const uint32_t byte = j < n && (image & mask) == known ? image >> shift & 255u : 256u;
            const uint32_t same = __match_any_sync(FULL, byte);
            if (byte < 256 && lane == (uint32_t)__ffs(same) - 1) atomicAdd(&count[byte], __popc(same));
        }
        __syncthreads();
        // Thread i < 256 stands for byte 255 - i; how many images have a higher byte is a scan.
        uint32_t total, mine = threadIdx.x < 256 ? count[255 - threadIdx.x] : 0;
        const uint32_t above = scan_block<WIDE>(mine, &total, shared);
        if (above < wanted && above + mine >= wanted) found[0] = 255 - threadIdx.x, found[1] = wanted - above;
        __syncthreads();
        known |= found[0] << shift, mask |= 255u << shift, wanted = found[1];
    }
    uint32_t n_kept = 0, n_equal = 0;
    for (uint32_t from = 0; from < n && n_kept < k; from += WIDE) {
        const uint32_t j = from + threadIdx.x, image = j < n ? order_image(set[j]) : 0;
        uint32_t total;
        const bool equal = j < n && image == known;
        const uint32_t equals_before = n_equal + scan_block<WIDE>(equal, &total, shared);
        n_equal += total;
        const bool kept = j < n && (image > known || (equal && equals_before < wanted));
        const uint32_t at = n_kept + scan_block<WIDE>(kept, &total, shared);
        n_kept += total;
        if (kept) out[at] = j;
    }
}

} // namespace

extern "C" cudaError_t pith_cuda_candidates(const pith_cuda_cache *c, const pith_cuda_event *e,
                                            const pith_span *protect, uint32_t n_protect, uint32_t n_tail,
                                            uint32_t *rows, uint32_t *counts, cudaStream_t stream) {
    if (e->n_layers == 0) return cudaSuccess;
    return launch_kernel(candidates_kernel, dim3(c->geo.n_kv_heads, e->n_layers), WIDE, 0, stream, lanes_of(c, e),
                         protect, n_protect, n_tail, e->n, rows, counts);
}

extern "C" size_t pith_cuda_mass_scratch(const pith_geometry *geo, uint32_t n_layers, uint32_t n, uint32_t n_slots) {
    return layout_of(geo, n_layers, n, n_slots).bytes;
}

extern "C" cudaError_t pith_cuda_mass(const pith_cuda_cache *c, const pith_cuda_event *e, const float *window,
                                      uint32_t cap, const uint32_t *slots, uint32_t n_slots, pith_arith arith,
                                      const uint32_t *rows, void *scratch, float *score, cudaStream_t stream) {
    const pith_geometry *geo = &c->geo;
    if (e->n == 0 || e->n_layers == 0) return cudaSuccess;
    if (geo->elt_bytes != 2) return cudaErrorInvalidValue;
    if (n_slots == 0)
        return cudaMemsetAsync(score, 0, (size_t)e->n_layers * geo->n_heads * e->n * sizeof(float), stream);
    const mass_layout m = layout_of(geo, e->n_layers, e->n, n_slots);
    uint8_t *at = static_cast<uint8_t *>(scratch);
    const bool ref = arith == PITH_ARITH_BF16, bf16 = c->type == PITH_HALF_BF16;
    uint16_t *queries = reinterpret_cast<uint16_t *>(at);
    const cudaError_t err = launch_kernel(ref || bf16 ? queries_kernel<true> : queries_kernel<false>,
                                          dim3(geo->n_heads, e->n_layers), 256, 0, stream, window, cap, slots, n_slots,
                                          m.R_padded, e->layer0, geo->n_heads, geo->head_dim, queries);
    if (err) return err;
    const mass_args args = {lanes_of(c, e),
                            rows,
                            queries,
                            reinterpret_cast<float2 *>(at + m.partial),
                            reinterpret_cast<float2 *>(at + m.stats),
                            score,
                            geo->n_heads,
                            e->n,
                            n_slots,
                            m.R_padded,
                            m.n_chunks};
    switch (geo->head_dim) {
    case 64: return run_dim<64>(args, ref, bf16, e->n_layers, stream);
    case 96: return run_dim<96>(args, ref, bf16, e->n_layers, stream);
    case 128: return run_dim<128>(args, ref, bf16, e->n_layers, stream);
    case 160: return run_dim<160>(args, ref, bf16, e->n_layers, stream);
    case 192: return run_dim<192>(args, ref, bf16, e->n_layers, stream);
    case 224: return run_dim<224>(args, ref, bf16, e->n_layers, stream);
    case 256: return run_dim<256>(args, ref, bf16, e->n_layers, stream);
    default: return cudaErrorInvalidValue;
    }
}

extern "C" cudaError_t pith_cuda_aggregate(const pith_geometry *geo, const pith_cuda_event *e, pith_aggregate how,
                                           pith_arith arith, const float *in, float *out, cudaStream_t stream) {
    if (e->n == 0 || e->n_layers == 0) return cudaSuccess;
    const uint32_t n_sets = how == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
    return launch_kernel(aggregate_kernel, dim3((e->n + 255) / 256, n_sets, e->n_layers), 256, 0, stream, in, out,
                         geo->n_heads, n_sets, e->n, how == PITH_AGG_HEAD, arith == PITH_ARITH_BF16);
}

extern "C" cudaError_t pith_cuda_pool(const pith_cuda_event *e, uint32_t n_sets, pith_pool how, uint32_t width,
                                      pith_arith arith, const float *in, float *out, cudaStream_t stream) {
    const size_t n = (size_t)e->n_layers * n_sets;
    if (e->n == 0 || n == 0) return cudaSuccess;
    if (how == PITH_POOL_NONE)
        return cudaMemcpyAsync(out, in, n * e->n * sizeof(float), cudaMemcpyDeviceToDevice, stream);
    return launch_kernel(pool_kernel, dim3((e->n + 255) / 256, (unsigned)n), 256, 0, stream, in, out, e->n, how, width,
                         arith == PITH_ARITH_BF16);
}

extern "C" cudaError_t pith_cuda_top(const pith_cuda_event *e, uint32_t n_sets, const float *score, uint32_t k,
                                     uint32_t *keep, cudaStream_t stream) {
    const uint32_t n = e->n_layers * n_sets;
    if (n == 0 || k == 0) return cudaSuccess;
    if (k > e->n) return cudaErrorInvalidValue;
    return launch_kernel(top_kernel, n, WIDE, 0, stream, score, e->n, k, keep);
}
