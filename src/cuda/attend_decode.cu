// Bound: bytes. A row costs 4 d bytes (K and V), read once for all g query heads of its KV head: 16 sequences of 9216
// rows of a 7B model are 302 MB a layer, 72 us at 4.2 TB/s, 2.0 ms for 28 layers; one sequence of 32640 rows 67 MB, 16
// us. Tensor-core work is 64 operations per byte at g <= 8, a tenth of what they can do.
//
// Four warps share an item; in each page of it a warp owns 16 rows and works alone, without barriers, until the item's
// end. Everything goes from global memory to registers in 16-byte loads; there is no shared-memory staging:
//
//     S (16 rows, 8 heads) = K Q^T    the order of d inside a dot product is free, so a lane's 16 bytes of a key, 8
//                                     neighbouring elements, serve as the operands of two products of depth 16
//     P                               softmax weights, 16 bits; the transposed fragment by movmatrix
//     O^T (d, 8 heads) += V^T P       a lane loads the same 16 bytes of four rows; byte permutes pair them up by rows
//
// The next page's keys are asked for before the current page is softened, its values after the current ones are used
// up: 8 KB per warp in flight, times 12 warps per multiprocessor; 4.2 TB/s at a microsecond of latency needs 32 KB.
#include "cuda/attend_decode.h"

#include <math.h>

#include "cuda/cache.cuh"

using namespace pith;

namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr uint32_t FAN = 16; // parts that one block merges at a time

// Chunks grow with the lane so that a short one still spreads over many multiprocessors and a long one has few parts to
// merge. Whole pages; a function of the row count alone.
__host__ __device__ inline uint32_t chunk_pages(uint32_t n_rows) { return n_rows <= 2048 ? 2 : 4; }
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

struct plan_args {
    const int32_t *first, *n_rows, *seq;
    item *plan;
    uint32_t n, n_layers, G, cap;
};

constexpr uint32_t PLAN_THREADS = 256;

// One block per layer: a scan over the chunk counts of n * G lanes (64 to 4096 of them), then every lane writes its
// items.
__global__ void __launch_bounds__(PLAN_THREADS) plan_kernel(plan_args p) {
    __shared__ uint32_t warp_sum[PLAN_THREADS / 32];
    const uint32_t layer = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_lanes = p.n * p.G;
    item *items = p.plan + (size_t)layer * (1 + p.cap);
    uint32_t base = 0;
    for (uint32_t from = 0; from < n_lanes; from += PLAN_THREADS) {
        const uint32_t i = from + threadIdx.x;
        const int32_t seq = i < n_lanes ? p.seq[i / p.G] : -1;
        const size_t entry = seq < 0 ? 0 : ((size_t)seq * p.n_layers + layer) * p.G + i % p.G;
        const uint32_t n_rows = seq < 0 ? 0 : (uint32_t)p.n_rows[entry], n = chunks_of(n_rows);
        const int32_t first = p.first[entry];
        uint32_t sum = n;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t below = __shfl_up_sync(FULL, sum, step);
            if (lane >= step) sum += below;
        }
        if (lane == 31) warp_sum[warp] = sum;
        __syncthreads();
        uint32_t before = base, total = base;
        for (uint32_t w = 0; w < PLAN_THREADS / 32; w++) {
            if (w < warp) before += warp_sum[w];
            total += warp_sum[w];
        }
        before += sum - n;
        for (uint32_t c = 0; c < n && before + c < p.cap; c++) items[1 + before + c] = {i, c, n_rows, first};
        base = total;
        __syncthreads();
    }
    if (threadIdx.x == 0) items[0] = {base < p.cap ? base : p.cap, 0, 0, 0};
}

struct attend_args {
    sections at;
    const int32_t *pages;
    const item *plan; // of this layer
    const uint16_t *q;
    uint16_t *out;
    float *parts;       // (cap, g, d + 2): sums, then maximum and weight of each head behind all sums of the part
    uint32_t *counters; // (2, cap): arrived parts of a group of FAN, arrived groups of a lane
    uint32_t cap, H, G;
    bool out_bf16;
};

template <int D> struct part {
    float *acc; // (g, D)
    float *ml;  // (g, 2)
};
template <int D> __device__ __forceinline__ part<D> part_at(const attend_args &p, uint32_t index, uint32_t g) {
    float *base = p.parts + (size_t)index * g * (D + 2);
    return {base, base + (size_t)g * D};
}

__device__ __forceinline__ void store_out(const attend_args &p, size_t at, float x) {
    p.out[at] = p.out_bf16 ? half_bits<true>(x) : half_bits<false>(x);
}

// Merges n parts, `stride` apart, in ascending order: to part `index`, or, as the last merge, to the output row at
// `out`. Sums may replace the first part: an element is read and written by one thread, and maxima and weights behind a
// barrier.
template <int D>
__device__ void merge(const attend_args &p, uint32_t index, uint32_t n, uint32_t stride, uint32_t g, bool last,
                      size_t out) {
    for (uint32_t i = threadIdx.x; i < g * D; i += THREADS) {
        const uint32_t h = i / D;
        float m = -INFINITY;
        for (uint32_t c = 0; c < n; c++) m = fmaxf(m, __ldcg(part_at<D>(p, index + c * stride, g).ml + 2 * h));
        const float shift = soft_shift(m);
        float acc = 0.0f, l = 0.0f;
#pragma unroll 8
        for (uint32_t c = 0; c < n; c++) {
            const part<D> from = part_at<D>(p, index + c * stride, g);
            const float w = exp2f(__ldcg(from.ml + 2 * h) - shift);
            acc = fmaf(__ldcg(from.acc + i), w, acc);
            l = fmaf(__ldcg(from.ml + 2 * h + 1), w, l);
        }
        if (last) {
            store_out(p, out + i, l == 0.0f ? 0.0f : acc / l);
        } else {
            part_at<D>(p, index, g).acc[i] = acc;
        }
    }
    if (last) return;
    __syncthreads(); // all threads have read the maxima
    for (uint32_t h = threadIdx.x; h < g; h += THREADS) {
        float m = -INFINITY, l = 0.0f;
        for (uint32_t c = 0; c < n; c++) m = fmaxf(m, __ldcg(part_at<D>(p, index + c * stride, g).ml + 2 * h));
        const float shift = soft_shift(m);
        for (uint32_t c = 0; c < n; c++) {
            const float *ml = part_at<D>(p, index + c * stride, g).ml + 2 * h;
            l = fmaf(__ldcg(ml + 1), exp2f(__ldcg(ml) - shift), l);
        }
        float *to = part_at<D>(p, index, g).ml + 2 * h;
        to[0] = m, to[1] = l;
    }
}

// Arrives at a counter; true in all threads of the block that is the last of n. That block sees what the others wrote.
__device__ bool arrive_last(uint32_t *counter, uint32_t n, uint32_t *shared) {
    __threadfence(); // the part before the arrival
    __syncthreads();
    if (threadIdx.x == 0) {
        const uint32_t before = atomicAdd(counter, 1);
        *shared = before == n - 1;
        if (before == n - 1) *counter = 0; // for the next launch
    }
    __syncthreads();
    __threadfence();
    return *shared != 0;
}

template <int D, int NT, bool BF16>
__global__ void __launch_bounds__(THREADS, (D <= 128 && NT == 1) ? 3 : 1) attend_kernel(attend_args p) {
    constexpr int VB = D % 64 ? 4 : 8; // elements of V that a lane loads at once
    constexpr int NV = D / (8 * VB);   // such loads of a row
    constexpr int NK = D / 32;         // 16-byte loads of half a key row pair
    constexpr int HEADS = 8 * NT;
    extern __shared__ __align__(16) float shared[]; // (WARPS, HEADS, D) sums, (WARPS, HEADS, 2) maxima and weights
    __shared__ uint32_t is_last;
    float *shared_ml = shared + WARPS * HEADS * D;

    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t g = p.H / p.G, n_items = p.plan[0].lane;
    const float scale = 1.4426950408889634f / sqrtf((float)D); // scores in units of log2

    for (uint32_t work = blockIdx.x; work < n_items; work += gridDim.x) {
        const item it = p.plan[1 + work];
        const uint32_t token = it.lane / p.G, kv = it.lane % p.G;
        const uint32_t n_rows = it.n_rows, n_pages = chunk_pages(n_rows);
        const uint32_t begin = it.chunk * n_pages * PITH_PAGE_ROWS;
        const uint32_t lane_pages = (n_rows + PITH_PAGE_ROWS - 1) / PITH_PAGE_ROWS;
        // Lane i of the warp knows the item's i-th page.
        const uint32_t my_page = begin / PITH_PAGE_ROWS + (lane < n_pages ? lane : 0);
        const int32_t my_id = p.pages[it.first + (int32_t)(my_page < lane_pages ? my_page : lane_pages - 1)];
        // Slices of this warp: rows begin + 64 i + 16 warp, as long as there are any.
        const uint32_t start = begin + 16 * warp;
        const uint32_t n_slices =
            start >= n_rows ? 0 : min(n_pages, (n_rows - start + PITH_PAGE_ROWS - 1) / PITH_PAGE_ROWS);

        uint32_t qf[NT][NK][4];
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int j = 0; j < NK; j++) {
                const uint32_t h = nt * 8 + pr;
                uint4 w = make_uint4(0, 0, 0, 0);
                if (h < g)
                    w = *reinterpret_cast<const uint4 *>(p.q + ((size_t)token * p.H + kv * g + h) * D + j * 32 + t * 8);
                qf[nt][j][0] = w.x, qf[nt][j][1] = w.y, qf[nt][j][2] = w.z, qf[nt][j][3] = w.w;
            }

        float acc[NT][D / 16][4];
        float m[NT][2], l[NT][2];
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            m[nt][0] = m[nt][1] = -INFINITY, l[nt][0] = l[nt][1] = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 16; i++) acc[nt][i][0] = acc[nt][i][1] = acc[nt][i][2] = acc[nt][i][3] = 0.0f;
        }

        uint4 kf[2][NK];
        uint32_t vf[4][NV][VB / 2];
        // Rows behind the end are read as the last row, whose values are sound; their scores are -inf.
        auto load_k = [&](uint32_t slice) {
            const uint8_t *k = page_k(p.at, __shfl_sync(FULL, my_id, slice));
            const uint32_t left = n_rows - (begin + slice * PITH_PAGE_ROWS) - 1;
#pragma unroll
            for (int a = 0; a < 2; a++) {
                const uint32_t r = min(16 * warp + pr + 8 * a, left);
#pragma unroll
                for (int j = 0; j < NK; j++)
                    kf[a][j] = __ldcg(reinterpret_cast<const uint4 *>(k + (size_t)r * (2 * D) + j * 64 + t * 16));
            }
        };
        auto load_v = [&](uint32_t slice) {
            const uint8_t *v = page_v(p.at, __shfl_sync(FULL, my_id, slice));
            const uint32_t left = n_rows - (begin + slice * PITH_PAGE_ROWS) - 1;
#pragma unroll
            for (int a = 0; a < 4; a++) { // rows 2t, 2t + 1, 2t + 8, 2t + 9
                const uint32_t r = min(16 * warp + 2 * t + (a & 1) + 8 * (a >> 1), left);
#pragma unroll
                for (int j = 0; j < NV; j++) {
                    const uint8_t *from = v + (size_t)r * (2 * D) + (j * 8 + pr) * (2 * VB);
                    if constexpr (VB == 8) {
                        const uint4 w = __ldcg(reinterpret_cast<const uint4 *>(from));
                        vf[a][j][0] = w.x, vf[a][j][1] = w.y, vf[a][j][2] = w.z, vf[a][j][3] = w.w;
                    } else {
                        const uint2 w = __ldcg(reinterpret_cast<const uint2 *>(from));
                        vf[a][j][0] = w.x, vf[a][j][1] = w.y;
                    }
                }
            }
        };
        if (n_slices) load_k(0), load_v(0);

        for (uint32_t slice = 0; slice < n_slices; slice++) {
            float s[NT][4];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) s[nt][0] = s[nt][1] = s[nt][2] = s[nt][3] = 0.0f;
#pragma unroll
            for (int j = 0; j < NK; j++) {
                const uint32_t a0[4] = {kf[0][j].x, kf[1][j].x, kf[0][j].y, kf[1][j].y};
                const uint32_t a1[4] = {kf[0][j].z, kf[1][j].z, kf[0][j].w, kf[1][j].w};
#pragma unroll
                for (int nt = 0; nt < NT; nt++) {
                    mma<BF16>(s[nt], a0, qf[nt][j][0], qf[nt][j][1]);
                    mma<BF16>(s[nt], a1, qf[nt][j][2], qf[nt][j][3]);
                }
            }
            if (slice + 1 < n_slices) load_k(slice + 1);

            // Lane: rows pr and pr + 8, heads 2t and 2t + 1.
            const uint32_t row = begin + slice * PITH_PAGE_ROWS + 16 * warp + pr;
            uint32_t weight[NT][2];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                if (row >= n_rows) s[nt][0] = s[nt][1] = -INFINITY;
                if (row + 8 >= n_rows) s[nt][2] = s[nt][3] = -INFINITY;
                float w[2][2], c[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float top = fmaxf(s[nt][e], s[nt][e + 2]);
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 4));
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 8));
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 16));
                    top = fmaxf(m[nt][e], top * scale); // scale > 0: the maximum of the scaled scores
                    const float shift = soft_shift(top);
                    // A difference, not a fused product: equal scores weigh exactly 1.
                    w[0][e] = exp2f(__fmul_rn(s[nt][e], scale) - shift);
                    w[1][e] = exp2f(__fmul_rn(s[nt][e + 2], scale) - shift);
                    c[e] = exp2f(m[nt][e] - shift);
                    m[nt][e] = top;
                }
                weight[nt][0] = pack2<BF16>(w[0][0], w[0][1]), weight[nt][1] = pack2<BF16>(w[1][0], w[1][1]);
                // The weights that count are the rounded ones: they sum up to l, so a mean of equal values is that
                // value.
                const float2 lo = unpack2<BF16>(weight[nt][0]), hi = unpack2<BF16>(weight[nt][1]);
                l[nt][0] = fmaf(l[nt][0], c[0], lo.x + hi.x);
                l[nt][1] = fmaf(l[nt][1], c[1], lo.y + hi.y);
#pragma unroll
                for (int i = 0; i < D / 16; i++) {
                    acc[nt][i][0] *= c[0], acc[nt][i][1] *= c[1];
                    acc[nt][i][2] *= c[0], acc[nt][i][3] *= c[1];
                }
                weight[nt][0] = transpose8(weight[nt][0]), weight[nt][1] = transpose8(weight[nt][1]);
            }
            // Tile i of acc: its row pr is element e = 2 (i % (VB/2)) of the lane's load i / (VB/2), its row pr + 8 the
            // next.
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                const int j = i / (VB / 2), w = i % (VB / 2);
                const uint32_t a[4] = {
                    __byte_perm(vf[0][j][w], vf[1][j][w], 0x5410), __byte_perm(vf[0][j][w], vf[1][j][w], 0x7632),
                    __byte_perm(vf[2][j][w], vf[3][j][w], 0x5410), __byte_perm(vf[2][j][w], vf[3][j][w], 0x7632)};
#pragma unroll
                for (int nt = 0; nt < NT; nt++) mma<BF16>(acc[nt][i], a, weight[nt][0], weight[nt][1]);
            }
            if (slice + 1 < n_slices) load_v(slice + 1);
        }

        // The warps' sums to shared memory.
        __syncthreads(); // the item before has been read
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 4);
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 8);
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 16);
                const uint32_t h = nt * 8 + 2 * t + e;
                if (pr == 0) {
                    shared_ml[(warp * HEADS + h) * 2] = m[nt][e];
                    shared_ml[(warp * HEADS + h) * 2 + 1] = l[nt][e];
                }
#pragma unroll
                for (int i = 0; i < D / 16; i++) {
                    const uint32_t d = (i / (VB / 2)) * 8 * VB + pr * VB + 2 * (i % (VB / 2));
                    *reinterpret_cast<float2 *>(&shared[(warp * HEADS + h) * D + d]) =
                        make_float2(acc[nt][i][e], acc[nt][i][e + 2]);
                }
            }
        }
        __syncthreads();

        const uint32_t n_chunks = chunks_of(n_rows);
        const size_t out = ((size_t)token * p.H + kv * g) * D;
        const part<D> to = part_at<D>(p, work, g);
        for (uint32_t i = threadIdx.x; i < g * D; i += THREADS) {
            const uint32_t h = i / D, d = i % D;
            float top = -INFINITY, sum = 0.0f, weight = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) top = fmaxf(top, shared_ml[(w * HEADS + h) * 2]);
            const float shift = soft_shift(top);
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float c = exp2f(shared_ml[(w * HEADS + h) * 2] - shift);
                sum = fmaf(shared[(w * HEADS + h) * D + d], c, sum);
                weight = fmaf(shared_ml[(w * HEADS + h) * 2 + 1], c, weight);
            }
            if (n_chunks == 1) {
                store_out(p, out + i, weight == 0.0f ? 0.0f : sum / weight);
            } else {
                to.acc[i] = sum;
                if (d == 0) to.ml[2 * h] = top, to.ml[2 * h + 1] = weight;
            }
        }
        if (n_chunks == 1) continue;

        // The last block of a group of FAN chunks merges them; the last group of a lane merges the groups.
        const uint32_t lane_first = work - it.chunk, group = it.chunk / FAN, n_groups = (n_chunks + FAN - 1) / FAN;
        const uint32_t group_first = lane_first + group * FAN, in_group = min(FAN, n_chunks - group * FAN);
        if (!arrive_last(p.counters + group_first, in_group, &is_last)) continue;
        merge<D>(p, group_first, in_group, 1, g, n_groups == 1, out);
        if (n_groups == 1) continue;
        if (!arrive_last(p.counters + p.cap + lane_first, n_groups, &is_last)) continue;
        merge<D>(p, lane_first, n_groups, FAN, g, true, out);
    }
}

constexpr size_t shared_bytes(int d, int nt) { return (size_t)WARPS * 8 * nt * (d + 2) * sizeof(float); }

using kernel = void (*)(attend_args);

template <int D, int NT> kernel of_type(pith_half type) {
    return type == PITH_HALF_BF16 ? attend_kernel<D, NT, true> : attend_kernel<D, NT, false>;
}
template <int D> kernel of_heads(uint32_t g, pith_half type) {
    return g <= 8 ? of_type<D, 1>(type) : of_type<D, 2>(type);
}
kernel kernel_for(const pith_geometry *geo, pith_half type) {
    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    if (geo->elt_bytes != 2 || g == 0 || g > 16) return nullptr;
    switch (geo->head_dim) {
    case 64: return of_heads<64>(g, type);
    case 96: return of_heads<96>(g, type);
    case 128: return of_heads<128>(g, type);
    case 160: return of_heads<160>(g, type);
    case 192: return of_heads<192>(g, type);
    case 224: return of_heads<224>(g, type);
    case 256: return of_heads<256>(g, type);
    default: return nullptr;
    }
}
size_t shared_for(const pith_geometry *geo) {
    return shared_bytes((int)geo->head_dim, geo->n_heads / geo->n_kv_heads <= 8 ? 1 : 2);
}

} // namespace

extern "C" uint32_t pith_cuda_attend_items(const pith_geometry *geo, uint32_t n, uint32_t max_rows) {
    // A lane of 2048 rows has more chunks than one of 2049.
    const uint32_t chunks = chunks_of(max_rows), at_border = chunks_of(max_rows < 2048 ? max_rows : 2048);
    return n * geo->n_kv_heads * (chunks > at_border ? chunks : at_border);
}

extern "C" size_t pith_cuda_attend_plan_bytes(const pith_geometry *geo, uint32_t cap_items) {
    return (size_t)geo->n_layers * (1 + cap_items) * sizeof(item);
}

extern "C" size_t pith_cuda_attend_parts_bytes(const pith_geometry *geo, uint32_t cap_items) {
    return (size_t)cap_items *
           (2 * sizeof(uint32_t) + geo->n_heads / geo->n_kv_heads * (geo->head_dim + 2) * sizeof(float));
}

extern "C" cudaError_t pith_cuda_attend_reset(void *parts, uint32_t cap_items, cudaStream_t stream) {
    return cudaMemsetAsync(parts, 0, (size_t)cap_items * 2 * sizeof(uint32_t), stream);
}

extern "C" cudaError_t pith_cuda_attend_plan(const pith_cuda_cache *c, const int32_t *seq, uint32_t n, void *plan,
                                             uint32_t cap_items, cudaStream_t stream) {
    const plan_args args = {c->first,        c->n_rows,         seq,      static_cast<item *>(plan), n,
                            c->geo.n_layers, c->geo.n_kv_heads, cap_items};
    plan_kernel<<<c->geo.n_layers, PLAN_THREADS, 0, stream>>>(args);
    return cudaGetLastError();
}

extern "C" cudaError_t pith_cuda_attend_decode(const pith_cuda_cache *c, uint32_t layer, const uint16_t *q,
                                               const void *plan, void *parts, uint32_t cap_items, uint32_t n_blocks,
                                               uint16_t *out, pith_half out_type, cudaStream_t stream) {
    const kernel run = kernel_for(&c->geo, c->type);
    if (!run || n_blocks == 0) return cudaErrorInvalidValue;
    const item *items = static_cast<const item *>(plan) + (size_t)layer * (1 + cap_items);
    uint32_t *counters = static_cast<uint32_t *>(parts);
    const attend_args args = {sections_of(*c),
                              c->pages,
                              items,
                              q,
                              out,
                              reinterpret_cast<float *>(counters + 2 * (size_t)cap_items),
                              counters,
                              cap_items,
                              c->geo.n_heads,
                              c->geo.n_kv_heads,
                              out_type == PITH_HALF_BF16};
    run<<<n_blocks, THREADS, shared_for(&c->geo), stream>>>(args);
    return cudaGetLastError();
}

extern "C" cudaError_t pith_cuda_attend_blocks(const pith_geometry *geo, pith_half type, uint32_t *n_blocks) {
    const kernel run = kernel_for(geo, type);
    int device, n_sm, per_sm;
    if (!run) return cudaErrorInvalidValue;
    // Also raises the limit of shared memory, which the launches rely on.
    cudaError_t err = cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_for(geo));
    if (!err) err = cudaGetDevice(&device);
    if (!err) err = cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
    if (!err) err = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, run, THREADS, shared_for(geo));
    if (!err) *n_blocks = (uint32_t)n_sm * (uint32_t)(per_sm > 0 ? per_sm : 1);
    return err;
}
