// Merges the parts of each lane to its output. Bound: latency. A lane of 32640 rows has 128 parts of 4 KB, which come
// from L2; a batch of 16 has 64 such lanes, 33 MB.
//
// A block has 32 of a lane's pieces, a piece being four sums as the product fragments have them: the same place in
// every part. Each of its warps takes a run of the parts, so that many loads are under way at once; runs are added up
// in ascending order. How long a run is follows from the number of parts alone, and so the order of every sum.
#include "cuda/attend_items.cuh"
#include "cuda/chain.cuh"

namespace pith {
namespace {

constexpr int RUNS = 8, THREADS = RUNS * 32;

// A quotient rounded once, as a division's, from the rounded inverse of weights between 1 and a lane's rows: so a mean
// of equal values is that value. Nothing that counts is 0.
__device__ __forceinline__ float mean(float sum, float weight) {
    if (weight == 0.0f) return 0.0f;
    const float inverse = 1.0f / weight, q = sum * inverse;
    return fmaf(fmaf(-weight, q, sum), inverse, q);
}

__device__ __forceinline__ void store_out(const attend_args &p, size_t at, float x) {
    p.out[at] = p.out_bf16 ? half_bits<true>(x) : half_bits<false>(x);
}

template <int NT> __global__ void __launch_bounds__(THREADS) merge_kernel(attend_args p, uint32_t d) {
    __shared__ float2 tops[RUNS][32];
    __shared__ float2 weights[RUNS][32];
    __shared__ float4 sums[RUNS][32];
    let_next_start_early(p.early);
    const uint32_t lane = threadIdx.x % 32, run = threadIdx.x / 32, t = lane % 4, g = p.H / p.G;
    const uint32_t tile = blockIdx.x, nt = tile / (d / 16), h = 8 * nt + 2 * t; // the piece's heads: h and h + 1
    const lane_parts of = p.lanes[blockIdx.y];
    const uint32_t per_run = (of.n + RUNS - 1) / RUNS, begin = min(run * per_run, of.n),
                   end = min(begin + per_run, of.n);
    const size_t step = part_floats<NT>(d);
    const float *part = p.parts + of.first * step;
    const float *ml = part + 8 * NT * d + 4 * (4 * nt + t); // maximum and weight of h, then of h + 1
    wait_and_let_next_start(p.early);
    if (of.n == 0) return;

    const uint32_t last = h < g ? end : begin; // of other heads nothing has been written
    float2 top = {-INFINITY, -INFINITY};
#pragma unroll 8
    for (uint32_t c = begin; c < last; c++) {
        const float4 x = __ldcg(reinterpret_cast<const float4 *>(ml + c * step));
        top.x = fmaxf(top.x, x.x), top.y = fmaxf(top.y, x.z);
    }
    tops[run][lane] = top;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < RUNS; r++) top.x = fmaxf(top.x, tops[r][lane].x), top.y = fmaxf(top.y, tops[r][lane].y);
    top.x = soft_shift(top.x), top.y = soft_shift(top.y);

    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    float2 weight = {0.0f, 0.0f};
#pragma unroll 8
    for (uint32_t c = begin; c < last; c++) {
        const float4 m = __ldcg(reinterpret_cast<const float4 *>(ml + c * step));
        const float4 x = __ldcg(reinterpret_cast<const float4 *>(part + c * step) + tile * 32 + lane);
        const float w0 = exp2f(m.x - top.x), w1 = exp2f(m.z - top.y);
        weight.x = fmaf(m.y, w0, weight.x), weight.y = fmaf(m.w, w1, weight.y);
        sum = {fmaf(x.x, w0, sum.x), fmaf(x.y, w1, sum.y), fmaf(x.z, w0, sum.z), fmaf(x.w, w1, sum.w)};
    }
    sums[run][lane] = sum, weights[run][lane] = weight;
    __syncthreads();
    if (run > 0) return;
#pragma unroll
    for (int r = 1; r < RUNS; r++) {
        const float4 x = sums[r][lane];
        const float2 w = weights[r][lane];
        sum = {sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w};
        weight = {weight.x + w.x, weight.y + w.y};
    }
    const uint32_t token = blockIdx.y / p.G, kv = blockIdx.y % p.G;
    const size_t at = ((size_t)token * p.H + kv * g + h) * d + tile % (d / 16) * 16 + lane / 4;
    if (h < g) store_out(p, at, mean(sum.x, weight.x)), store_out(p, at + 8, mean(sum.z, weight.x));
    if (h + 1 < g) store_out(p, at + d, mean(sum.y, weight.y)), store_out(p, at + d + 8, mean(sum.w, weight.y));
}

} // namespace

cudaError_t attend_merge(const attend_args &args, const pith_geometry *geo, uint32_t n, pith_cuda_follow follow,
                         cudaStream_t stream) {
    const bool few = geo->n_heads / geo->n_kv_heads <= 8;
    const dim3 grid((few ? 1 : 2) * (geo->head_dim / 16), n * geo->n_kv_heads);
    return launch_chained(few ? merge_kernel<1> : merge_kernel<2>, grid, THREADS, 0, follow, stream, args,
                          geo->head_dim);
}

} // namespace pith
