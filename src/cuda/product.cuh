// What the kernels behind product.h share: product_float.cu has bf16 and f16, product_quant.cu packed weights.
//
// A block is four warps and computes 64 rows of W (a slab) for all tokens. Its warps share no rows and no activations:
// each takes every fourth step of k and multiplies all 64 rows of it, so there is no barrier until the sums are added
// at the end. Since the order of k inside a step is free, a lane's 16 bytes (8 consecutive k of its row) serve as the
// operands of two instructions, and activations are read by the same rule: neither is shuffled. They come from L1 and
// L2: n/64 bytes for each byte of W in bf16, which is why a block has 64 rows and not 16.
//
// Bound: bytes of W. To keep 4.2 TB/s busy over a latency of about 0.7 us, 3 MB must be on their way, 22 KB per SM. So
// each warp has a ring of steps in shared memory, which copies fill that nobody waits for but the warp itself.
//
// A slab of a matrix with few rows is shared by up to eight blocks, which take turns; their sums are the parts that
// product.h speaks of. Clusters that added them up through distributed shared memory were slower: two barriers, and a
// cluster that finds no room in one group of multiprocessors waits for another's end. The order of a sum: steps
// ascending within a warp, then warps, then blocks. The number of tokens changes none of it.
#ifndef PITH_CUDA_PRODUCT_CUH
#define PITH_CUDA_PRODUCT_CUH

#include "cuda/asm.cuh"
#include "cuda/chain.cuh"
#include "cuda/half.cuh"
#include "cuda/product.h"
#include "cuda/quant.cuh"

namespace pith {

constexpr int WARPS = 4, THREADS = 32 * WARPS, TILES = PITH_SLAB / 16;
// The card that launches are cut for: its multiprocessors, and the blocks that each has at a time for up to 16 tokens.
constexpr uint32_t SMS = 132;
constexpr int FLOAT_BLOCKS = 2, QUANT_BLOCKS = 3;

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

// ----------------------------------------------------------------------------------------------------------- the slab

// Which part of the launch a block works for, and which slab of it.
struct Place {
    uint32_t which, slab, part;
    __device__ explicit Place(const ProductArgs &a) {
        which = 0, part = blockIdx.x % a.n_parts, slab = blockIdx.x / a.n_parts;
        while (slab >= a.part[which].slabs_end) which++;
        if (which) slab -= a.part[which - 1].slabs_end;
    }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// ----------------------------------------------------------------------------------------------------------- the ring

// Of a warp's ring that the card's copies fill: a barrier for each slot, which says that its bytes have come. All lanes
// call all of it.
template <int DEPTH> struct Arrivals {
    uint64_t *full; // (DEPTH), shared
    __device__ Arrivals(uint64_t *full_, uint32_t lane) : full(full_) {
        if (lane == 0) {
            for (int d = 0; d < DEPTH; d++) barrier_begin(&full[d]);
            barriers_begun();
        }
        __syncwarp();
    }
    __device__ __forceinline__ void wait(int d, uint32_t parity) const { barrier_wait(&full[d], parity); }
};
#endif

// ----------------------------------------------------------------------------------------------------------- the sums

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

// -------------------------------------------------------------------------------------------------------------- launch

template <typename Args>
cudaError_t launch_product(void (*kernel)(Args), const Args &args, uint32_t n_blocks, size_t shared_bytes,
                           pith_cuda_follow follow, cudaStream_t stream) {
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(n_blocks), config.blockDim = dim3(THREADS), config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    cudaError_t e = cudaSuccess;
    if (shared_bytes) e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (!e) e = add_follow(config, &attribute, kernel, follow);
    return e ? e : cudaLaunchKernelEx(&config, kernel, args);
}

// One for each group of formats, so that they compile apart.
cudaError_t launch_float(pith_cuda_type, const ProductArgs &, uint32_t n_blocks, bool hopper, pith_cuda_follow follow,
                         cudaStream_t);
cudaError_t launch_quant(pith_cuda_type, const ProductArgs &, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t);

} // namespace pith

#endif
