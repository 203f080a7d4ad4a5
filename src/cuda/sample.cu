// Three launches: the maxima of 64 pieces of each vocabulary; the weights, their sums, and a list of the head of the
// distribution, the tokens of some weight; the draw, one block per sequence. Bound: bytes for the first two (16
// sequences of 152 k logits are 10 MB, from L2 after the product that made them), latency for the third.
//
// Weights are exp((logit - max) / temperature) with the CPU's own exp, bit for bit. Sums of weights are integers, in
// units of 2^-44: at most 2^18 weights of at most 1 fit in 64 bits, and a sum of integers does not depend on its order.
// A weight below 2^-20 loses bits, one below 2^-44 all: together less than 2^-26 of the total, which is at least 1.
//
// Tokens have distinct keys, (weight, lowest id first), so there is one order, from the likeliest on, and what a filter
// keeps or a draw hits is the first token at which a running sum or number has reached something. Nearly always that
// lies in the head, a few hundred tokens: these are sorted in shared memory and summed up once. Where it does not, the
// range of keys that holds the token is narrowed by counting all tokens into bins, twice or so, until its tokens fit.
#include "cuda/sample.h"

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/chain.cuh"

using namespace pith;

namespace {

constexpr int SPLITS = 64, THREADS = 256, DRAW_THREADS = 1024;
constexpr uint32_t HEAD = 4096; // tokens that shared memory takes: 32 KB of keys
constexpr int NEIGHBOURS = HEAD / DRAW_THREADS;
constexpr uint32_t LIST = 1024;        // a piece's share of the head: more rarely fit with the others'
constexpr float HEAD_LEAST = 0x1p-12f; // the least weight of the head
constexpr uint32_t ID_BITS = 18;       // V <= 2^18
constexpr uint32_t ID_MASK = (1u << ID_BITS) - 1;
constexpr int BIN_BITS = 11;
constexpr uint32_t BINS = 1u << BIN_BITS; // 16 KB of sums and 8 of numbers, where the keys are at other times
static_assert(BINS == 2 * DRAW_THREADS && BINS * 12 <= HEAD * 8, "two bins to a thread, in the keys' place");

typedef unsigned long long u64;

// In units of 2^-44: exact down to 2^-20, then truncated.
__device__ __forceinline__ u64 amount(float w) {
    const uint32_t bits = __float_as_uint(w); // significand times 2^(exponent - 150)
    const u64 significand = (bits & 0x7fffffu) | 0x800000u;
    const int up = (int)(bits >> 23) - (150 - 44);
    return up >= 0 ? significand << up : significand >> (up < -63 ? 63 : -up);
}
__device__ __forceinline__ u64 key_of(float w, uint32_t id) {
    return (u64)__float_as_uint(w) << ID_BITS | (ID_MASK - id);
}
__device__ __forceinline__ float weight_of(u64 key) { return __uint_as_float((uint32_t)(key >> ID_BITS)); }
__device__ __forceinline__ uint32_t id_of(u64 key) { return ID_MASK - ((uint32_t)key & ID_MASK); }

struct sample_args {
    const float *logits; // (n, V)
    const pith_draw *draws;
    const int32_t *live;
    uint64_t *best;      // (n, SPLITS) order image of a piece's maximum, then the complement of its lowest id
    uint64_t *sums;      // (n, SPLITS)
    uint64_t *head_sums; // (n, SPLITS) of what a piece has in the head
    uint64_t *head;      // (n, HEAD) keys in any order, if there are no more
    uint32_t *n_head;    // (n) more than HEAD: no list
    float *weights;      // (n, stride), 0 behind V
    int32_t *ids, *host_ids;
    uint32_t V, piece, stride; // tokens; per piece; V in whole float4
};

// As an unsigned number that orders like the float, -0 with 0, NaN lowest; and back.
__device__ __forceinline__ uint32_t order_image(float x) {
    if (isnan(x)) return 0;
    const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_image(uint32_t image) {
    return __uint_as_float(image & 0x80000000u ? image & 0x7fffffffu : ~image);
}

// f over the block's threads, in any order: max and integer + have none. The result in all threads.
template <int N, typename F> __device__ u64 reduce_block(u64 x, F f, u64 *shared) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = f(x, __shfl_xor_sync(FULL, x, step));
    __syncthreads(); // the reduction before has been read
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[threadIdx.x % (N / 32)];
#pragma unroll
    for (int step = N / 64; step > 0; step /= 2) x = f(x, __shfl_xor_sync(FULL, x, step));
    return x;
}
struct larger {
    __device__ u64 operator()(u64 a, u64 b) const { return a > b ? a : b; }
};
struct plus {
    __device__ u64 operator()(u64 a, u64 b) const { return a + b; }
};

__device__ bool is_live(const sample_args &p, uint32_t s) { return !p.live || p.live[s] >= 0; }

// f over a sequence's pieces, in any order; the result in all threads. Every warp by itself.
template <typename F> __device__ u64 of_pieces(const uint64_t *x, uint32_t s, F f) {
    const uint32_t lane = threadIdx.x % 32;
    u64 y = x[s * SPLITS + lane];
#pragma unroll
    for (int i = 32; i < SPLITS; i += 32) y = f(y, x[s * SPLITS + i + lane]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) y = f(y, __shfl_xor_sync(FULL, y, step));
    return y;
}

__global__ void __launch_bounds__(THREADS) best_kernel(sample_args p) {
    __shared__ u64 shared[THREADS / 32];
    const uint32_t s = blockIdx.y, begin = blockIdx.x * p.piece, end = min(begin + p.piece, p.V);
    let_next_start();
    if (blockIdx.x == 0 && threadIdx.x == 0) p.n_head[s] = 0;
    if (!is_live(p, s)) return;
    const float *x = p.logits + (size_t)s * p.V;
    u64 best = 0; // no token: an id's complement is never 0
#pragma unroll 8
    for (uint32_t i = begin + threadIdx.x; i < end; i += THREADS)
        best = larger()(best, (u64)order_image(x[i]) << 32 | (0xffffffffu - i));
    best = reduce_block<THREADS>(best, larger(), shared);
    if (threadIdx.x == 0) p.best[s * SPLITS + blockIdx.x] = best;
}

// Nothing to draw: temperature 0, one whose inverse overflows, or no finite maximum.
__device__ bool takes_best(const pith_draw &draw, float max) {
    return draw.temperature <= 0 || !isfinite(__fdiv_rn(1.0f, draw.temperature)) || !isfinite(max);
}
__device__ bool has_top_k(const sample_args &p, const pith_draw &draw) { return draw.top_k > 0 && draw.top_k < p.V; }
__device__ bool has_filter(const sample_args &p, const pith_draw &draw) {
    return has_top_k(p, draw) || draw.top_p < 1 || draw.min_p > 0;
}

__global__ void __launch_bounds__(THREADS) weights_kernel(sample_args p) {
    __shared__ u64 shared[THREADS / 32];
    __shared__ u64 listed[LIST];
    __shared__ uint32_t n_listed, place;
    const uint32_t s = blockIdx.y, begin = blockIdx.x * p.piece, end = min(begin + p.piece, p.V);
    if (threadIdx.x == 0) n_listed = 0;
    wait_for_previous();
    let_next_start();
    if (!is_live(p, s)) return;
    const pith_draw draw = p.draws[s];
    const u64 best = of_pieces(p.best, s, larger());
    const float max = from_image((uint32_t)(best >> 32));
    if ((best >> 32) == 0 || takes_best(draw, max)) return;
    const bool lists = has_filter(p, draw);
    const float scale = __fdiv_rn(1.0f, draw.temperature);
    const float *x = p.logits + (size_t)s * p.V;
    float *w = p.weights + (size_t)s * p.stride;
    if (blockIdx.x == 0 && threadIdx.x < p.stride - p.V) w[p.V + threadIdx.x] = 0.0f;
    __syncthreads();
    u64 sum = 0, in_head = 0;
#pragma unroll 4
    for (uint32_t i = begin + threadIdx.x; i < end; i += THREADS) {
        float weight = exp_as_cpu(__fmul_rn(__fsub_rn(x[i], max), scale));
        if (!(weight >= 0.0f)) weight = 0.0f; // a NaN logit has no weight
        w[i] = weight;
        sum += amount(weight);
        if (!lists || weight < HEAD_LEAST) continue;
        in_head += amount(weight);
        const uint32_t at = atomicAdd(&n_listed, 1);
        if (at < LIST) listed[at] = key_of(weight, i);
    }
    sum = reduce_block<THREADS>(sum, plus(), shared);
    if (threadIdx.x == 0) p.sums[s * SPLITS + blockIdx.x] = sum;
    if (!lists) return;
    in_head = reduce_block<THREADS>(in_head, plus(), shared);
    if (threadIdx.x == 0) {
        p.head_sums[s * SPLITS + blockIdx.x] = in_head;
        place = atomicAdd(&p.n_head[s], n_listed <= LIST ? n_listed : HEAD + 1);
    }
    __syncthreads();
    if (n_listed > LIST || place + n_listed > HEAD) return; // too many: the list is of no use
    for (uint32_t i = threadIdx.x; i < n_listed; i += THREADS) p.head[(size_t)s * HEAD + place + i] = listed[i];
}

// The sum over the threads before this one.
__device__ u64 sum_before(u64 x, u64 *shared) {
    u64 sum = x;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const u64 below = __shfl_up_sync(FULL, sum, step);
        if (threadIdx.x % 32 >= step) sum += below;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    u64 before = sum - x;
    for (uint32_t i = 0; i < threadIdx.x / 32; i++) before += shared[i];
    return before;
}

// -------------------------------------------------------------------------------------------------- a list in order

// Keys from the highest on, neighbours in one thread, and the sum up to and with each.
struct ordered {
    u64 key[NEIGHBOURS], sum[NEIGHBOURS];
    uint32_t n;
};

// A bitonic sort: (log2 n)^2 / 2 steps. Zeros fill up to a power of two, and come last.
__device__ void sort(u64 *list, uint32_t n) {
    uint32_t size = 2;
    while (size < n) size *= 2;
    for (uint32_t i = n + threadIdx.x; i < size; i += DRAW_THREADS) list[i] = 0;
    for (uint32_t run = 2; run <= size; run *= 2)
        for (uint32_t apart = run / 2; apart > 0; apart /= 2) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < size / 2; i += DRAW_THREADS) {
                const uint32_t at = 2 * i - (i & (apart - 1));
                const u64 a = list[at], b = list[at + apart];
                if ((a < b) == ((at & run) == 0)) list[at] = b, list[at + apart] = a;
            }
        }
    __syncthreads();
}

// `before`: the sum of what comes in front of the list.
__device__ ordered put_in_order(u64 *list, uint32_t n, u64 before, u64 *shared) {
    sort(list, n);
    ordered l;
    l.n = n;
    u64 mine = 0;
#pragma unroll
    for (int e = 0; e < NEIGHBOURS; e++) {
        const uint32_t i = threadIdx.x * NEIGHBOURS + e;
        l.key[e] = i < n ? list[i] : 0;
        l.sum[e] = mine += i < n ? amount(weight_of(l.key[e])) : 0;
    }
    before += sum_before(mine, shared);
#pragma unroll
    for (int e = 0; e < NEIGHBOURS; e++) l.sum[e] += before;
    return l;
}

// The first place of which is(place, key, sum) holds, n if there is none.
template <typename F> __device__ uint32_t first_of(const ordered &l, F is, u64 *shared) {
    uint32_t first = l.n;
#pragma unroll
    for (int e = NEIGHBOURS - 1; e >= 0; e--) {
        const uint32_t i = threadIdx.x * NEIGHBOURS + e;
        if (i < l.n && is(i, l.key[e], l.sum[e])) first = i;
    }
    return ~(uint32_t)reduce_block<DRAW_THREADS>((uint32_t)~first, larger(), shared);
}

struct token {
    u64 key, sum; // and the sum up to it
};
__device__ token token_at(const ordered &l, uint32_t i, u64 *shared) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < NEIGHBOURS; e++)
        if (threadIdx.x * NEIGHBOURS + e == i) shared[0] = l.key[e], shared[1] = l.sum[e];
    __syncthreads();
    return {shared[0], shared[1]};
}

// What top-k, top-p and min-p leave, in this order, is the front of the list; then the draw.
__device__ uint32_t draw_from_head(const sample_args &p, uint32_t s, const pith_draw &draw, u64 total, u64 *list,
                                   u64 *shared) {
    const uint32_t n = p.n_head[s];
    for (uint32_t i = threadIdx.x; i < n; i += DRAW_THREADS) list[i] = p.head[(size_t)s * HEAD + i];
    const ordered l = put_in_order(list, n, 0, shared);
    uint32_t kept = n;
    if (has_top_k(p, draw)) kept = draw.top_k, total = token_at(l, kept - 1, shared).sum; // top-p is of what it left
    if (draw.top_p < 1) {
        const double wanted = (double)draw.top_p * (double)total;
        const auto reached = [wanted](uint32_t, u64, u64 sum) { return (double)sum >= wanted; };
        kept = min(kept, first_of(l, reached, shared) + 1);
    }
    if (draw.min_p > 0) {
        const u64 least = (u64)__float_as_uint(draw.min_p) << ID_BITS;
        const auto below = [least](uint32_t, u64 key, u64) { return key < least; };
        kept = min(kept, max(first_of(l, below, shared), 1u)); // the likeliest always stays
    }
    // The first whose running sum exceeds the mark; the last when none does.
    const double mark = draw.uniform * (double)token_at(l, kept - 1, shared).sum;
    const auto exceeds = [mark](uint32_t, u64, u64 sum) { return (double)sum > mark; };
    return id_of(token_at(l, min(first_of(l, exceeds, shared), kept - 1), shared).key);
}

// --------------------------------------------------------------------------------------------- all tokens, out of
// order

struct all_tokens {
    const float *weights;
    uint32_t V, stride;
    u64 *memory, *shared; // (HEAD), the block's
};

// f(key, is a token): every lane of a warp comes to each call.
template <typename F> __device__ void each_token(const all_tokens &l, F f) {
    const float4 *from = reinterpret_cast<const float4 *>(l.weights);
    const uint32_t n = l.stride / 4;
    float4 next = threadIdx.x < n ? from[threadIdx.x] : float4{};
    for (uint32_t begin = 0; begin < n; begin += DRAW_THREADS) {
        const float4 now = next;
        const uint32_t i = begin + threadIdx.x;
        if (i + DRAW_THREADS < n) next = from[i + DRAW_THREADS];
        const float w[4] = {now.x, now.y, now.z, now.w};
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) f(key_of(w[e], 4 * i + e), 4 * i + e < l.V);
    }
}

__device__ u64 sum_from(const all_tokens &l, u64 least) {
    u64 x = 0;
    each_token(l, [&](u64 key, bool is) { x += is && key >= least ? amount(weight_of(key)) : 0; });
    return reduce_block<DRAW_THREADS>(x, plus(), l.shared);
}
__device__ u64 lowest_from(const all_tokens &l, u64 least) {
    u64 low = 0; // complement
    each_token(l, [&](u64 key, bool is) { low = is && key >= least ? larger()(low, ~key) : low; });
    return ~reduce_block<DRAW_THREADS>(low, larger(), l.shared);
}

// A warp's keys into bins, BINS for none: one addition for all that share a bin. Lanes of a bin find their sum in
// pairs, then pairs of pairs.
__device__ void add_to_bins(u64 *sums, uint32_t *numbers, uint32_t bin, u64 x) {
    if (!__any_sync(FULL, bin < BINS)) return;
    const uint32_t lane = threadIdx.x % 32, same = __match_any_sync(FULL, bin);
    uint32_t behind = bin < BINS ? same & 0xfffffffeu << lane : 0, rank = __popc(same & ((1u << lane) - 1));
    const bool leads = rank == 0 && bin < BINS;
    while (__any_sync(FULL, behind != 0)) {
        const uint32_t next = __ffs(behind);
        const u64 other = __shfl_sync(FULL, x, next ? next - 1 : lane);
        if (next) x += other;
        behind &= ~__ballot_sync(FULL, rank & 1);
        rank /= 2;
    }
    if (leads) atomicAdd(&sums[bin], x), atomicAdd(&numbers[bin], (uint32_t)__popc(same));
}

// Keys from hi down to lo, and what comes in front of them.
struct range {
    u64 lo, hi, sum_before;
    uint32_t n_before, n;
};

// The bin of the first token at which reached(sum, number) holds, as a range; n 0 and the sum of all if it never does.
template <typename F> __device__ range narrow(const all_tokens &l, const range &r, F reached) {
    u64 *sums = l.memory;
    uint32_t *numbers = reinterpret_cast<uint32_t *>(sums + BINS);
    const uint32_t bin = 2 * threadIdx.x;
    const int bits = 64 - __clzll(r.hi - r.lo), shift = bits > BIN_BITS ? bits - BIN_BITS : 0;
    __syncthreads();
    sums[bin] = sums[bin + 1] = 0, numbers[bin] = numbers[bin + 1] = 0;
    __syncthreads();
    each_token(l, [&](u64 key, bool is) {
        const bool in = is && key >= r.lo && key <= r.hi;
        add_to_bins(sums, numbers, in ? (uint32_t)((r.hi - key) >> shift) : BINS, amount(weight_of(key)));
    });
    __syncthreads();
    const u64 mine[2] = {sums[bin], sums[bin + 1]};
    const uint32_t n_mine[2] = {numbers[bin], numbers[bin + 1]};
    u64 sum = r.sum_before + sum_before(mine[0] + mine[1], l.shared);
    uint32_t n = r.n_before + (uint32_t)sum_before(n_mine[0] + n_mine[1], l.shared), found = BINS, i = 0;
    for (; i < 2; i++) {
        if (n_mine[i] && reached(sum + mine[i], n + n_mine[i])) {
            found = bin + i;
            break;
        }
        sum += mine[i], n += n_mine[i];
    }
    const uint32_t first = ~(uint32_t)reduce_block<DRAW_THREADS>((uint32_t)~found, larger(), l.shared);
    __syncthreads();
    if (first == BINS ? threadIdx.x == DRAW_THREADS - 1 : found == first)
        l.shared[0] = sum, l.shared[1] = n, l.shared[2] = first == BINS ? 0 : n_mine[i];
    __syncthreads();
    range to = {r.lo, r.hi, l.shared[0], (uint32_t)l.shared[1], (uint32_t)l.shared[2]};
    if (first == BINS) return to;
    to.hi = r.hi - ((u64)first << shift);
    const u64 width = ((u64)1 << shift) - 1;
    if (to.hi - r.lo > width) to.lo = to.hi - width;
    return to;
}

// The first token with a key of `least` or more at which reached(sum, number) holds; key 0 and the sum of all if it
// never does.
template <typename F> __device__ token search(const all_tokens &l, u64 least, F reached) {
    __shared__ uint32_t n_listed;
    range r = {least, key_of(1.0f, 0), 0, 0, HEAD + 1};
    while (r.n > HEAD) r = narrow(l, r, reached);
    if (r.n == 0) return {0, r.sum_before};
    __syncthreads(); // bins have been read
    if (threadIdx.x == 0) n_listed = 0;
    __syncthreads();
    each_token(l, [&](u64 key, bool is) {
        if (is && key >= r.lo && key <= r.hi) l.memory[atomicAdd(&n_listed, 1)] = key;
    });
    __syncthreads();
    const ordered in = put_in_order(l.memory, r.n, r.sum_before, l.shared);
    const uint32_t n_before = r.n_before;
    const auto is = [&](uint32_t i, u64, u64 sum) { return reached(sum, n_before + i + 1); };
    return token_at(in, first_of(in, is, l.shared), l.shared);
}

// As draw_from_head, by searches.
__device__ uint32_t draw_from_all(const sample_args &p, const all_tokens &l, const pith_draw &draw, u64 total) {
    u64 least = 0;
    if (has_top_k(p, draw)) {
        const uint32_t k = draw.top_k;
        const token last = search(l, 0, [k](u64, uint32_t n) { return n >= k; });
        least = last.key, total = last.sum;
    }
    if (draw.top_p < 1) {
        const double wanted = (double)draw.top_p * (double)total;
        const token last = search(l, least, [wanted](u64 sum, uint32_t) { return (double)sum >= wanted; });
        least = larger()(least, last.key);
    }
    if (draw.min_p > 0) least = larger()(least, (u64)__float_as_uint(draw.min_p) << ID_BITS);
    if (draw.min_p > 1) least = search(l, 0, [](u64, uint32_t n) { return n > 0; }).key; // the likeliest always stays
    const double mark = draw.uniform * (double)sum_from(l, least);
    const token drawn = search(l, least, [mark](u64 sum, uint32_t) { return (double)sum > mark; });
    return id_of((double)drawn.sum > mark ? drawn.key : lowest_from(l, least));
}

// The piece in which a running sum exceeds the mark; the last that weighs anything when none does: a mark that was
// rounded up may lie behind it. `before`: the sum in front of it. Every warp by itself.
__device__ uint32_t piece_of(const sample_args &p, uint32_t s, double mark, u64 *before) {
    constexpr int PER_LANE = SPLITS / 32;
    const uint32_t lane = threadIdx.x % 32;
    u64 of[PER_LANE], mine = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) mine += of[i] = p.sums[s * SPLITS + lane * PER_LANE + i];
    u64 sum = mine;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const u64 below = __shfl_up_sync(FULL, sum, step);
        if (lane >= step) sum += below;
    }
    sum -= mine;
    uint32_t found = SPLITS, last = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        if (of[i]) last = lane * PER_LANE + i;
        if (found == SPLITS && (double)(sum += of[i]) > mark) found = lane * PER_LANE + i;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        found = min(found, __shfl_xor_sync(FULL, found, step));
        last = max(last, __shfl_xor_sync(FULL, last, step));
    }
    const uint32_t piece = min(found, last);
    sum = 0;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) sum += lane * PER_LANE + i < piece ? of[i] : 0;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(FULL, sum, step);
    *before = sum;
    return piece;
}

// Without filters the ids' own order will do: the first id whose sum exceeds the mark. Pieces, then runs of a thread.
__device__ uint32_t draw_in_order(const sample_args &p, uint32_t s, double mark, u64 *shared) {
    const float *w = p.weights + (size_t)s * p.stride;
    u64 before;
    const uint32_t piece = piece_of(p, s, mark, &before);
    const uint32_t begin = min(piece * p.piece, p.V), end = min(begin + p.piece, p.V);
    const uint32_t run = (p.piece + DRAW_THREADS - 1) / DRAW_THREADS;
    const uint32_t from = min(begin + threadIdx.x * run, end), to = min(from + run, end);
    u64 mine = 0;
    for (uint32_t i = from; i < to; i++) mine += amount(w[i]);
    before += sum_before(mine, shared);
    // The lowest id beyond the mark; none when the mark lies in the crumb that rounding left: then the last with a
    // weight.
    u64 found = 0;
    for (uint32_t i = from; i < to && !found; i++)
        if ((double)(before += amount(w[i])) > mark) found = (u64)1 << 32 | (0xffffffffu - i);
    if (!found)
        for (uint32_t i = to; i > from && !found; i--)
            if (w[i - 1] > 0.0f) found = i; // id + 1; the highest wins, but only over nothing better
    found = reduce_block<DRAW_THREADS>(found, larger(), shared);
    return found >> 32 ? 0xffffffffu - (uint32_t)found : found ? (uint32_t)found - 1 : 0;
}

// Is what the filters keep certainly within the head?
__device__ bool head_will_do(const sample_args &p, uint32_t s, const pith_draw &draw, u64 total) {
    const uint32_t n = p.n_head[s];
    if (n > HEAD) return false;
    if (has_top_k(p, draw)) return draw.top_k <= n;
    if (draw.min_p >= HEAD_LEAST) return true;
    return draw.top_p < 1 && (double)of_pieces(p.head_sums, s, plus()) >= (double)draw.top_p * (double)total;
}

__global__ void __launch_bounds__(DRAW_THREADS) draw_kernel(sample_args p) {
    __shared__ u64 shared[DRAW_THREADS / 32];
    __shared__ u64 memory[HEAD];
    const uint32_t s = blockIdx.x;
    wait_for_previous();
    if (!is_live(p, s)) return;
    const pith_draw draw = p.draws[s];
    const u64 best = of_pieces(p.best, s, larger());
    const float max = from_image((uint32_t)(best >> 32));
    uint32_t id;
    if ((best >> 32) == 0) {
        id = 0; // nothing but NaN
    } else if (takes_best(draw, max)) {
        id = 0xffffffffu - (uint32_t)best;
    } else {
        const u64 total = of_pieces(p.sums, s, plus());
        if (!has_filter(p, draw)) id = draw_in_order(p, s, draw.uniform * (double)total, shared);
        else if (head_will_do(p, s, draw, total)) id = draw_from_head(p, s, draw, total, memory, shared);
        else id = draw_from_all(p, {p.weights + (size_t)s * p.stride, p.V, p.stride, memory, shared}, draw, total);
    }
    if (threadIdx.x == 0) {
        p.ids[s] = (int32_t)id;
        if (p.host_ids) p.host_ids[s] = (int32_t)id;
    }
}

uint32_t stride_of(uint32_t n_vocab) { return (n_vocab + 3) / 4 * 4; }

} // namespace

extern "C" size_t pith_cuda_sample_scratch(uint32_t n, uint32_t n_vocab) {
    return (size_t)n * ((3 * SPLITS + HEAD) * sizeof(uint64_t) + stride_of(n_vocab) * sizeof(float) + sizeof(uint32_t));
}

extern "C" cudaError_t pith_cuda_sample(const float *logits, uint32_t n, uint32_t n_vocab, const pith_draw *draws,
                                        const int32_t *live, void *scratch, int32_t *ids, int32_t *host_ids,
                                        cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    if (n_vocab == 0 || n_vocab > 1u << ID_BITS) return cudaErrorInvalidValue;
    sample_args args = {};
    args.logits = logits, args.draws = draws, args.live = live, args.ids = ids, args.host_ids = host_ids;
    args.V = n_vocab, args.piece = (n_vocab + SPLITS - 1) / SPLITS, args.stride = stride_of(n_vocab);
    args.best = static_cast<uint64_t *>(scratch);
    args.sums = args.best + (size_t)n * SPLITS;
    args.head_sums = args.sums + (size_t)n * SPLITS;
    args.head = args.head_sums + (size_t)n * SPLITS;
    args.weights = reinterpret_cast<float *>(args.head + (size_t)n * HEAD);
    args.n_head = reinterpret_cast<uint32_t *>(args.weights + (size_t)n * args.stride);
    cudaError_t err = launch_chained(best_kernel, dim3(SPLITS, n), THREADS, 0, PITH_CUDA_AFTER, stream, args);
    if (!err) err = launch_chained(weights_kernel, dim3(SPLITS, n), THREADS, 0, PITH_CUDA_OVERLAP, stream, args);
    return err ? err : launch_chained(draw_kernel, dim3(n), DRAW_THREADS, 0, PITH_CUDA_OVERLAP, stream, args);
}
