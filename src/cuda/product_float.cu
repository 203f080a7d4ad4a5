// Products of bf16 and f16 weights. A step is 64 k: two tiles of 32 rows, 8 KB. A warp's ring has two steps, one on its
// way while the other one is multiplied: with two blocks of four warps per SM 64 KB are on their way. On Hopper the
// card's tensor copies bring them (tiles.h), and a barrier in shared memory says that they are there; elsewhere the
// lanes copy them to the same places, 16 bytes at a time.
#include "cuda/product.cuh"
#include "cuda/tiles.h"

namespace pith {
namespace {

constexpr int DEPTH = 2;
constexpr uint32_t STEP = PITH_CUDA_TILE_K, STEP_BYTES = 2 * PITH_CUDA_TILE_BYTES;
static_assert(2 * PITH_CUDA_TILE_ROWS == PITH_SLAB);

struct FloatArgs {
    pith_tile_map map[PITH_CUDA_PRODUCT_MAX_MATRICES], map_up; // Hopper
    ProductArgs a;
};

// Where the rows of a slab's two tiles are.
struct Rows {
    const pith_tile_map *map[2];
    const uint16_t *w[2];
    uint32_t row[2], m, k;
    __device__ Rows(const FloatArgs &f, const ProductPart &p, const Place &at) {
        const bool two = p.w_up != nullptr;
        map[0] = &f.map[at.which], map[1] = two ? &f.map_up : map[0];
        w[0] = (const uint16_t *)p.w, w[1] = two ? (const uint16_t *)p.w_up : w[0];
        row[0] = at.slab * (two ? PITH_SLAB / 2 : PITH_SLAB), row[1] = row[0] + (two ? 0 : PITH_SLAB / 2);
        m = p.m, k = f.a.k;
    }
};

// A warp's steps in shared memory. All lanes call all of it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
struct Ring : Arrivals<DEPTH> {
    uint8_t *slots;
    uint32_t lane;
    __device__ Ring(uint8_t *slots_, uint64_t *full_, uint32_t lane_)
        : Arrivals(full_, lane_), slots(slots_), lane(lane_) {}
    // The last reader of what is overwritten is behind a barrier of the warp.
    __device__ __forceinline__ void ask(int d, const Rows &rows, uint32_t step, bool is_there) {
        if (lane || !is_there) return;
        barrier_expect(&full[d], STEP_BYTES);
#pragma unroll
        for (int i = 0; i < 2; i++)
            copy_tile(slots + d * STEP_BYTES + i * PITH_CUDA_TILE_BYTES, rows.map[i], step * STEP, rows.row[i],
                      &full[d]);
    }
};
#else
struct Ring {
    uint8_t *slots;
    uint32_t lane;
    __device__ Ring(uint8_t *slots_, uint64_t *, uint32_t lane_) : slots(slots_), lane(lane_) {}
    __device__ void ask(int d, const Rows &rows, uint32_t step, bool is_there) {
        constexpr uint32_t PIECES = PITH_CUDA_TILE_K / 8; // of 16 bytes, in a row
        for (uint32_t i = lane; is_there && i < 2 * PITH_CUDA_TILE_ROWS * PIECES; i += 32) {
            const uint32_t tile = i / PIECES / PITH_CUDA_TILE_ROWS, r = i / PIECES % PITH_CUDA_TILE_ROWS,
                           c = i % PIECES;
            const uint32_t row = rows.row[tile] + r, k = step * STEP + c * 8;
            const bool inside = row < rows.m && k < rows.k;
            copy16_async(slots + d * STEP_BYTES + tile * PITH_CUDA_TILE_BYTES + r * 128 + (c ^ r % 8) * 16,
                         rows.w[tile] + (inside ? (size_t)row * rows.k + k : 0), inside);
        }
        copies_commit(); // also nothing: the number of those behind a step is always the same
    }
    __device__ void wait(int, uint32_t) {
        copies_wait<DEPTH - 1>();
        __syncwarp();
    }
};
#endif

// Activations of half h of a step. Past the end of k, where weights are zeros, some that are there.
template <int NT>
__device__ __forceinline__ void load_half(uint4 (&x)[NT], const ProductArgs &a, const uint32_t (&at)[NT], uint32_t step,
                                          int h, uint32_t t) {
    const uint32_t k = min(step * STEP + (2 * t + h) * 8, a.k - 8);
#pragma unroll
    for (int nt = 0; nt < NT; nt++) x[nt] = load_x((const uint16_t *)a.x + at[nt] + k);
}

// Half of a step: pieces 2 t + h of the lane's rows.
template <typename T16, int NT>
__device__ __forceinline__ void multiply_half(float (&c)[TILES][NT][4], const uint8_t *slot, const uint4 (&x)[NT],
                                              int h, uint32_t g, uint32_t t) {
    uint4 v[2 * TILES]; // of row g, then of row g + 8, of each 16 rows
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) v[i] = *(const uint4 *)(slot + (i * 8 + g) * 128 + ((2 * t + h) ^ g) * 16);
#pragma unroll
    for (int mt = 0; mt < TILES; mt++) {
        const uint4 &lo = v[2 * mt], &hi = v[2 * mt + 1];
        const uint32_t first[4] = {lo.x, hi.x, lo.y, hi.y}, second[4] = {lo.z, hi.z, lo.w, hi.w};
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            mma<T16>(c[mt][nt], first, x[nt].x, x[nt].y);
            mma<T16>(c[mt][nt], second, x[nt].z, x[nt].w);
        }
    }
}

template <typename T16, int NT>
__global__ void __launch_bounds__(THREADS, FLOAT_BLOCKS) float_kernel(const __grid_constant__ FloatArgs f) {
    constexpr bool X_AHEAD = NT <= 2; // where registers allow, activations come a step early
    const ProductArgs &a = f.a;
    PITH_CUDA_DYNAMIC_SHARED(uint8_t, shared); // slots of the warps, then sums
    __shared__ float total[8 * NT * TOTAL_ROWS];
    __shared__ uint64_t full[WARPS][DEPTH];

    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint8_t *memory =
        shared + (1024 - shared_address(shared) % 1024) % 1024; // eight rows: where the order of pieces begins
    const Place place(a);
    const ProductPart &p = a.part[place.which];

    // Turns: the warps that share the slab take one step each, block by block; a warp's next step is one turn later.
    const uint32_t turn = WARPS * a.n_parts, n_steps = (a.k + STEP - 1) / STEP;
    uint32_t step = place.part * WARPS + warp;

    let_next_start_early(a.early);
    const Rows rows(f, p, place);
    Ring ring(memory + warp * DEPTH * STEP_BYTES, full[warp], lane);
#pragma unroll
    for (int d = 0; d < DEPTH; d++) ring.ask(d, rows, step + d * turn, step + d * turn < n_steps);
    const Finish finish(a, p, place.slab, place.part);

    wait_and_let_next_start(a.early);

    uint32_t x_at[NT]; // tokens past the end read the last one; a token's column meets no other
#pragma unroll
    for (int nt = 0; nt < NT; nt++) x_at[nt] = min(nt * 8 + g, a.n - 1) * a.k;
    float c[TILES][NT][4] = {};
    uint4 x[X_AHEAD ? 2 : 1][X_AHEAD ? 2 : 1][NT];
    for (int h = 0; X_AHEAD && h < 2 && step < n_steps; h++) load_half<NT>(x[0][X_AHEAD ? h : 0], a, x_at, step, h, t);
    for (uint32_t parity = 0; step < n_steps; parity ^= 1) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) { // activations take turns as steps do
            if (step >= n_steps) break;
#pragma unroll
            for (int h = 0; X_AHEAD && h < 2; h++)
                if (step + turn < n_steps)
                    load_half<NT>(x[X_AHEAD ? 1 - d : 0][X_AHEAD ? h : 0], a, x_at, step + turn, h, t);
            ring.wait(d, parity);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (!X_AHEAD) load_half<NT>(x[0][0], a, x_at, step, h, t);
                multiply_half<T16, NT>(c, ring.slots + d * STEP_BYTES, x[X_AHEAD ? d : 0][X_AHEAD ? h : 0], h, g, t);
            }
            __syncwarp(); // the slot is read
            ring.ask(d, rows, step + DEPTH * turn, step + DEPTH * turn < n_steps);
            step += turn;
        }
    }

    __syncthreads(); // all slots are free
    add_warps<NT>(c, (float *)(void *)memory, total);
    finish.template store<T16>(a, p, place.part, total);
}

template <typename T16, int NT>
cudaError_t launch(const FloatArgs &f, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t s) {
    constexpr size_t SLOTS = WARPS * DEPTH * STEP_BYTES, SUMS = WARPS * 8 * NT * (16 * tiles_at_once(NT) + 4) * 4;
    static_assert(SUMS <= SLOTS);
    return launch_product(float_kernel<T16, NT>, f, n_blocks, SLOTS + 1024, follow, s);
}

template <typename T16>
cudaError_t launch_tokens(const FloatArgs &f, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t s) {
    switch ((f.a.n + 7) / 8) {
    case 1: return launch<T16, 1>(f, n_blocks, follow, s);
    case 2: return launch<T16, 2>(f, n_blocks, follow, s);
    case 3: return launch<T16, 3>(f, n_blocks, follow, s);
    case 4: return launch<T16, 4>(f, n_blocks, follow, s);
    case 5:
    case 6: return launch<T16, 6>(f, n_blocks, follow, s);
    default: return launch<T16, 8>(f, n_blocks, follow, s);
    }
}

} // namespace

cudaError_t launch_float(pith_cuda_type type, const ProductArgs &a, uint32_t n_blocks, bool hopper,
                         pith_cuda_follow follow, cudaStream_t s) {
    FloatArgs f = {};
    f.a = a;
    cudaError_t e = cudaSuccess;
    for (uint32_t i = 0; hopper && !e && i < PITH_CUDA_PRODUCT_MAX_MATRICES && a.part[i].w; i++)
        e = pith_cuda_map_tiles(&f.map[i], a.part[i].w, a.part[i].m, a.k);
    if (hopper && !e && a.part[0].w_up) e = pith_cuda_map_tiles(&f.map_up, a.part[0].w_up, a.part[0].m, a.k);
    if (e) return e;
    return type == PITH_CUDA_BF16 ? launch_tokens<__nv_bfloat16>(f, n_blocks, follow, s)
                                  : launch_tokens<__half>(f, n_blocks, follow, s);
}

} // namespace pith
