// Bound: tensor cores. 4 d operations per (query head, row) pair; a chunk of 1024 tokens of a 7B model behind 8192 rows
// is 0.13 TFLOP a layer.
//
// The tokens of the chunk and the g query heads of a KV head are one list of n g query rows, token-major, so that no
// tile is padded whatever g is. A block takes 64 of them, 16 per warp, and walks the lane's pages from the first to the
// last that any of its tokens sees; the next page is copied to shared memory while the current one is used. Pages lie
// at fixed rows of the lane and are taken whole, so a token's sums run in the same order in any chunk: a page that it
// does not see adds weights of exactly 0.
#include "cuda/attend_prefill.h"

#include <math.h>

#include "cuda/cache.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32, TILE = 16 * WARPS;
constexpr int ROWS = PITH_PAGE_ROWS;

struct attend_args {
    sections at;
    const int32_t *pages, *first, *n_rows, *seq;
    const uint16_t *q;
    uint16_t *out;
    uint32_t layer, n_layers, H, G, n;
    bool out_bf16;
};

// Rows in shared memory are 16 bytes longer than 2 D: eight of them start in different banks.
template <int D> struct stage {
    static constexpr int STRIDE = D + 8; // elements
    uint16_t k[ROWS * STRIDE], v[ROWS * STRIDE];
};

// A page to shared memory; rows behind the lane's end become 0, since 0 times the garbage there need not be 0.
template <int D> __device__ void fetch(stage<D> *to, const sections &at, int32_t id, uint32_t n_valid) {
    constexpr int PIECES = D / 8; // of 16 bytes per row
    const uint8_t *k = page_k(at, id), *v = page_v(at, id);
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
        const int r = i / PIECES, c = i % PIECES;
        copy16_async(&to->k[r * stage<D>::STRIDE + c * 8], k + (size_t)i * 16, r < (int)n_valid);
        copy16_async(&to->v[r * stage<D>::STRIDE + c * 8], v + (size_t)i * 16, r < (int)n_valid);
    }
    copies_commit();
}

template <int D, bool BF16> __global__ void __launch_bounds__(THREADS, D <= 128 ? 3 : 1) attend_kernel(attend_args p) {
    PITH_CUDA_DYNAMIC_SHARED(uint8_t, memory);
    stage<D> *stages = reinterpret_cast<stage<D> *>(memory); // (2)
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t g = p.H / p.G, kv = blockIdx.y, n_queries = p.n * g;
    // The longest-lasting tiles, those of the last tokens, start first.
    const uint32_t tile = (gridDim.x - 1 - blockIdx.x) * TILE;

    const size_t entry = ((size_t)p.seq[0] * p.n_layers + p.layer) * p.G + kv;
    const uint32_t n_rows = (uint32_t)p.n_rows[entry], first_row = n_rows - p.n;
    const int32_t *ids = p.pages + p.first[entry];
    const uint32_t last_token = min(tile + TILE, n_queries) - 1;
    const uint32_t n_pages = (first_row + last_token / g) / ROWS + 1;

    fetch<D>(&stages[0], p.at, ids[0], n_rows);

    // This lane's query rows and what they see: rows [0, seen).
    uint32_t query[2], seen[2];
    size_t at[2]; // element of q and out
#pragma unroll
    for (int a = 0; a < 2; a++) {
        query[a] = tile + warp * 16 + pr + 8 * a;
        const uint32_t valid = min(query[a], n_queries - 1), token = valid / g;
        seen[a] = first_row + token + 1;
        at[a] = ((size_t)token * p.H + kv * g + valid % g) * D;
    }
    uint32_t qf[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; i++)
#pragma unroll
        for (int a = 0; a < 4; a++)
            qf[i][a] = *reinterpret_cast<const uint32_t *>(p.q + at[a & 1] + i * 16 + 2 * t + 8 * (a >> 1));

    const float scale = 1.4426950408889634f / sqrtf((float)D);
    float acc[D / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < D / 8; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.0f;

    for (uint32_t page = 0; page < n_pages; page++) {
        const uint32_t row0 = page * ROWS;
        if (page + 1 < n_pages) {
            fetch<D>(&stages[(page + 1) % 2], p.at, ids[page + 1], n_rows - (row0 + ROWS));
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const stage<D> &now = stages[page % 2];

        float s[ROWS / 8][4];
#pragma unroll
        for (int j = 0; j < ROWS / 8; j++) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < ROWS / 16; j++) {
                uint32_t b[4]; // rows 16 j .. +7 and +8 .. +15, each elements 16 i .. +7 and +8 .. +15
                load_matrix4(
                    b, &now.k[(16 * j + lane % 8 + lane / 16 * 8) * stage<D>::STRIDE + 16 * i + lane / 8 % 2 * 8]);
                mma<BF16>(s[2 * j], qf[i], b[0], b[1]);
                mma<BF16>(s[2 * j + 1], qf[i], b[2], b[3]);
            }

        // Lane: query rows pr (a = 0) and pr + 8 (a = 1), cache rows 8 j + 2 t and the next.
        float c[2];
#pragma unroll
        for (int a = 0; a < 2; a++) {
            float top = -INFINITY;
#pragma unroll
            for (int j = 0; j < ROWS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = s[j][2 * a + e];
                    x = row0 + 8 * j + 2 * t + e < seen[a] ? __fmul_rn(x, scale) : -INFINITY;
                    top = fmaxf(top, x);
                }
            top = fmaxf(top, __shfl_xor_sync(FULL, top, 1));
            top = fmaxf(top, __shfl_xor_sync(FULL, top, 2));
            top = fmaxf(m[a], top);
            const float shift = soft_shift(top);
            c[a] = exp2f(m[a] - shift);
            m[a] = top;
#pragma unroll
            for (int j = 0; j < ROWS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) s[j][2 * a + e] = exp2f(s[j][2 * a + e] - shift);
        }
        uint32_t w[ROWS / 16][4];
        float sum[2] = {0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < ROWS / 8; j++)
#pragma unroll
            for (int a = 0; a < 2; a++) {
                const uint32_t packed = pack2<BF16>(s[j][2 * a], s[j][2 * a + 1]);
                const float2 rounded = unpack2<BF16>(packed); // the rounded weights are the ones that count
                sum[a] += rounded.x + rounded.y;
                w[j / 2][(j % 2) * 2 + a] = packed;
            }
        l[0] = fmaf(l[0], c[0], sum[0]), l[1] = fmaf(l[1], c[1], sum[1]);
#pragma unroll
        for (int i = 0; i < D / 8; i++) acc[i][0] *= c[0], acc[i][1] *= c[0], acc[i][2] *= c[1], acc[i][3] *= c[1];
#pragma unroll
        for (int j = 0; j < ROWS / 16; j++)
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                uint32_t b[4]; // rows 16 j .. +7 and +8 .. +15 of elements 16 i .. +7, then of +8 .. +15
                load_matrix4_trans(b, &now.v[(16 * j + lane % 16) * stage<D>::STRIDE + 16 * i + lane / 16 * 8]);
                mma<BF16>(acc[2 * i], w[j], b[0], b[1]);
                mma<BF16>(acc[2 * i + 1], w[j], b[2], b[3]);
            }
        __syncthreads(); // before this stage is written again
    }

#pragma unroll
    for (int a = 0; a < 2; a++) {
        l[a] += __shfl_xor_sync(FULL, l[a], 1);
        l[a] += __shfl_xor_sync(FULL, l[a], 2);
        if (query[a] >= n_queries) continue;
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            const float lo = l[a] == 0.0f ? 0.0f : acc[i][2 * a] / l[a],
                        hi = l[a] == 0.0f ? 0.0f : acc[i][2 * a + 1] / l[a];
            *reinterpret_cast<uint32_t *>(p.out + at[a] + 8 * i + 2 * t) =
                p.out_bf16 ? pack2<true>(lo, hi) : pack2<false>(lo, hi);
        }
    }
}

using kernel = void (*)(attend_args);
struct choice {
    kernel run;
    size_t shared;
};

template <int D> choice of_dim(pith_half type) {
    return {type == PITH_HALF_BF16 ? (kernel)attend_kernel<D, true> : (kernel)attend_kernel<D, false>,
            2 * sizeof(stage<D>)};
}
choice choice_for(const pith_geometry *geo, pith_half type) {
    if (geo->elt_bytes != 2) return {};
    switch (geo->head_dim) {
    case 64: return of_dim<64>(type);
    case 96: return of_dim<96>(type);
    case 128: return of_dim<128>(type);
    case 160: return of_dim<160>(type);
    case 192: return of_dim<192>(type);
    case 224: return of_dim<224>(type);
    case 256: return of_dim<256>(type);
    default: return {};
    }
}

} // namespace

extern "C" cudaError_t pith_cuda_attend_prefill_init(const pith_geometry *geo, pith_half type) {
    const choice c = choice_for(geo, type);
    if (!c.run) return cudaErrorInvalidValue;
    return cudaFuncSetAttribute(c.run, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)c.shared);
}

extern "C" cudaError_t pith_cuda_attend_prefill(const pith_cuda_cache *c, uint32_t layer, const uint16_t *q,
                                                const int32_t *seq, uint32_t n, uint16_t *out, pith_half out_type,
                                                cudaStream_t stream) {
    const choice k = choice_for(&c->geo, c->type);
    if (!k.run) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const attend_args args = {sections_of(*c),
                              c->pages,
                              c->first,
                              c->n_rows,
                              seq,
                              q,
                              out,
                              layer,
                              c->geo.n_layers,
                              c->geo.n_heads,
                              c->geo.n_kv_heads,
                              n,
                              out_type == PITH_HALF_BF16};
    const dim3 grid((n * (c->geo.n_heads / c->geo.n_kv_heads) + TILE - 1) / TILE, c->geo.n_kv_heads);
    return launch_kernel(k.run, grid, THREADS, k.shared, stream, args);
}
