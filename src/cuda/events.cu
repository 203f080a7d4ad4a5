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
// Bound: tensor cores. With R = 32 queries, H = 28, d = 128 and S = 9216, a layer has 2.1 GFLOP of scores; keys in bf16
// are multiplied by the f32 query cut into two terms of 16 bits (together 16 bits of significand with bf16, 22 with
// f16; the key has 8 or 11, exactly), and scores are computed twice, once for the softmax's maxima and sums and once
// for the weights: storing (H, R, S) instead would move 66 MB a layer. Keys are read from memory once per pass, for all
// heads.
//
// A block has 256 candidates of one lane, 32 per warp, whose keys stay in registers while all g R queries stream by
// through shared memory, 32 at a time. The order of d inside a dot product is free, so that 16 bytes of a row are the
// operands of two products.

constexpr int MASS_WARPS = 8, MASS_THREADS = MASS_WARPS * 32, MASS_ROWS = MASS_WARPS * 32, MASS_Q = 32;

// Rows of shared memory start 16 banks apart, so that the 16-byte reads of eight lanes, two rows of 64 bytes, hit all.
template <int D> constexpr int mass_stride = D % 64 ? D : D + 32; // elements

struct mass_args {
    lanes_args lanes;
    const uint32_t *rows;  // (n_layers, G, S)
    const uint16_t *terms; // (n_layers, H, R padded to MASS_Q, n_terms, d)
    float2 *partial;       // (n_layers, H, R padded, n_blocks) maximum and sum of a block's candidates
    float2 *stats;         // (n_layers, H, R padded)
    float *score;          // (n_layers, H, S)
    uint32_t H, S, R, R_padded, n_blocks;
};

// The queries in the form that the products take: (n_layers, H, R padded, N_TERMS, d). Padding is 0.
template <int N_TERMS, bool BF16>
__global__ void terms_kernel(const float *window, uint32_t cap, const uint32_t *slots, uint32_t R, uint32_t R_padded,
                             uint32_t layer0, uint32_t H, uint32_t d, uint16_t *out) {
    const uint32_t r = blockIdx.x, h = blockIdx.y, layer = blockIdx.z;
    uint16_t *to = out + (((size_t)layer * H + h) * R_padded + r) * N_TERMS * d;
    const float *q = r < R ? window + (((size_t)(layer0 + layer) * cap + slots[r]) * H + h) * d : nullptr;
    for (uint32_t i = threadIdx.x; i < d; i += blockDim.x) {
        float rest = q ? q[i] : 0.0f;
#pragma unroll
        for (int term = 0; term < N_TERMS; term++) {
            const uint16_t bits = half_bits<BF16>(rest);
            to[term * d + i] = bits;
            rest = __fsub_rn(rest, unpack2<BF16>(bits).x); // exact
        }
    }
}

// x as the softmax takes it, and the softmax's weight times its sum.
template <bool REF> __device__ __forceinline__ float logit_of(float s, float scale, float root) {
    if constexpr (REF) return round_bf16(__fdiv_rn(round_bf16(s), root));
    else return __fmul_rn(s, scale);
}
__device__ __forceinline__ float weight_of(float x, float shift) { return exp2f((x - shift) * 1.4426950408889634f); }

// PASS 0: maxima and sums. PASS 1: scores. REF: PITH_ARITH_BF16. KEY_BF16: the cache's type.
template <int D, int PASS, bool REF, bool KEY_BF16>
__global__ void __launch_bounds__(MASS_THREADS, D <= 128 ? 2 : 1) mass_kernel(mass_args p) {
    constexpr int NK = D / 32, N_TERMS = REF ? 1 : 2, STRIDE = mass_stride<D>;
    constexpr bool BF16 = REF || KEY_BF16;       // the products' type
    PITH_CUDA_DYNAMIC_SHARED(uint16_t, queries); // (2, MASS_Q * N_TERMS, STRIDE)
    __shared__ float2 of_warp[MASS_WARPS][MASS_Q];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t kv = blockIdx.y, layer = blockIdx.z, g = p.H / p.lanes.G;
    const float root = sqrtf((float)D), scale = 1.0f / root;

    // Candidates 16 mt + pr and + 8 of the warp's 32.
    const uint32_t first = blockIdx.x * MASS_ROWS + warp * 32;
    const uint32_t *rows = p.rows + ((size_t)layer * p.lanes.G + kv) * p.S;
    const int32_t *ids = p.lanes.pages + p.lanes.first[entry_of(p.lanes, layer, kv)];
    uint4 kf[2][2][NK];
#pragma unroll
    for (int mt = 0; mt < 2; mt++)
#pragma unroll
        for (int a = 0; a < 2; a++) {
            const uint32_t row = rows[min(first + 16 * mt + 8 * a + pr, p.S - 1)];
            const uint8_t *k = page_k(p.lanes.at, ids[row / PITH_PAGE_ROWS]) + (size_t)(row % PITH_PAGE_ROWS) * (2 * D);
#pragma unroll
            for (int j = 0; j < NK; j++) {
                uint4 w = __ldcg(reinterpret_cast<const uint4 *>(k + j * 64 + t * 16));
                if constexpr (REF && !KEY_BF16) {
                    uint32_t *words = &w.x;
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float2 x = unpack2<false>(words[i]);
                        words[i] = pack2<true>(x.x, x.y);
                    }
                }
                kf[mt][a][j] = w;
            }
        }

    // Tiles of MASS_Q queries of one head, heads of the group one after another.
    const uint32_t n_q = p.R_padded / MASS_Q, n_tiles = g * n_q;
    auto fetch = [&](uint32_t tile) {
        constexpr int PIECES = D / 8;
        const uint32_t h = kv * g + tile / n_q, r0 = tile % n_q * MASS_Q;
        const uint16_t *from = p.terms + (((size_t)layer * p.H + h) * p.R_padded + r0) * N_TERMS * D;
        uint16_t *to = queries + (size_t)(tile % 2) * MASS_Q * N_TERMS * STRIDE;
        for (int i = threadIdx.x; i < MASS_Q * N_TERMS * PIECES; i += MASS_THREADS)
            copy16_async(to + i / PIECES * STRIDE + i % PIECES * 8, from + (size_t)i * 8, true);
        copies_commit();
    };
    fetch(0);
    float sum[2][2] = {}; // PASS 1: of the candidate's weights, this lane's queries only
    for (uint32_t tile = 0; tile < n_tiles; tile++) {
        if (tile + 1 < n_tiles) {
            fetch(tile + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const uint16_t *now = queries + (size_t)(tile % 2) * MASS_Q * N_TERMS * STRIDE;
        const uint32_t h = kv * g + tile / n_q, r0 = tile % n_q * MASS_Q;
        const size_t of_q = ((size_t)layer * p.H + h) * p.R_padded + r0; // in stats

#pragma unroll
        for (int nt = 0; nt < MASS_Q / 8; nt++) {
            float s[2][4] = {};
#pragma unroll
            for (int term = N_TERMS - 1; term >= 0; term--) // the small terms first
#pragma unroll
                for (int j = 0; j < NK; j++) {
                    const uint4 b = *reinterpret_cast<const uint4 *>(now + ((nt * 8 + pr) * N_TERMS + term) * STRIDE +
                                                                     j * 32 + t * 8);
#pragma unroll
                    for (int mt = 0; mt < 2; mt++) {
                        const uint32_t a0[4] = {kf[mt][0][j].x, kf[mt][1][j].x, kf[mt][0][j].y, kf[mt][1][j].y};
                        const uint32_t a1[4] = {kf[mt][0][j].z, kf[mt][1][j].z, kf[mt][0][j].w, kf[mt][1][j].w};
                        mma<BF16>(s[mt], a0, b.x, b.y);
                        mma<BF16>(s[mt], a1, b.z, b.w);
                    }
                }
                // Lane: candidates 16 mt + pr + 8 (i / 2), queries 8 nt + 2 t + i % 2.
#pragma unroll
            for (int mt = 0; mt < 2; mt++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    s[mt][i] = logit_of<REF>(s[mt][i], scale, root);
                    if (first + 16 * mt + 8 * (i / 2) + pr >= p.S) s[mt][i] = -INFINITY;
                }
            if constexpr (PASS == 0) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float top = fmaxf(fmaxf(s[0][e], s[0][e + 2]), fmaxf(s[1][e], s[1][e + 2]));
#pragma unroll
                    for (int step = 4; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(FULL, top, step));
                    const float shift = soft_shift(top);
                    float l = (weight_of(s[0][e], shift) + weight_of(s[0][e + 2], shift)) +
                              (weight_of(s[1][e], shift) + weight_of(s[1][e + 2], shift));
#pragma unroll
                    for (int step = 4; step < 32; step *= 2) l += __shfl_xor_sync(FULL, l, step);
                    if (pr == 0) of_warp[warp][nt * 8 + 2 * t + e] = make_float2(top, l);
                }
            } else {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const uint32_t r = nt * 8 + 2 * t + e;
                    const float2 ml = p.stats[of_q + r];
                    if (r0 + r >= p.R) continue;
#pragma unroll
                    for (int mt = 0; mt < 2; mt++)
#pragma unroll
                        for (int a = 0; a < 2; a++) {
                            const float w = __fdiv_rn(weight_of(s[mt][2 * a + e], ml.x), ml.y);
                            sum[mt][a] += REF ? round_bf16(w) : w;
                        }
                }
            }
        }
        __syncthreads(); // this stage has been read, of_warp is complete
        if constexpr (PASS == 0) {
            if (threadIdx.x < MASS_Q) {
                float m = -INFINITY, l = 0.0f;
#pragma unroll
                for (int w = 0; w < MASS_WARPS; w++) m = fmaxf(m, of_warp[w][threadIdx.x].x);
#pragma unroll
                for (int w = 0; w < MASS_WARPS; w++)
                    l = fmaf(of_warp[w][threadIdx.x].y, weight_of(of_warp[w][threadIdx.x].x, soft_shift(m)), l);
                p.partial[(of_q + threadIdx.x) * p.n_blocks + blockIdx.x] = make_float2(m, l);
            }
            // The next tile's barrier lies between this read and the next write of of_warp.
        } else if ((tile + 1) % n_q == 0) { // the head's last tile
#pragma unroll
            for (int mt = 0; mt < 2; mt++)
#pragma unroll
                for (int a = 0; a < 2; a++) {
                    float x = sum[mt][a];
                    x += __shfl_xor_sync(FULL, x, 1);
                    x += __shfl_xor_sync(FULL, x, 2);
                    const uint32_t j = first + 16 * mt + 8 * a + pr;
                    if (t == 0 && j < p.S) p.score[((size_t)layer * p.H + h) * p.S + j] = REF ? round_bf16(x) : x;
                    sum[mt][a] = 0.0f;
                }
        }
    }
}

// One thread per query, blocks in ascending order.
__global__ void stats_kernel(const float2 *partial, uint32_t n_blocks, size_t n, float2 *stats) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float2 *from = partial + i * n_blocks;
    float m = -INFINITY, l = 0.0f;
    for (uint32_t b = 0; b < n_blocks; b++) m = fmaxf(m, from[b].x);
    m = soft_shift(m);
    for (uint32_t b = 0; b < n_blocks; b++) l = fmaf(from[b].y, weight_of(from[b].x, m), l);
    stats[i] = make_float2(m, l);
}

struct mass_layout {
    uint32_t R_padded, n_blocks;
    size_t n_queries, partial, stats, bytes; // offsets; terms come first
};
mass_layout layout_of(const pith_geometry *geo, uint32_t n_layers, uint32_t n, uint32_t n_slots) {
    mass_layout m;
    m.R_padded = (n_slots + MASS_Q - 1) / MASS_Q * MASS_Q;
    m.n_blocks = (n + MASS_ROWS - 1) / MASS_ROWS;
    m.n_queries = (size_t)n_layers * geo->n_heads * m.R_padded;
    m.partial = pith_page_align(m.n_queries * 2 * geo->head_dim * sizeof(uint16_t));
    m.stats = m.partial + pith_page_align(m.n_queries * m.n_blocks * sizeof(float2));
    m.bytes = m.stats + pith_page_align(m.n_queries * sizeof(float2));
    return m;
}

template <int D, bool REF, bool KEY_BF16>
cudaError_t run_mass(const mass_args &args, uint32_t n_layers, cudaStream_t stream) {
    constexpr int N_TERMS = REF ? 1 : 2;
    const size_t shared = (size_t)2 * MASS_Q * N_TERMS * mass_stride<D> * sizeof(uint16_t);
    const dim3 grid(args.n_blocks, args.lanes.G, n_layers);
    auto *pass0 = mass_kernel<D, 0, REF, KEY_BF16>;
    auto *pass1 = mass_kernel<D, 1, REF, KEY_BF16>;
    // 83 KB with d 256: above what a block gets unasked. The calls are host-side and cheap.
    cudaError_t err = cudaFuncSetAttribute(pass0, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (!err) err = cudaFuncSetAttribute(pass1, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (!err) err = launch_kernel(pass0, grid, MASS_THREADS, shared, stream, args);
    const size_t n = (size_t)n_layers * args.H * args.R_padded;
    if (!err)
        err = launch_kernel(stats_kernel, (unsigned)((n + 127) / 128), 128, 0, stream, args.partial, args.n_blocks, n,
                            args.stats);
    return err ? err : launch_kernel(pass1, grid, MASS_THREADS, shared, stream, args);
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
    uint16_t *terms = reinterpret_cast<uint16_t *>(at);
    const dim3 grid(m.R_padded, geo->n_heads, e->n_layers);
    auto *cut = ref ? terms_kernel<1, true> : bf16 ? terms_kernel<2, true> : terms_kernel<2, false>;
    const cudaError_t err = launch_kernel(cut, grid, 128, 0, stream, window, cap, slots, n_slots, m.R_padded, e->layer0,
                                          geo->n_heads, geo->head_dim, terms);
    if (err) return err;
    const mass_args args = {lanes_of(c, e),
                            rows,
                            terms,
                            reinterpret_cast<float2 *>(at + m.partial),
                            reinterpret_cast<float2 *>(at + m.stats),
                            score,
                            geo->n_heads,
                            e->n,
                            n_slots,
                            m.R_padded,
                            m.n_blocks};
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
