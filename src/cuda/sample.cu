// Three launches: the maxima of 16 pieces of each vocabulary; the weights and their sums; the draw, one block per
// sequence. Bound: bytes for the first two (16 sequences of 152 k logits are 10 MB, from L2 after the product that made
// them), latency for the third.
//
// Weights are exp((logit - max) / temperature) with the CPU's own exp, bit for bit. Sums of weights are integers, in
// units of 2^-44: at most 2^18 weights of at most 1 fit in 64 bits, and a sum of integers does not depend on its order.
// A weight below 2^-20 loses bits, one below 2^-44 all: together less than 2^-26 of the total, which is at least 1.
//
// Tokens have distinct keys, (weight, lowest id first), so "the likeliest that ..." is always a threshold on keys. A
// threshold is found bit by bit from the highest, one pass over a list each: 48 passes, which is cheap because nearly
// always the list is the head of the distribution, a few hundred tokens in shared memory, as on the CPU.
#include "cuda/sample.h"

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

constexpr int SPLITS = 16, THREADS = 512, DRAW_THREADS = 1024;
constexpr uint32_t HEAD = 4096;        // tokens of the head that shared memory takes: 32 KB of keys
constexpr float HEAD_LEAST = 0x1p-12f; // their least weight
constexpr double UNIT = 0x1p44;        // of sums
constexpr uint32_t ID_BITS = 18;       // V <= 2^18
constexpr uint32_t ID_MASK = (1u << ID_BITS) - 1;

typedef unsigned long long u64;

__device__ __forceinline__ u64 amount(float w) {
    return (u64)((double)w * UNIT);
} // exact down to 2^-20, then truncated
__device__ __forceinline__ u64 key_of(float w, uint32_t id) {
    return (u64)__float_as_uint(w) << ID_BITS | (ID_MASK - id);
}
__device__ __forceinline__ float weight_of(u64 key) { return __uint_as_float((uint32_t)(key >> ID_BITS)); }
__device__ __forceinline__ uint32_t id_of(u64 key) { return ID_MASK - ((uint32_t)key & ID_MASK); }

struct sample_args {
    const float *logits; // (n, V)
    const pith_draw *draws;
    const int32_t *live;
    uint64_t *best; // (n, SPLITS) order image of a piece's maximum, then the complement of its lowest id
    uint64_t *sums; // (n, SPLITS)
    float *weights; // (n, V)
    int32_t *ids, *host_ids;
    uint32_t V, piece; // tokens per piece
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

__global__ void __launch_bounds__(THREADS) best_kernel(sample_args p) {
    __shared__ u64 shared[THREADS / 32];
    const uint32_t s = blockIdx.y, begin = blockIdx.x * p.piece, end = min(begin + p.piece, p.V);
    if (!is_live(p, s)) return;
    const float *x = p.logits + (size_t)s * p.V;
    u64 best = 0; // no token: an id's complement is never 0
#pragma unroll 4
    for (uint32_t i = begin + threadIdx.x; i < end; i += THREADS)
        best = larger()(best, (u64)order_image(x[i]) << 32 | (0xffffffffu - i));
    best = reduce_block<THREADS>(best, larger(), shared);
    if (threadIdx.x == 0) p.best[s * SPLITS + blockIdx.x] = best;
}

__device__ u64 best_of(const sample_args &p, uint32_t s) {
    u64 best = 0;
    for (int i = 0; i < SPLITS; i++) best = larger()(best, p.best[s * SPLITS + i]);
    return best;
}

// Nothing to draw: temperature 0, one whose inverse overflows, or no finite maximum.
__device__ bool takes_best(const pith_draw &draw, float max) {
    return draw.temperature <= 0 || !isfinite(__fdiv_rn(1.0f, draw.temperature)) || !isfinite(max);
}

__global__ void __launch_bounds__(THREADS) weights_kernel(sample_args p) {
    __shared__ u64 shared[THREADS / 32];
    const uint32_t s = blockIdx.y, begin = blockIdx.x * p.piece, end = min(begin + p.piece, p.V);
    if (!is_live(p, s)) return;
    const u64 best = best_of(p, s);
    const float max = from_image((uint32_t)(best >> 32));
    if ((best >> 32) == 0 || takes_best(p.draws[s], max)) return;
    const float scale = __fdiv_rn(1.0f, p.draws[s].temperature);
    const float *x = p.logits + (size_t)s * p.V;
    float *w = p.weights + (size_t)s * p.V;
    u64 sum = 0;
    for (uint32_t i = begin + threadIdx.x; i < end; i += THREADS) {
        float weight = exp_as_cpu(__fmul_rn(__fsub_rn(x[i], max), scale));
        if (!(weight >= 0.0f)) weight = 0.0f; // a NaN logit has no weight
        w[i] = weight;
        sum += amount(weight);
    }
    sum = reduce_block<THREADS>(sum, plus(), shared);
    if (threadIdx.x == 0) p.sums[s * SPLITS + blockIdx.x] = sum;
}

// Keys in shared memory, or all tokens of the sequence.
struct list {
    const u64 *keys;
    const float *weights; // when keys is NULL
    uint32_t n;
    __device__ u64 key(uint32_t i) const { return keys ? keys[i] : key_of(weights[i], i); }
};

// The highest key such that the tokens with keys >= it fulfil `reached` of their number or sum, or the lowest key
// `least` of the list when nothing does; keys below `least` do not count.
template <bool BY_SUM, typename F> __device__ u64 threshold(const list &l, u64 least, F reached, u64 *shared) {
    u64 at = 0;
    for (int bit = 30 + ID_BITS - 1; bit >= 0; bit--) { // weights are at most 1: their bits 31 and 30 are 0
        const u64 tried = at | 1ull << bit;
        u64 x = 0;
        for (uint32_t i = threadIdx.x; i < l.n; i += DRAW_THREADS) {
            const u64 key = l.key(i);
            if (key >= tried && key >= least) x += BY_SUM ? amount(weight_of(key)) : 1;
        }
        x = reduce_block<DRAW_THREADS>(x, plus(), shared);
        if (reached(x)) at = tried;
    }
    return at < least ? least : at;
}

__device__ u64 sum_from(const list &l, u64 least, u64 *shared) {
    u64 x = 0;
    for (uint32_t i = threadIdx.x; i < l.n; i += DRAW_THREADS) {
        const u64 key = l.key(i);
        if (key >= least) x += amount(weight_of(key));
    }
    return reduce_block<DRAW_THREADS>(x, plus(), shared);
}

// The lowest key of the list that is at least `least`: thresholds may lie between two keys.
__device__ u64 lowest_from(const list &l, u64 least, u64 *shared) {
    u64 low = 0; // complement
    for (uint32_t i = threadIdx.x; i < l.n; i += DRAW_THREADS) {
        const u64 key = l.key(i);
        if (key >= least) low = larger()(low, ~key);
    }
    return ~reduce_block<DRAW_THREADS>(low, larger(), shared);
}

// Without filters the ids' own order will do: the first id whose sum exceeds the mark. Pieces, then runs of a thread.
__device__ uint32_t draw_in_order(const sample_args &p, uint32_t s, double mark, u64 *shared) {
    const float *w = p.weights + (size_t)s * p.V;
    u64 before = 0;
    uint32_t piece = 0, last = SPLITS - 1; // that weighs anything: a mark that was rounded up may lie behind it
    while (last > 0 && p.sums[s * SPLITS + last] == 0) last--;
    for (; piece < last && (double)(before + p.sums[s * SPLITS + piece]) <= mark; piece++)
        before += p.sums[s * SPLITS + piece];
    const uint32_t begin = min(piece * p.piece, p.V), end = min(begin + p.piece, p.V);
    const uint32_t run = (p.piece + DRAW_THREADS - 1) / DRAW_THREADS;
    const uint32_t from = min(begin + threadIdx.x * run, end), to = min(from + run, end);
    u64 mine = 0;
    for (uint32_t i = from; i < to; i++) mine += amount(w[i]);
    // Exclusive sums over the threads.
    u64 sum = mine;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const u64 below = __shfl_up_sync(FULL, sum, step);
        if (threadIdx.x % 32 >= step) sum += below;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    for (uint32_t i = 0; i < threadIdx.x / 32; i++) before += shared[i];
    before += sum - mine;
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

// What top-k, top-p and min-p leave of the list, in this order, is all keys from the result on.
__device__ u64 filter(const list &l, const pith_draw &draw, uint32_t V, u64 total, u64 *shared) {
    u64 least = 0;
    if (draw.top_k > 0 && draw.top_k < V) {
        const u64 k = draw.top_k;
        least = threshold<false>(
            l, 0, [k](u64 n) { return n >= k; }, shared);
        total = sum_from(l, least, shared); // top-p is of what top-k left
    }
    if (draw.top_p < 1) {
        const double wanted = (double)draw.top_p * (double)total;
        least = threshold<true>(
            l, least, [wanted](u64 sum) { return (double)sum >= wanted; }, shared);
    }
    if (draw.min_p > 0) {
        const u64 by_weight = (u64)__float_as_uint(draw.min_p) << ID_BITS;
        if (by_weight > least) least = by_weight;
    }
    // The likeliest always stays.
    u64 top = 0;
    for (uint32_t i = threadIdx.x; i < l.n; i += DRAW_THREADS) top = larger()(top, l.key(i));
    top = reduce_block<DRAW_THREADS>(top, larger(), shared);
    return least < top ? least : top;
}

__global__ void __launch_bounds__(DRAW_THREADS) draw_kernel(sample_args p) {
    __shared__ u64 shared[DRAW_THREADS / 32];
    __shared__ u64 head[HEAD];
    __shared__ uint32_t n_head;
    const uint32_t s = blockIdx.x;
    if (!is_live(p, s)) return;
    const pith_draw draw = p.draws[s];
    const u64 best = best_of(p, s);
    const float max = from_image((uint32_t)(best >> 32));
    uint32_t id;
    if ((best >> 32) == 0) {
        id = 0; // nothing but NaN
    } else if (takes_best(draw, max)) {
        id = 0xffffffffu - (uint32_t)best;
    } else {
        u64 total = 0;
        for (int i = 0; i < SPLITS; i++) total += p.sums[s * SPLITS + i];
        const bool has_k = draw.top_k > 0 && draw.top_k < p.V;
        if (!has_k && draw.top_p >= 1 && draw.min_p <= 0) {
            id = draw_in_order(p, s, draw.uniform * (double)total, shared);
        } else {
            const float *w = p.weights + (size_t)s * p.V;
            if (threadIdx.x == 0) n_head = 0;
            __syncthreads();
            u64 in_head = 0;
            for (uint32_t i = threadIdx.x; i < p.V; i += DRAW_THREADS) {
                if (w[i] < HEAD_LEAST) continue;
                in_head += amount(w[i]);
                const uint32_t at = atomicAdd(&n_head, 1); // the order in the list is of no matter
                if (at < HEAD) head[at] = key_of(w[i], i);
            }
            in_head = reduce_block<DRAW_THREADS>(in_head, plus(), shared);
            // Is what the filters keep certainly within the head?
            const bool fits =
                n_head <= HEAD && (has_k ? draw.top_k <= n_head
                                         : (draw.top_p < 1 && (double)in_head >= (double)draw.top_p * (double)total) ||
                                               draw.min_p >= HEAD_LEAST);
            list l = {fits ? head : nullptr, w, fits ? n_head : p.V};
            const u64 least = filter(l, draw, p.V, total, shared);
            const u64 sum = sum_from(l, least, shared);
            // The first, from the likeliest, whose running sum exceeds the mark; the last when none does.
            const double mark = draw.uniform * (double)sum;
            const u64 at = threshold<true>(
                l, least, [mark](u64 x) { return (double)x > mark; }, shared);
            id = id_of(lowest_from(l, at, shared));
        }
    }
    if (threadIdx.x == 0) {
        p.ids[s] = (int32_t)id;
        if (p.host_ids) p.host_ids[s] = (int32_t)id;
    }
}

} // namespace

extern "C" size_t pith_cuda_sample_scratch(uint32_t n, uint32_t n_vocab) {
    return (size_t)n * (2 * SPLITS * sizeof(uint64_t) + (size_t)n_vocab * sizeof(float));
}

extern "C" cudaError_t pith_cuda_sample(const float *logits, uint32_t n, uint32_t n_vocab, const pith_draw *draws,
                                        const int32_t *live, void *scratch, int32_t *ids, int32_t *host_ids,
                                        cudaStream_t stream) {
    if (n == 0) return cudaSuccess;
    if (n_vocab == 0 || n_vocab > 1u << ID_BITS) return cudaErrorInvalidValue;
    uint64_t *best = static_cast<uint64_t *>(scratch), *sums = best + (size_t)n * SPLITS;
    const sample_args args = {logits,  draws,
                              live,    best,
                              sums,    reinterpret_cast<float *>(sums + (size_t)n * SPLITS),
                              ids,     host_ids,
                              n_vocab, (n_vocab + SPLITS - 1) / SPLITS};
    cudaError_t err = launch_kernel(best_kernel, dim3(SPLITS, n), THREADS, 0, stream, args);
    if (!err) err = launch_kernel(weights_kernel, dim3(SPLITS, n), THREADS, 0, stream, args);
    return err ? err : launch_kernel(draw_kernel, n, DRAW_THREADS, 0, stream, args);
}
