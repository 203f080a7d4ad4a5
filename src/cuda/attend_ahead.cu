// Bound: bytes. A row costs 4 d bytes (K and V), read once for all g query heads of its KV head: 16 sequences of 9216
// rows of a 7B model are 302 MB a layer, 72 us at 4.2 TB/s, 2.0 ms for 28 layers; one sequence of 32640 rows 67 MB, 16
// us. Tensor-core work is 64 operations per byte at g <= 8, a tenth of what they can do.
//
// Four warps share an item; in each page of it a warp owns 16 rows, a *slice*, and works alone, without barriers, until
// the item's end. Slices go from memory to registers in 16-byte loads; there is no shared-memory staging:
//
//     S (16 rows, 8 heads) = K Q^T    the order of d inside a dot product is free, so a lane's 16 bytes of a key, 8
//                                     neighbouring elements, serve as the operands of two products of depth 16
//     P                               softmax weights, 16 bits; the transposed fragment by movmatrix
//     O^T (d, 8 heads) += V^T P       a lane loads the same 16 bytes of four rows; byte permutes pair them up by rows
//
// A warp's slices are one stream, across the borders of items: while one is multiplied the next is on its way to
// registers and those behind it, up to `ahead`, to L2, for which one instruction and no register is needed. With two
// that is 16 KB per warp, times 12 warps per multiprocessor; 4.2 TB/s at a microsecond of latency needs 32 KB. The next
// item is looked up when an item begins, and its first slice loaded before the sums of this one are put together.
//
// Parts are merged by whoever arrives last at their group. A merge is a few trips to L2: maxima and weights of all
// parts first, in one load each, then the sums, four of a head at a time and eight parts in flight. One thread of a
// block fences for all: the barrier in front of it makes the others' writes its own.
#include "cuda/attend_items.cuh"
#include "cuda/chain.cuh"

namespace pith {
namespace {

constexpr uint32_t MOST_MERGED = 128; // parts or groups

// An item as a warp sees it: which rows of which pages are its slices.
struct span {
    item of;
    uint32_t begin;    // the item's first row
    uint32_t n_slices; // of this warp: rows begin + 64 i + 16 warp
    int32_t my_id;     // lane i of the warp knows the item's i-th page
};

__device__ __forceinline__ span span_of(const attend_args &p, uint32_t work, uint32_t warp, uint32_t lane) {
    const uint4 words = __ldcg(reinterpret_cast<const uint4 *>(p.plan + 1 + work));
    span s;
    s.of = {words.x, words.y, words.z, (int32_t)words.w};
    const uint32_t n_rows = s.of.n_rows, n_pages = chunk_pages(n_rows);
    s.begin = s.of.chunk * n_pages * PITH_PAGE_ROWS;
    const uint32_t lane_pages = (n_rows + PITH_PAGE_ROWS - 1) / PITH_PAGE_ROWS;
    const uint32_t my_page = s.begin / PITH_PAGE_ROWS + (lane < n_pages ? lane : 0);
    s.my_id = __ldcg(p.pages + s.of.first + (my_page < lane_pages ? my_page : lane_pages - 1));
    const uint32_t start = s.begin + 16 * warp;
    s.n_slices = start >= n_rows ? 0 : min(n_pages, (n_rows - start + PITH_PAGE_ROWS - 1) / PITH_PAGE_ROWS);
    return s;
}

// Asks L2 for a slice. Rows behind the lane's end are memory of its page all the same.
template <int D>
__device__ __forceinline__ void ask(const attend_args &p, const span &s, uint32_t slice, uint32_t warp, uint32_t lane) {
    const int32_t id = __shfl_sync(FULL, s.my_id, slice);
    if (slice >= s.n_slices || lane > 1) return;
    prefetch_bytes((lane ? page_v(p.at, id) : page_k(p.at, id)) + 16 * warp * 2 * D, 16 * 2 * D);
}

__device__ __forceinline__ void store_out4(const attend_args &p, size_t at, float4 x) {
    uint2 v = {pack2<false>(x.x, x.y), pack2<false>(x.z, x.w)};
    if (p.out_bf16) v = uint2{pack2<true>(x.x, x.y), pack2<true>(x.z, x.w)};
    *reinterpret_cast<uint2 *>(p.out + at) = v;
}
__device__ __forceinline__ float4 fma4(const float4 &x, float w, const float4 &sum) {
    return {fmaf(x.x, w, sum.x), fmaf(x.y, w, sum.y), fmaf(x.z, w, sum.z), fmaf(x.w, w, sum.w)};
}
// What a sum is when its weights are: nothing that counts is 0.
__device__ __forceinline__ float4 mean4(const float4 &sum, float weight) {
    if (weight == 0.0f) return {0.0f, 0.0f, 0.0f, 0.0f};
    return {sum.x / weight, sum.y / weight, sum.z / weight, sum.w / weight};
}

// Merges n parts, `stride` apart, in ascending order: to part `index`, or, as the last merge, to the output row at
// `out`. Sums may replace the first part's: an element is read and written by one thread; maxima and weights are in
// shared memory before any is written.
template <int D>
__device__ void merge(const attend_args &p, uint32_t index, uint32_t n, uint32_t stride, uint32_t g, bool last,
                      size_t out, float *shared, float *top) {
    float *w = shared, *weight = shared + MOST_MERGED * g; // (n, g) each
    for (uint32_t i = threadIdx.x; i < n * g; i += ATTEND_THREADS) {
        const uint32_t c = i / g, h = i % g;
        const float2 ml = __ldcg(reinterpret_cast<const float2 *>(part_at<D>(p, index + c * stride, g).ml) + h);
        w[i] = ml.x, weight[i] = ml.y;
    }
    __syncthreads();
    for (uint32_t h = threadIdx.x; h < g; h += ATTEND_THREADS) {
        float m = -INFINITY;
        for (uint32_t c = 0; c < n; c++) m = fmaxf(m, w[c * g + h]);
        top[h] = m;
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n * g; i += ATTEND_THREADS) w[i] = exp2f(w[i] - soft_shift(top[i % g]));
    __syncthreads();

    for (uint32_t i = threadIdx.x; i < g * (D / 4); i += ATTEND_THREADS) {
        const uint32_t h = i / (D / 4);
        float4 acc = {0.0f, 0.0f, 0.0f, 0.0f};
        float l = 0.0f;
#pragma unroll 8
        for (uint32_t c = 0; c < n; c++) {
            const float4 x = __ldcg(reinterpret_cast<const float4 *>(part_at<D>(p, index + c * stride, g).acc) + i);
            acc = fma4(x, w[c * g + h], acc);
            l = fmaf(weight[c * g + h], w[c * g + h], l);
        }
        if (last) store_out4(p, out + 4 * i, mean4(acc, l));
        else reinterpret_cast<float4 *>(part_at<D>(p, index, g).acc)[i] = acc;
    }
    if (last) return;
    for (uint32_t h = threadIdx.x; h < g; h += ATTEND_THREADS) {
        float l = 0.0f;
        for (uint32_t c = 0; c < n; c++) l = fmaf(weight[c * g + h], w[c * g + h], l);
        float *to = part_at<D>(p, index, g).ml + 2 * h;
        to[0] = top[h], to[1] = l;
    }
}

// Arrives at a counter; true in all threads of the block that is the last of n. That block sees what the others wrote.
__device__ bool arrive_last(uint32_t *counter, uint32_t n, uint32_t *shared) {
    __syncthreads(); // the block's part is written
    if (threadIdx.x == 0) {
        __threadfence(); // the part, of all threads, before the arrival
        const uint32_t before = atomicAdd(counter, 1);
        *shared = before == n - 1;
        if (before == n - 1) *counter = 0; // for the next launch
        __threadfence();
    }
    __syncthreads();
    return *shared != 0;
}

template <int D, int NT, bool BF16>
__global__ void __launch_bounds__(ATTEND_THREADS, (D <= 128 && NT == 1) ? 3 : 1) ahead_kernel(attend_args p) {
    constexpr int VB = D % 64 ? 4 : 8; // elements of V that a lane loads at once
    constexpr int NV = D / (8 * VB);   // such loads of a row
    constexpr int NK = D / 32;         // 16-byte loads of half a key row pair
    constexpr int HEADS = 8 * NT;
    static_assert(ATTEND_WARPS * (D + 2) >= 2 * (int)MOST_MERGED, "what a merge keeps there fits");
    PITH_CUDA_DYNAMIC_SHARED(float, shared); // (warps, HEADS, D) sums, (warps, HEADS, 2) maxima and weights
    __shared__ float top_of[HEADS];
    __shared__ uint32_t is_last;
    float *shared_ml = shared + ATTEND_WARPS * HEADS * D;

    let_next_start_early(p.early);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t g = p.H / p.G, n_items = __ldcg(&p.plan[0].lane);
    const float scale = 1.4426950408889634f / sqrtf((float)D); // scores in units of log2

    uint32_t work = blockIdx.x;
    if (work >= n_items) {
        if (work == 0) wait_for_previous(); // one block has to, chain.h says why
        return;
    }
    span now = span_of(p, work, warp, lane);
    for (uint32_t slice = 0; slice < p.ahead; slice++) ask<D>(p, now, slice, warp, lane);
    wait_and_let_next_start(p.early);

    uint32_t qf[NT][NK][4];
    uint4 kf[2][NK];
    uint32_t vf[4][NV][VB / 2];
    auto load_q = [&](const span &s) {
        const uint32_t token = s.of.lane / p.G, kv = s.of.lane % p.G;
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int j = 0; j < NK; j++) {
                const uint32_t h = nt * 8 + pr;
                uint4 w = make_uint4(0, 0, 0, 0);
                if (h < g)
                    w = __ldcg(
                        reinterpret_cast<const uint4 *>(p.q + ((size_t)token * p.H + kv * g + h) * D + j * 32 + t * 8));
                qf[nt][j][0] = w.x, qf[nt][j][1] = w.y, qf[nt][j][2] = w.z, qf[nt][j][3] = w.w;
            }
    };
    // Rows behind the end are read as the last row, whose values are sound; their scores are -inf.
    auto load_k = [&](const span &s, uint32_t slice) {
        const uint8_t *k = page_k(p.at, __shfl_sync(FULL, s.my_id, slice));
        const uint32_t left = s.of.n_rows - (s.begin + slice * PITH_PAGE_ROWS) - 1;
#pragma unroll
        for (int a = 0; a < 2; a++) {
            const uint32_t r = min(16 * warp + pr + 8 * a, left);
#pragma unroll
            for (int j = 0; j < NK; j++)
                kf[a][j] = __ldcg(reinterpret_cast<const uint4 *>(k + (size_t)r * (2 * D) + j * 64 + t * 16));
        }
    };
    auto load_v = [&](const span &s, uint32_t slice) {
        const uint8_t *v = page_v(p.at, __shfl_sync(FULL, s.my_id, slice));
        const uint32_t left = s.of.n_rows - (s.begin + slice * PITH_PAGE_ROWS) - 1;
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

    load_q(now);
    if (now.n_slices) load_k(now, 0), load_v(now, 0);
    for (;;) {
        const bool more = work + gridDim.x < n_items;
        span next = now;
        if (more) {
            next = span_of(p, work + gridDim.x, warp, lane);
            for (uint32_t slice = 0; slice + now.n_slices < p.ahead; slice++) ask<D>(p, next, slice, warp, lane);
        }
        float acc[NT][D / 16][4];
        float m[NT][2], l[NT][2];
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            m[nt][0] = m[nt][1] = -INFINITY, l[nt][0] = l[nt][1] = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 16; i++) acc[nt][i][0] = acc[nt][i][1] = acc[nt][i][2] = acc[nt][i][3] = 0.0f;
        }

        for (uint32_t slice = 0; slice < now.n_slices; slice++) {
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
            if (slice + 1 < now.n_slices) load_k(now, slice + 1);
            // A slice further on: of this item, or of the next.
            if (slice + p.ahead < now.n_slices) ask<D>(p, now, slice + p.ahead, warp, lane);
            else if (more) ask<D>(p, next, slice + p.ahead - now.n_slices, warp, lane);

            // Lane: rows pr and pr + 8, heads 2t and 2t + 1.
            const uint32_t row = now.begin + slice * PITH_PAGE_ROWS + 16 * warp + pr;
            uint32_t weight[NT][2];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                if (row >= now.of.n_rows) s[nt][0] = s[nt][1] = -INFINITY;
                if (row + 8 >= now.of.n_rows) s[nt][2] = s[nt][3] = -INFINITY;
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
            if (slice + 1 < now.n_slices) load_v(now, slice + 1);
        }
        if (more) {
            load_q(next);
            if (next.n_slices) load_k(next, 0), load_v(next, 0);
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

        const uint32_t n_chunks = chunks_of(now.of.n_rows);
        const uint32_t token = now.of.lane / p.G, kv = now.of.lane % p.G;
        const size_t out = ((size_t)token * p.H + kv * g) * D;
        const part<D> to = part_at<D>(p, work, g);
        for (uint32_t i = threadIdx.x; i < g * (D / 4); i += ATTEND_THREADS) {
            const uint32_t h = i / (D / 4), d = i % (D / 4) * 4;
            float top = -INFINITY, weight = 0.0f;
            float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
            for (int w = 0; w < ATTEND_WARPS; w++) top = fmaxf(top, shared_ml[(w * HEADS + h) * 2]);
            const float shift = soft_shift(top);
#pragma unroll
            for (int w = 0; w < ATTEND_WARPS; w++) {
                const float c = exp2f(shared_ml[(w * HEADS + h) * 2] - shift);
                sum = fma4(*reinterpret_cast<const float4 *>(&shared[(w * HEADS + h) * D + d]), c, sum);
                weight = fmaf(shared_ml[(w * HEADS + h) * 2 + 1], c, weight);
            }
            if (n_chunks == 1) {
                store_out4(p, out + 4 * i, mean4(sum, weight));
            } else {
                reinterpret_cast<float4 *>(to.acc)[i] = sum;
                if (d == 0) to.ml[2 * h] = top, to.ml[2 * h + 1] = weight;
            }
        }

        // The last block of a group of FAN chunks merges them; the last group of a lane merges the groups.
        if (n_chunks > 1) {
            const uint32_t lane_first = work - now.of.chunk, group = now.of.chunk / FAN;
            const uint32_t n_groups = (n_chunks + FAN - 1) / FAN, group_first = lane_first + group * FAN;
            const uint32_t in_group = min(FAN, n_chunks - group * FAN);
            if (arrive_last(p.counters + group_first, in_group, &is_last)) {
                merge<D>(p, group_first, in_group, 1, g, n_groups == 1, out, shared, top_of);
                if (n_groups > 1 && arrive_last(p.counters + p.cap + lane_first, n_groups, &is_last))
                    merge<D>(p, lane_first, n_groups, FAN, g, true, out, shared, top_of);
            }
        }
        if (!more) return;
        now = next, work += gridDim.x;
    }
}

} // namespace

attend_kernel attend_ahead_kernel(const pith_geometry *geo, pith_half type) {
    PITH_ATTEND_KERNEL_FOR(ahead_kernel, geo, type)
}

} // namespace pith
