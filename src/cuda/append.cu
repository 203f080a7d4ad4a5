// One warp per (token, head): H query heads, then G key heads, then G value heads. A head is 64 to 256 floats, 2 to 8
// per lane, so the norm is one warp reduction and no shared memory is needed. Bound: latency. A decode step of 64
// tokens of a 7B model has 2304 warps that move 1.2 MB, well under a microsecond of bandwidth; one wave of small
// blocks.
//
// In a chain (chain.h) only q, k and v are waited for: everything else, the page of the new row among it, is looked up
// while they are being made. What a step changes is read past L1, which such a kernel may find as an earlier one left
// it.
//
// The query is written in the cache's type without 1/sqrt(d): small integers stay exact, and attention scales the f32
// score instead.
#include "cuda/append.h"

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/chain.cuh"
#include "cuda/launch.cuh"
#include "cuda/product.h"

using namespace pith;

namespace {

constexpr int WARPS = 4;
constexpr int MAX_PER_LANE = PITH_MAX_HEAD_DIM / 32;

struct angles_args {
    float theta_scale, freq_scale, ext_factor, low, high, magnitude;
    uint32_t half; // n_rot / 2
};

// One thread per (token, frequency). The chain of products is at most 127 long and runs once per step.
__global__ void angles_kernel(angles_args a, const float *factors, const int32_t *pos, uint32_t n, float2 *out) {
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x, i = at % a.half;
    if (at >= n * a.half) return;
    float theta = (float)pos[at / a.half];
    for (uint32_t j = 0; j < i; j++) theta = __fmul_rn(theta, a.theta_scale);
    const float extrapolated = factors ? __fdiv_rn(theta, factors[i]) : theta;
    float angle = __fmul_rn(a.freq_scale, extrapolated);
    if (a.ext_factor != 0.0f) {
        const float y = __fdiv_rn((float)i - a.low, fmaxf(0.001f, a.high - a.low));
        const float mix = __fmul_rn(1.0f - fminf(1.0f, fmaxf(0.0f, y)), a.ext_factor);
        angle = __fadd_rn(__fmul_rn(angle, 1.0f - mix), __fmul_rn(extrapolated, mix));
    }
    double s, c;
    sincos((double)angle, &s, &c);
    out[at] = make_float2(__fmul_rn((float)c, a.magnitude), __fmul_rn((float)s, a.magnitude));
}

// x (d) of one head: element e of the lane is x[e * 32 + lane].
__device__ void rms_norm(float (&x)[MAX_PER_LANE], const float *w, uint32_t d, float eps, uint32_t lane) {
    float sum = 0.0f;
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++)
        if (e * 32 < d) sum = fmaf(x[e], x[e], sum);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(FULL, sum, step);
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(sum / (float)d + eps));
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++)
        if (e * 32 < d) x[e] = x[e] * scale * w[e * 32 + lane];
}

struct append_args {
    pith_cuda_append a;
    sections at;
    const int32_t *pages, *first, *n_rows;
    float *const *window;
    const uint32_t *window_cap;
    uint32_t n_layers, H, G, d;
    bool early; // see chain.h
};

// The pair of elements to which element i of a head belongs.
__device__ uint32_t pair_of(const append_args &p, uint32_t i) { return p.a.neox ? i % (p.a.n_rot / 2) : i / 2; }

// A rotated element needs its partner: lanes exchange through shared memory, since a pair may be half a head apart.
__device__ void rotate(float (&x)[MAX_PER_LANE], float *row, const float2 (&angles)[MAX_PER_LANE], const append_args &p,
                       uint32_t lane) {
    const uint32_t n_rot = p.a.n_rot, half = n_rot / 2;
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++)
        if (e * 32 < p.d) row[e * 32 + lane] = x[e];
    __syncwarp();
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++) {
        const uint32_t i = e * 32 + lane;
        if (i >= n_rot) continue;
        const uint32_t pair = pair_of(p, i), lo = p.a.neox ? pair : 2 * pair, hi = p.a.neox ? pair + half : lo + 1;
        const float2 cs = angles[e];
        // As in ggml: two products, rounded, and their difference or sum.
        x[e] = i == lo ? __fsub_rn(__fmul_rn(row[lo], cs.x), __fmul_rn(row[hi], cs.y))
                       : __fadd_rn(__fmul_rn(row[lo], cs.y), __fmul_rn(row[hi], cs.x));
    }
}

template <bool BF16>
__device__ void store_head(uint16_t *out, const float (&x)[MAX_PER_LANE], uint32_t d, uint32_t lane) {
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++)
        if (e * 32 < d) out[e * 32 + lane] = half_bits<BF16>(x[e]); // 64 contiguous bytes per warp
}

// Where a head goes: a row of a page, or the query and its slot of a window.
struct destination {
    uint16_t *to;
    int32_t *pos;  // of a key's row, or NULL
    float *window; // of a query, or NULL
};
__device__ destination find_destination(const append_args &p, uint32_t head, uint32_t token, int32_t seq,
                                        bool prefill) {
    destination to = {nullptr, nullptr, nullptr};
    if (head < p.H) {
        to.to = p.a.q_out + ((size_t)token * p.H + head) * p.d;
        const int32_t slot = p.a.slot ? __ldcg(p.a.slot + token) : -1;
        if (slot < 0 || !p.window) return to;
        const auto *windows = reinterpret_cast<const unsigned long long *>(p.window);
        float *window = reinterpret_cast<float *>(__ldcg(windows + seq));
        if (window) to.window = window + (((size_t)p.a.layer * __ldcg(p.window_cap + seq) + slot) * p.H + head) * p.d;
        return to;
    }
    const bool is_k = head < p.H + p.G;
    const size_t entry = ((size_t)seq * p.n_layers + p.a.layer) * p.G + head - p.H - (is_k ? 0 : p.G);
    const uint32_t row = (uint32_t)__ldcg(p.n_rows + entry) - (prefill ? p.a.n - token : 1);
    const int32_t id = __ldcg(p.pages + __ldcg(p.first + entry) + row / PITH_PAGE_ROWS);
    const uint32_t r = row % PITH_PAGE_ROWS;
    to.to = reinterpret_cast<uint16_t *>(is_k ? page_k(p.at, id) : page_v(p.at, id)) + (size_t)r * p.d;
    if (is_k) to.pos = page_pos(p.at, id) + r;
    return to;
}

// x (d) of one head, from its parts: those of four elements of a lane are under way together.
__device__ void add_parts(float (&x)[MAX_PER_LANE], const float *from, uint32_t n_parts, size_t stride, uint32_t d,
                          uint32_t lane) {
    constexpr int TOGETHER = 4;
#pragma unroll
    for (int e0 = 0; e0 < MAX_PER_LANE; e0 += TOGETHER) {
        float part[PITH_CUDA_MOST_PARTS][TOGETHER];
#pragma unroll
        for (uint32_t s = 0; s < PITH_CUDA_MOST_PARTS; s++)
#pragma unroll
            for (int e = 0; e < TOGETHER; e++) {
                part[s][e] = 0.0f;
                if (s < n_parts && (e0 + e) * 32 < d) part[s][e] = __ldcg(from + s * stride + (e0 + e) * 32 + lane);
            }
#pragma unroll
        for (int e = 0; e < TOGETHER; e++) {
            x[e0 + e] = part[0][e];
#pragma unroll
            for (uint32_t s = 1; s < PITH_CUDA_MOST_PARTS; s++) x[e0 + e] += part[s][e]; // 0 behind the last: no change
        }
        if ((e0 + TOGETHER) * 32 >= d) {
            for (int e = e0 + TOGETHER; e < MAX_PER_LANE; e++) x[e] = 0.0f;
            break;
        }
    }
}

template <bool BF16> __global__ void __launch_bounds__(WARPS * 32) append_kernel(append_args p, bool prefill) {
    __shared__ float rows[WARPS][PITH_MAX_HEAD_DIM];
    let_next_start_early(p.early);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t head = blockIdx.x * WARPS + warp, token = blockIdx.y, d = p.d;
    const int32_t seq = head < p.H + 2 * p.G ? __ldcg(p.a.seq + (prefill ? 0 : token)) : -1;
    const bool is_q = head < p.H, is_v = head >= p.H + p.G;
    destination to = {nullptr, nullptr, nullptr};
    float2 angles[MAX_PER_LANE];
    if (seq >= 0) {
        to = find_destination(p, head, token, seq, prefill);
        const float2 *of_token = reinterpret_cast<const float2 *>(p.a.angles) + (size_t)token * (p.a.n_rot / 2);
#pragma unroll
        for (int e = 0; e < MAX_PER_LANE; e++)
            if (!is_v && e * 32 + lane < p.a.n_rot) angles[e] = __ldcg(of_token + pair_of(p, e * 32 + lane));
    }
    wait_and_let_next_start(p.early);
    if (seq < 0) return;

    const float *from = p.a.q + token * p.a.stride + (size_t)head * d;
    if (!is_q) from = (is_v ? p.a.v : p.a.k) + token * p.a.stride + (size_t)(head - p.H - (is_v ? p.G : 0)) * d;
    float x[MAX_PER_LANE];
    add_parts(x, from, is_q ? p.a.q_parts : is_v ? p.a.v_parts : p.a.k_parts, p.a.part_stride, d, lane);

    if (!is_v) {
        const float *norm = is_q ? p.a.q_norm : p.a.k_norm;
        if (norm) rms_norm(x, norm, d, p.a.norm_eps, lane);
        if (p.a.n_rot) rotate(x, rows[warp], angles, p, lane);
    }
    store_head<BF16>(to.to, x, d, lane);
    if (to.pos && lane == 0) *to.pos = __ldcg(p.a.pos + token);
    if (!to.window) return;
#pragma unroll
    for (int e = 0; e < MAX_PER_LANE; e++)
        if (e * 32 < d) to.window[e * 32 + lane] = x[e];
}

cudaError_t append(const pith_cuda_cache *c, const pith_cuda_windows *w, const pith_cuda_append *a, bool prefill,
                   pith_cuda_follow follow, cudaStream_t stream) {
    const pith_geometry *g = &c->geo;
    if (a->n == 0) return cudaSuccess;
    if (g->elt_bytes != 2 || g->head_dim % 32 || g->head_dim > PITH_MAX_HEAD_DIM || a->n_rot % 2 ||
        a->n_rot > g->head_dim || !a->q_parts || !a->k_parts || !a->v_parts || a->q_parts > PITH_CUDA_MOST_PARTS ||
        a->k_parts > PITH_CUDA_MOST_PARTS || a->v_parts > PITH_CUDA_MOST_PARTS)
        return cudaErrorInvalidValue;
    const append_args args = {*a,
                              sections_of(*c),
                              c->pages,
                              c->first,
                              c->n_rows,
                              w ? w->q : nullptr,
                              w ? w->cap : nullptr,
                              g->n_layers,
                              g->n_heads,
                              g->n_kv_heads,
                              g->head_dim,
                              follow == PITH_CUDA_EARLY};
    const dim3 grid((g->n_heads + 2 * g->n_kv_heads + WARPS - 1) / WARPS, a->n);
    return launch_chained(c->type == PITH_HALF_BF16 ? append_kernel<true> : append_kernel<false>, grid, WARPS * 32, 0,
                          follow, stream, args, prefill);
}

float corrected_dim(const pith_rope *r, float n_rotations) {
    return (float)r->n_rot * logf((float)r->n_ctx_orig / (n_rotations * 2 * 3.14159265358979323846f)) /
           (2 * logf(r->base));
}

} // namespace

extern "C" cudaError_t pith_cuda_rope_angles(const pith_rope *r, const float *factors, const int32_t *pos, uint32_t n,
                                             float *out, cudaStream_t stream) {
    if (n == 0 || r->n_rot == 0) return cudaSuccess;
    angles_args a = {
        powf(r->base, -2.0f / (float)r->n_rot), r->freq_scale, r->ext_factor, 0, 0, r->attn_factor, r->n_rot / 2};
    if (r->ext_factor != 0.0f) {
        a.low = fmaxf(0.0f, floorf(corrected_dim(r, r->beta_fast)));
        a.high = fminf((float)r->n_rot - 1, ceilf(corrected_dim(r, r->beta_slow)));
        a.magnitude *= 1.0f + 0.1f * logf(1.0f / r->freq_scale);
    }
    const uint32_t threads = 128, total = n * a.half;
    return launch_kernel(angles_kernel, (total + threads - 1) / threads, threads, 0, stream, a, factors, pos, n,
                         reinterpret_cast<float2 *>(out));
}

extern "C" cudaError_t pith_cuda_append_decode(const pith_cuda_cache *c, const pith_cuda_windows *w,
                                               const pith_cuda_append *a, pith_cuda_follow follow,
                                               cudaStream_t stream) {
    return append(c, w, a, false, follow, stream);
}

extern "C" cudaError_t pith_cuda_append_prefill(const pith_cuda_cache *c, const pith_cuda_windows *w,
                                                const pith_cuda_append *a, cudaStream_t stream) {
    return append(c, w, a, true, PITH_CUDA_AFTER, stream);
}
