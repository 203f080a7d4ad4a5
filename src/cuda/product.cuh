// The kernel behind product.h, for one weight format and number of token tiles.
//
// A block is four warps and computes 64 rows of W (a slab) for all tokens. Its warps share no rows and no activations:
// each takes every fourth *step* of 32 k and multiplies all 64 rows of it, so weights and activations go from memory to
// registers as tensor core operands, 16 bytes per load, without an exchange and without a barrier until the sums are
// added at the end. Since the order of k inside a step is free, a lane's 16 bytes (8 consecutive k of its row) serve as
// the operands of two instructions, and activations are read by the same rule: neither is shuffled.
//
// Bound: bytes of W. To keep 4.2 TB/s busy over a latency of about 0.7 us, 3 MB must be on their way, 22 KB per SM. A
// warp holds DEPTH steps, of which all but the one that it multiplies are on their way: 4 KB each in bf16, 2.1 KB in
// Q8_0, 1.1 KB in four bits. With 12 warps per SM (up to 16 tokens) those are 96 or 48 KB in bf16, 76 KB in Q8_0, 69 KB
// in four bits; with 8 (more tokens) 32, 50 and 27. Three blocks per SM were measured to be best.
//
// Packed weights are held in shared memory, where asynchronous copies bring them: these are waited for in their order.
// Held in registers they are not, since the compiler counts all of a warp's loads together and one that is waited for
// waits for those behind it; that is how bf16 and f16 still are, whose steps are larger than the waits between them.
//
// Activations come from L1 and L2: n/64 bytes for each byte of W, which is why a block has 64 rows and not 16.
//
// A slab of a matrix with few rows is shared by up to eight blocks, which take turns of four steps each; their sums are
// the parts that product.h speaks of. Clusters that added them up through distributed shared memory were slower: two
// barriers, and a cluster that finds no room in one group of multiprocessors waits for another's end. The order of a
// sum: steps ascending within a warp, then warps, then blocks. The number of tokens changes none of it.
#ifndef PITH_CUDA_PRODUCT_CUH
#define PITH_CUDA_PRODUCT_CUH

#include "cuda/asm.cuh"
#include "cuda/chain.cuh"
#include "cuda/half.cuh"
#include "cuda/product.h"
#include "cuda/quant.cuh"

namespace pith {

constexpr int WARPS = 4, THREADS = 32 * WARPS, TILES = PITH_SLAB / 16;
constexpr int BLOCKS_PER_SM = 3; // for up to 16 tokens; product.cu cuts matrices for it

struct ProductPart {
    const void *w, *w_up;        // w_up: rows of the slab's second half; NULL: all 64 from w
    const float *bias, *bias_up; // (m)
    void *y;                     // (n, y_stride)
    size_t part_stride;
    uint32_t m, y_stride;
    uint32_t slabs_end; // of this part and those before it
    uint32_t n_slabs;
};
struct ProductArgs {
    ProductPart part[PITH_CUDA_PRODUCT_MAX_MATRICES];
    const void *x; // (n, k)
    uint32_t n, k;
    uint32_t n_parts; // blocks that share a slab
    pith_cuda_out out;
    bool early; // see chain.h
};

// ------------------------------------------------------------------------------------------------------- bf16 and f16

template <typename T16_> struct FloatRows {
    using T16 = T16_;
    static constexpr bool SPLIT_X = false, IN_SHARED = false;
    static constexpr uint32_t SLOT_BYTES = 0;
    static constexpr uint32_t MAX_TOKENS = 64;
    __host__ __device__ static constexpr int depth(int nt) { return nt <= 1 ? 3 : 2; }
    __host__ __device__ static constexpr int blocks_per_sm(int nt) { return nt <= 2 ? BLOCKS_PER_SM : 2; }
    __host__ __device__ static constexpr bool x_ahead(int nt) { return nt <= 2; }
    struct Stage {
        uint4 v[2 * TILES]; // 8 k of row g, then of row g + 8, of each 16-row tile
    };
    const uint4 *w[2];      // of the slab's halves
    uint32_t at[2 * TILES]; // of the lane's rows, in 16 bytes: (152064, 3584) has 2^26 of them

    // Rows past the end read the last one; their sums are never stored.
    __device__ FloatRows(const ProductArgs &a, const ProductPart &p, uint32_t slab, uint32_t lane) {
        const bool two = p.w_up != nullptr;
        w[0] = (const uint4 *)p.w, w[1] = two ? (const uint4 *)p.w_up : w[0];
        const uint32_t half_rows = two ? 0 : PITH_SLAB / 2, row0 = slab * (two ? PITH_SLAB / 2 : PITH_SLAB);
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            const uint32_t local = i / 2 % 2 * 16 + i % 2 * 8 + lane / 4 + (i < TILES ? 0 : half_rows);
            at[i] = min(row0 + local, p.m - 1) * (a.k / 8) + lane % 4;
        }
    }
    __device__ void load(Stage &s, uint32_t step) const {
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) s.v[i] = load_weights(w[i / TILES] + at[i] + step * 4);
    }
    template <int NT>
    __device__ static void multiply(float (&c)[TILES][NT][4], const Stage &s, const uint4 (&x)[NT], float4 *,
                                    uint32_t) {
#pragma unroll
        for (int mt = 0; mt < TILES; mt++) {
            const uint4 &g = s.v[2 * mt], &h = s.v[2 * mt + 1];
            const uint32_t first[4] = {g.x, h.x, g.y, h.y}, second[4] = {g.z, h.z, g.w, h.w};
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                mma<T16>(c[mt][nt], first, x[nt].x, x[nt].y);
                mma<T16>(c[mt][nt], second, x[nt].z, x[nt].w);
            }
        }
    }
};

// ---------------------------------------------------------------------------------------------------------- quantised

template <pith_cuda_type TYPE> __host__ __device__ constexpr pith_quant_layout layout_known() {
    return TYPE == PITH_CUDA_Q8_0   ? pith_quant_layout{2048, 128, 0, 32, 34}
           : TYPE == PITH_CUDA_Q4_0 ? pith_quant_layout{1024, 128, 0, 32, 18}
           : TYPE == PITH_CUDA_Q4_K ? pith_quant_layout{1024, 128, 256, 256, 144}
                                    : pith_quant_layout{1536, 128, 128, 256, 210};
}

template <pith_cuda_type TYPE> struct QuantRows {
    using T16 = __nv_bfloat16;
    static constexpr bool SPLIT_X = TYPE == PITH_CUDA_Q6_K, IN_SHARED = true;
    static constexpr pith_quant_layout LAYOUT = layout_known<TYPE>();
    static constexpr uint32_t SLOT_BYTES = LAYOUT.code_bytes + LAYOUT.scale_bytes + LAYOUT.super_bytes;
    static constexpr uint32_t MAX_TOKENS = 32;
    // K types hold more registers per step: activations come late.
    static constexpr bool WIDE = Tile<TYPE>::HAS_SUPER, FEW_BYTES = LAYOUT.code_bytes == 1024;
    __host__ __device__ static constexpr int depth(int nt) { return FEW_BYTES && nt <= 2 ? 6 : 4; }
    __host__ __device__ static constexpr int blocks_per_sm(int nt) { return nt <= 2 ? BLOCKS_PER_SM : 2; }
    __host__ __device__ static constexpr bool x_ahead(int nt) { return nt <= (WIDE ? 1 : 2); }
    using Stage = Tile<TYPE>;
    const uint8_t *codes, *scales, *supers; // of this slab, at this lane

    __device__ QuantRows(const ProductArgs &a, const ProductPart &p, uint32_t slab, uint32_t lane) {
        const TileAt at = tile_at<TYPE>(p.n_slabs, a.k, slab, 0, lane);
        const uint8_t *w = (const uint8_t *)p.w;
        codes = w + at.code, scales = w + at.scale, supers = w + at.super;
    }
    // A slot of shared memory has a step as the planes have it. Each lane reads what it has copied itself.
    __device__ void copy(uint8_t *slot, uint32_t step, uint32_t lane) const {
        constexpr pith_quant_layout l = LAYOUT;
#pragma unroll
        for (int i = 0; i < Stage::CODE_LOADS; i++)
            copy_weights16_async(slot + i * 512 + lane * 16, codes + (size_t)step * l.code_bytes + i * 512);
        copy_weights_async<4>(slot + l.code_bytes + lane * 4, scales + (size_t)step * l.scale_bytes);
        if constexpr (l.super_bytes > 0)
            copy_weights_async<l.super_bytes / 32>(slot + l.code_bytes + l.scale_bytes + lane * (l.super_bytes / 32),
                                                   supers + (size_t)(step / (PITH_SUPER / PITH_STEP)) * l.super_bytes);
    }
    __device__ static void take(Stage &s, const uint8_t *slot, uint32_t lane) {
        constexpr pith_quant_layout l = LAYOUT;
#pragma unroll
        for (int i = 0; i < Stage::CODE_LOADS; i++) s.code[i] = *(const uint4 *)(slot + i * 512 + lane * 16);
        s.scale = *(const uint32_t *)(slot + l.code_bytes + lane * 4);
        const uint8_t *super = slot + l.code_bytes + l.scale_bytes;
        if constexpr (TYPE == PITH_CUDA_Q4_K) s.super = *(const uint2 *)(super + lane * 8);
        if constexpr (TYPE == PITH_CUDA_Q6_K) s.super.x = *(const uint32_t *)(super + lane * 4);
    }
    // The four lanes of a row all need the scales of eight rows. Each lane makes those of one pair and the warp
    // exchanges them: `scratch` is (32) of this warp, another one in the next step, so that one barrier of the warp is
    // enough.
    template <int NT>
    __device__ static void multiply(float (&c)[TILES][NT][4], const Stage &s, const uint4 (&x)[NT], float4 *scratch,
                                    uint32_t lane) {
        float4 scales = s.scales();
        if constexpr (TYPE == PITH_CUDA_Q4_K) scales.y *= 1 / 128.f, scales.w *= 1 / 128.f; // see below
        scratch[lane] = scales;
        __syncwarp();
        // Codes are multiplied with the type's zero in them (quant.cuh), and sums begin with what that brings too much:
        // minus zero times the activations, which is the same in every row. Q4_K's is 128, and its minimum multiplies
        // the activations' sum too: 1 / -128 of it. Q6_K has two scales: x for the first half of k, y for the second.
        constexpr bool HAS_ZERO = Stage::MINUS_ZERO != 0, TWO = TYPE == PITH_CUDA_Q6_K;
        float zero[NT][TWO ? 2 : 1][4] = {};
        if constexpr (HAS_ZERO) {
            const uint32_t all[4] = {Stage::MINUS_ZERO, Stage::MINUS_ZERO, Stage::MINUS_ZERO, Stage::MINUS_ZERO};
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                mma<T16>(zero[nt][0], all, x[nt].x, x[nt].y);
                mma<T16>(zero[nt][TWO], all, x[nt].z, x[nt].w);
            }
        }
#pragma unroll
        for (int mt = 0; mt < TILES; mt++) {
            const uint32_t first[4] = {s.raw(mt, 0, 0), s.raw(mt, 1, 0), s.raw(mt, 0, 1), s.raw(mt, 1, 1)};
            const uint32_t second[4] = {s.raw(mt, 0, 2), s.raw(mt, 1, 2), s.raw(mt, 0, 3), s.raw(mt, 1, 3)};
            if (NT == 4 || (NT == 2 && WIDE))
                __syncwarp(); // keeps the compiler from decoding every tile first: registers are short
            const float4 q = scratch[mt * 8 + lane / 4];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const float(&z)[4] = zero[nt][0];
                float d[4];
                float(&y)[4] = c[mt][nt];
                mma_from<T16>(d, z, first, x[nt].x, x[nt].y);
                if constexpr (TWO) {
                    float e[4];
                    mma_from<T16>(e, zero[nt][TWO], second, x[nt].z, x[nt].w);
                    y[0] = fmaf(q.y, e[0], fmaf(q.x, d[0], y[0])), y[1] = fmaf(q.y, e[1], fmaf(q.x, d[1], y[1]));
                    y[2] = fmaf(q.w, e[2], fmaf(q.z, d[2], y[2])), y[3] = fmaf(q.w, e[3], fmaf(q.z, d[3], y[3]));
                } else {
                    mma<T16>(d, second, x[nt].z, x[nt].w);
                    y[0] = fmaf(q.x, d[0], y[0]), y[1] = fmaf(q.x, d[1], y[1]);
                    y[2] = fmaf(q.z, d[2], y[2]), y[3] = fmaf(q.z, d[3], y[3]);
                }
                if constexpr (TYPE == PITH_CUDA_Q4_K) {
                    y[0] = fmaf(q.y, z[0], y[0]), y[1] = fmaf(q.y, z[1], y[1]);
                    y[2] = fmaf(q.w, z[0], y[2]), y[3] = fmaf(q.w, z[1], y[3]);
                }
            }
        }
    }
};

// --------------------------------------------------------------------------------------------------------- the kernel

// The 16-row tiles whose sums the warps exchange at a time, so that shared memory stays below 48 KB for 64 tokens.
__host__ __device__ constexpr int tiles_at_once(int nt) { return nt <= 2 ? 4 : nt <= 4 ? 2 : 1; }

// Adds the warps' sums in their order: total (8 NT, TOTAL_ROWS). Rows are padded by 4: lanes of one store fall on 32
// banks.
constexpr int TOTAL_ROWS = PITH_SLAB + 4;
template <int NT> __device__ __forceinline__ void add_warps(const float (&c)[TILES][NT][4], float *part, float *total) {
    constexpr int AT_ONCE = tiles_at_once(NT), ROWS = 16 * AT_ONCE + 4, TOKENS = 8 * NT;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int first = 0; first < TILES; first += AT_ONCE) {
        if (first) __syncthreads();
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++)
#pragma unroll
                for (int j = 0; j < 4; j++) // part is (WARPS, TOKENS, ROWS)
                    part[(warp * TOKENS + nt * 8 + 2 * t + j % 2) * ROWS + i * 16 + g + j / 2 * 8] =
                        c[first + i][nt][j];
        __syncthreads();
        for (uint32_t e = threadIdx.x; e < TOKENS * 16 * AT_ONCE; e += THREADS) {
            const uint32_t row = e % (16 * AT_ONCE), token = e / (16 * AT_ONCE);
            float v = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++) v += part[(w * TOKENS + token) * ROWS + row];
            total[token * TOTAL_ROWS + first * 16 + row] = v;
        }
    }
    __syncthreads();
}

// The rows that a block finishes: a thread has one of them, for every token or every few.
struct Finish {
    uint32_t row, local, token, n_together; // of the matrix, of the slab; its first token; tokens at a time
    bool is_real;
    float bias, bias_up; // asked for long before they are needed
    __device__ Finish(const ProductArgs &a, const ProductPart &p, uint32_t slab, uint32_t part) {
        const uint32_t slab_rows = a.out == PITH_CUDA_OUT_SWIGLU ? PITH_SLAB / 2 : PITH_SLAB;
        local = threadIdx.x % slab_rows, token = threadIdx.x / slab_rows, n_together = THREADS / slab_rows;
        row = slab * slab_rows + local;
        is_real = row < p.m;
        bias = is_real && p.bias && part == 0 ? p.bias[row] : 0.f;
        bias_up = is_real && p.bias_up ? p.bias_up[row] : 0.f;
    }
    template <typename T16>
    __device__ void store(const ProductArgs &a, const ProductPart &p, uint32_t part, const float *total) const {
        if (!is_real) return;
        for (uint32_t t = token; t < a.n; t += n_together) {
            const float *at = total + t * TOTAL_ROWS + local;
            const size_t out = (size_t)t * p.y_stride + row;
            float v = at[0] + bias;
            if (a.out == PITH_CUDA_OUT_SWIGLU) v = v / (1.f + __expf(-v)) * (at[PITH_SLAB / 2] + bias_up);
            if (a.out == PITH_CUDA_OUT_F32) ((float *)p.y)[out] = v;
            else if (a.out == PITH_CUDA_OUT_PARTS) ((float *)p.y)[part * p.part_stride + out] = v;
            else ((uint16_t *)p.y)[out] = to16(v, T16());
        }
    }
};

template <class Rows, int NT>
__device__ __forceinline__ void load_step_x(uint4 (&x)[NT], const uint16_t *x0, const uint32_t (&at)[NT],
                                            uint32_t step) {
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        const uint16_t *p = x0 + at[nt] + step * PITH_STEP;
        if constexpr (Rows::SPLIT_X) {
            const uint2 first = load_x8(p), second = load_x8(p + 16);
            x[nt] = uint4{first.x, first.y, second.x, second.y};
        } else x[nt] = load_x(p);
    }
}

template <class Rows, int NT>
__global__ void __launch_bounds__(THREADS, Rows::blocks_per_sm(NT))
    product_kernel(const __grid_constant__ ProductArgs a) {
    using T16 = typename Rows::T16;
    constexpr int DEPTH = Rows::depth(NT);
    constexpr int BUFFERS = DEPTH % 2 ? DEPTH : 2; // of activations and of scales, which take turns
    constexpr bool X_AHEAD = Rows::x_ahead(NT);    // where registers allow, activations come a step early too
    constexpr bool IN_SHARED = Rows::IN_SHARED;
    constexpr uint32_t PART_BYTES = WARPS * 8 * NT * (16 * tiles_at_once(NT) + 4) * sizeof(float);
    constexpr uint32_t SLOTS_BYTES = WARPS * DEPTH * Rows::SLOT_BYTES;
    __shared__ uint4 memory[(PART_BYTES > SLOTS_BYTES ? PART_BYTES : SLOTS_BYTES) / sizeof(uint4)]; // slots, then sums
    __shared__ float total[8 * NT * TOTAL_ROWS];
    __shared__ float4 scratch[WARPS][BUFFERS][32];

    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t part = blockIdx.x % a.n_parts;
    uint32_t slab = blockIdx.x / a.n_parts, which = 0;
    while (slab >= a.part[which].slabs_end) which++;
    if (which) slab -= a.part[which - 1].slabs_end;
    const ProductPart &p = a.part[which];

    // Turns: the warps that share the slab take one step each, block by block; a warp's next step is one turn later.
    const uint32_t turn = WARPS * a.n_parts, n_steps = a.k / PITH_STEP;
    uint32_t step = part * WARPS + warp;

    let_next_start_early(a.early);
    const Rows rows(a, p, slab, lane);
    typename Rows::Stage stage[IN_SHARED ? 1 : DEPTH];
    [[maybe_unused]] uint8_t *slots = (uint8_t *)memory + warp * DEPTH * Rows::SLOT_BYTES;
    const auto ask = [&](int d, uint32_t at) {
        if constexpr (IN_SHARED) {
            if (at < n_steps) rows.copy(slots + d * Rows::SLOT_BYTES, at, lane);
            copies_commit(); // also nothing: the number of those behind a step is always the same
        } else if (at < n_steps) rows.load(stage[d], at);
    };
#pragma unroll
    for (int d = 0; d < DEPTH; d++) ask(d, step + d * turn);
    const Finish finish(a, p, slab, part);

    wait_and_let_next_start(a.early);

    const uint16_t *x0 = (const uint16_t *)a.x + (Rows::SPLIT_X ? 4 : 8) * t;
    uint32_t x_at[NT]; // tokens past the end read the last one; a token's column meets no other
#pragma unroll
    for (int nt = 0; nt < NT; nt++) x_at[nt] = min(nt * 8 + g, a.n - 1) * a.k;

    float c[TILES][NT][4] = {};
    uint4 x[X_AHEAD ? BUFFERS : 1][NT];
    if (X_AHEAD && step < n_steps) load_step_x<Rows, NT>(x[0], x0, x_at, step);
    while (step < n_steps) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            if (step >= n_steps) break;
            if (!X_AHEAD) load_step_x<Rows, NT>(x[0], x0, x_at, step);
            else if (step + turn < n_steps)
                load_step_x<Rows, NT>(x[X_AHEAD ? (d + 1) % BUFFERS : 0], x0, x_at, step + turn);
            if constexpr (IN_SHARED) {
                copies_wait<DEPTH - 1>();
                Rows::take(stage[0], slots + d * Rows::SLOT_BYTES, lane);
            }
            Rows::template multiply<NT>(c, stage[IN_SHARED ? 0 : d], x[X_AHEAD ? d % BUFFERS : 0],
                                        scratch[warp][d % BUFFERS], lane);
            ask(d, step + DEPTH * turn);
            step += turn;
        }
    }

    if (IN_SHARED) __syncthreads(); // all slots are free
    add_warps<NT>(c, (float *)memory, total);
    finish.template store<T16>(a, p, part, total);
}

// -------------------------------------------------------------------------------------------------------------- launch

template <class Rows, int NT>
cudaError_t launch(ProductArgs a, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t stream) {
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(n_blocks), config.blockDim = dim3(THREADS);
    config.stream = stream;
    const cudaError_t e = add_follow(config, &attribute, product_kernel<Rows, NT>, follow);
    return e ? e : cudaLaunchKernelEx(&config, product_kernel<Rows, NT>, a);
}

// Quantised formats stop at 32 tokens, where registers do: product.cu gives them more in two launches.
template <class Rows>
cudaError_t launch_tokens(const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t s) {
    switch ((a.n + 7) / 8) {
    case 1: return launch<Rows, 1>(a, n_blocks, follow, s);
    case 2: return launch<Rows, 2>(a, n_blocks, follow, s);
    case 3: return launch<Rows, 3>(a, n_blocks, follow, s);
    case 4: return launch<Rows, 4>(a, n_blocks, follow, s);
    default: break;
    }
    if constexpr (Rows::MAX_TOKENS > 32) {
        if (a.n <= 48) return launch<Rows, 6>(a, n_blocks, follow, s);
        return launch<Rows, 8>(a, n_blocks, follow, s);
    }
    return cudaErrorInvalidValue;
}

// One for each group of formats, so that they compile apart.
cudaError_t launch_float(pith_cuda_type, const ProductArgs &, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t);
cudaError_t launch_quant(pith_cuda_type, const ProductArgs &, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t);

} // namespace pith

#endif
