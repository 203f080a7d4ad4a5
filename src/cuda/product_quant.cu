// Products of packed weights. They are multiplied as they are, integers, with activations that the warp rounds to 8
// bits (quant.cuh): a step of 32 k is one instruction for 16 rows and 8 tokens, two in Q6_K, and its sum is exact.
// Every warp rounds what it multiplies, which costs about 40 instructions for 8 tokens and a step, whatever the type.
//
// A warp's ring has 3 to 6 steps, 2.1 KB each in Q8_0, 1.1 or 1.4 KB in four bits. For up to 16 tokens a multiprocessor
// has 12 to 20 warps, whose rings are 100 to 140 KB. On Hopper the card copies whole steps; elsewhere each lane copies
// what it needs itself, since copies are waited for in their order, where the compiler counts all loads to registers
// together.
#include "cuda/product.cuh"

#include <type_traits>

namespace pith {
namespace {

template <pith_cuda_type TYPE> __host__ __device__ constexpr pith_quant_layout layout_known() {
    return TYPE == PITH_CUDA_Q8_0   ? pith_quant_layout{2048, 128, 0, 32, 34}
           : TYPE == PITH_CUDA_Q4_0 ? pith_quant_layout{1024, 128, 0, 32, 18}
           : TYPE == PITH_CUDA_Q4_K ? pith_quant_layout{1024, 128, 256, 256, 144}
                                    : pith_quant_layout{1536, 128, 128, 256, 210};
}

// Of the tensor core's operands a lane has eight bytes of a row and eight of a token, in the order in which the codes
// come out of their words. What is added to a row's sum is the same arithmetic for any number of tokens.
//
// ALONE: there is one token. A lane rounds one activation of a step and all take their bytes from shared memory, for
// the same token in all eight columns, so that the four lanes of a row all have its sums. Lane 4 g + t adds those of
// rows g and g + 8 of tile t, whose scales it holds itself.
template <pith_cuda_type TYPE_, bool ALONE_ = false> struct QuantRows {
    using T16 = __nv_bfloat16;
    using Stage = Tile<TYPE_>;
    static constexpr pith_cuda_type TYPE = TYPE_;
    static constexpr bool SPLIT_X = TYPE == PITH_CUDA_Q6_K, ALONE = ALONE_;
    static constexpr pith_quant_layout LAYOUT = layout_known<TYPE>();
    static constexpr uint32_t SLOT_BYTES = LAYOUT.code_bytes + LAYOUT.scale_bytes + LAYOUT.super_bytes;
    // K types hold more registers per step: activations come late.
    static constexpr bool WIDE = Tile<TYPE>::HAS_SUPER, FEW_BYTES = LAYOUT.code_bytes == 1024;
    // Q6_K has two scales, for the first and the second half of k, and two sums.
    static constexpr bool HAS_MIN = TYPE == PITH_CUDA_Q4_K, IS_SIGNED = TYPE == PITH_CUDA_Q8_0;
    static constexpr int SUMS = TYPE == PITH_CUDA_Q6_K ? 2 : 1;
    // What a multiprocessor can keep in shared memory goes into more blocks where a launch has more of them than fit at
    // a time, gate and up of a 7B model in one wave; else into deeper rings.
    __host__ __device__ static constexpr bool two_ways(int nt) {
        return nt == 1 && (FEW_BYTES || (ALONE && TYPE == PITH_CUDA_Q8_0));
    }
    __host__ __device__ static constexpr int depth(int nt, bool many) {
        if (two_ways(nt)) return FEW_BYTES ? (many ? 4 : 6) : (many ? 3 : 4);
        return FEW_BYTES && nt == 2 ? 6 : 4;
    }
    __host__ __device__ static constexpr int blocks_per_sm(int nt, bool many) {
        if (nt > 2) return 2;
        return !two_ways(nt) ? QUANT_BLOCKS : many ? 5 : FEW_BYTES ? 4 : 3;
    }
    __host__ __device__ static constexpr bool x_ahead(int nt) { return nt <= (WIDE ? 1 : 2); }
    [[maybe_unused]] float scale = 0; // ALONE: of the activations of the step whose turn it is

    // Whose scales a lane has.
    __device__ static uint32_t own(uint32_t lane) { return ALONE ? lane % 4 * 8 + lane / 4 : lane; }

    // A step in shared memory is as the planes have it.
    __device__ static void take(Stage &s, const uint8_t *slot, uint32_t lane) {
        constexpr pith_quant_layout l = LAYOUT;
#pragma unroll
        for (int i = 0; i < Stage::CODE_LOADS; i++) s.code[i] = *(const uint4 *)(slot + i * 512 + lane * 16);
        s.scale = *(const uint32_t *)(slot + l.code_bytes + own(lane) * 4);
        const uint8_t *super = slot + l.code_bytes + l.scale_bytes;
        if constexpr (TYPE == PITH_CUDA_Q4_K) s.super = *(const uint2 *)(super + own(lane) * 8);
        if constexpr (TYPE == PITH_CUDA_Q6_K) s.super.x = *(const uint32_t *)(super + own(lane) * 4);
    }

    // A step's activations of eight tokens as the tensor core wants them. The lane's bytes are of token g, everything
    // else of tokens 2 t and 2 t + 1: the scale, what sums begin with (minus the type's zero times the activations'
    // sum, the same in every row), and minus the activations' sum, scaled, which the minimum multiplies.
    struct Tokens {
        uint32_t bytes[SUMS][2], start[SUMS][4];
        float scale[2], minus_sum[2];
    };
    __device__ __forceinline__ static void split(Tokens &x, uint32_t first, uint32_t second) {
        x.bytes[0][0] = first, x.bytes[0][1] = second;
        if constexpr (SUMS == 2) { // bytes 1 and 3 are of the second half of k: zeros keep the other half out of a sum
            x.bytes[0][0] = first & 0x00ff00ffu, x.bytes[0][1] = second & 0x00ff00ffu;
            x.bytes[1][0] = first & 0xff00ff00u, x.bytes[1][1] = second & 0xff00ff00u;
        }
    }
    __device__ __forceinline__ static void sum_up(Tokens &x) { // bytes and scale are there
        constexpr uint32_t FACTOR = (HAS_MIN ? 1u : 256u - Stage::ZERO) * 0x01010101u;
        const uint32_t all[4] = {FACTOR, FACTOR, FACTOR, FACTOR};
        constexpr bool NEEDED = HAS_MIN || Stage::ZERO != 0;
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            uint32_t sum[4] = {SUM_START, SUM_START, SUM_START, SUM_START};
            if constexpr (NEEDED) mma_bytes<true>(sum, sum, all, x.bytes[i][0], x.bytes[i][1]);
#pragma unroll
            for (int j = 0; j < 4; j++) x.start[i][j] = HAS_MIN ? SUM_START : sum[j];
#pragma unroll
            for (int j = 0; HAS_MIN && j < 2; j++) x.minus_sum[j] = x.scale[j] * (SUM_START_FLOAT - float_of(sum[j]));
        }
    }
    // Four activations rounded: a's first, b's first, a's second, b's second.
    __device__ __forceinline__ static uint32_t round4(uint32_t a, uint32_t b, float inverse) {
        const uint32_t low = __byte_perm(activation_code(float_of(a << 16), inverse),
                                         activation_code(float_of(b << 16), inverse), 0x0040);
        const uint32_t high = __byte_perm(activation_code(float_of(a & 0xffff0000u), inverse),
                                          activation_code(float_of(b & 0xffff0000u), inverse), 0x0040);
        return __byte_perm(low, high, 0x5410);
    }
    // Eight tokens: `x` has eight activations of token g, and its quad the block.
    __device__ __forceinline__ static void round(Tokens &out, const uint4 &x) {
        uint32_t most = larger_bf16x2(larger_bf16x2(x.x, x.y), larger_bf16x2(x.z, x.w));
        most = larger_bf16x2(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = larger_bf16x2(most, __shfl_xor_sync(0xffffffffu, most, 2));
        most = max(larger_bf16x2(most, __byte_perm(most, 0, 0x1032)) & 0x7fff0000u, LEAST_LARGEST);
        const float own = activation_scale(float_of(most)), inverse = activation_inverse(own);
        const bool in_order = TYPE == PITH_CUDA_Q8_0; // byte_of()
        split(out, round4(x.x, in_order ? x.y : x.z, inverse), round4(in_order ? x.z : x.y, x.w, inverse));
        const uint32_t t = threadIdx.x % 4;
        out.scale[0] = __shfl_sync(0xffffffffu, own, 8 * t); // of lane 4 g there
        out.scale[1] = __shfl_sync(0xffffffffu, own, 8 * t + 4);
        sum_up(out);
    }
    // One token: `x` is an activation in a float's bits. The bytes go to `room`, from where all lanes take what they
    // need behind a barrier of the warp.
    __device__ __forceinline__ void round_alone(uint32_t x, float4 *room, uint32_t lane) {
        const uint32_t most = largest_of_warp(max(x & 0x7fffffffu, LEAST_LARGEST));
        scale = activation_scale(float_of(most));
        ((uint8_t *)room)[place(lane)] = (uint8_t)activation_code(float_of(x), activation_inverse(scale));
    }
    // Where k of a step lies among the bytes of all lanes.
    __device__ static uint32_t place(uint32_t k) {
        if (TYPE == PITH_CUDA_Q6_K) return k % 16 / 4 * 8 + byte_of<TYPE>(k / 16 * 4 + k % 4);
        return k / 8 * 8 + byte_of<TYPE>(k % 8);
    }

    // The sums of 16 rows and eight tokens.
    __device__ __forceinline__ static void multiply_tile(uint32_t (&d)[SUMS][4], const Stage &s, int mt,
                                                         const Tokens &x) {
        const uint32_t a[4] = {s.bytes(mt, 0, 0), s.bytes(mt, 1, 0), s.bytes(mt, 0, 1), s.bytes(mt, 1, 1)};
#pragma unroll
        for (int i = 0; i < SUMS; i++) mma_bytes<IS_SIGNED>(d[i], x.start[i], a, x.bytes[i][0], x.bytes[i][1]);
    }
    // y + scale_of_x * (the row's scale * d). With f the float 1.5 * 2^23 + d, the row's scale times d is one rounding
    // of scale * f - scale * 1.5 * 2^23, whose second product is exact: no scale has more than 19 bits.
    __device__ __forceinline__ static float add(float y, float a, float b, uint32_t d0, uint32_t d1, float scale,
                                                float minus_sum) {
        float v = fmaf(a, float_of(d0), SUMS == 1 && !HAS_MIN ? b : a * -SUM_START_FLOAT);
        if constexpr (SUMS == 2) v = fmaf(b, float_of(d1) - SUM_START_FLOAT, v);
        y = fmaf(scale, v, y);
        return HAS_MIN ? fmaf(b, minus_sum, y) : y;
    }
    // Where a row has one scale, what add() subtracts is in the place of the other.
    __device__ __forceinline__ static float4 scales_of(const Stage &s) {
        float4 q = s.scales();
        if constexpr (SUMS == 1 && !HAS_MIN) q.y = q.x * -SUM_START_FLOAT, q.w = q.z * -SUM_START_FLOAT;
        return q;
    }

    // The four lanes of a row all need the scales of eight rows. Each lane makes those of one pair and the warp
    // exchanges them: `scratch` is (32) of this warp, another one in the next step, so that one barrier of the warp is
    // enough.
    template <int NT>
    __device__ static void multiply(float (&c)[TILES][NT][4], const Stage &s, const uint4 (&x)[NT], float4 *scratch,
                                    uint32_t lane) {
        scratch[lane] = scales_of(s);
        __syncwarp();
        Tokens tokens[NT];
#pragma unroll
        for (int nt = 0; nt < NT; nt++) round(tokens[nt], x[nt]);
#pragma unroll
        for (int mt = 0; mt < TILES; mt++) {
            if (NT == 4 || (NT == 2 && WIDE))
                __syncwarp(); // keeps the compiler from decoding every tile first: registers are short
            const float4 q = scratch[mt * 8 + lane / 4];
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                uint32_t d[SUMS][4];
                multiply_tile(d, s, mt, tokens[nt]);
#pragma unroll
                for (int j = 0; j < 4; j++)
                    c[mt][nt][j] = add(c[mt][nt][j], j < 2 ? q.x : q.z, j < 2 ? q.y : q.w, d[0][j], d[SUMS - 1][j],
                                       tokens[nt].scale[j % 2], tokens[nt].minus_sum[j % 2]);
            }
        }
    }
    // One token: the sums of the lane's two rows are in c[0][0][0] and c[0][0][2]. The step's activations are rounded
    // already, and those of the next one, `x`, are rounded into `next` meanwhile.
    __device__ void multiply(float (&c)[TILES][1][4], const Stage &s, const uint32_t (&x)[1], const float4 *room,
                             float4 *next, uint32_t lane) {
        __syncwarp();
        const uint2 bytes = ((const uint2 *)room)[lane % 4];
        Tokens token;
        split(token, bytes.x, bytes.y);
        token.scale[0] = token.scale[1] = scale;
        sum_up(token);
        round_alone(x[0], next, lane);
        uint32_t d[TILES][SUMS][4];
#pragma unroll
        for (int mt = 0; mt < TILES; mt++) multiply_tile(d[mt], s, mt, token);
        const float4 q = scales_of(s);
        const bool odd = lane & 1, upper = lane & 2;
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            uint32_t own[SUMS];
#pragma unroll
            for (int i = 0; i < SUMS; i++)
                own[i] = upper ? (odd ? d[3][i][j] : d[2][i][j]) : (odd ? d[1][i][j] : d[0][i][j]);
            c[0][0][j] = add(c[0][0][j], j ? q.z : q.x, j ? q.w : q.y, own[0], own[SUMS - 1], token.scale[0],
                             token.minus_sum[0]);
        }
    }
    // Then they go to where the sums of several tokens are.
    __device__ static void spread(float (&c)[TILES][1][4], uint32_t lane) {
        const float own[2] = {c[0][0][0], c[0][0][2]};
#pragma unroll
        for (int mt = 0; mt < TILES; mt++)
#pragma unroll
            for (int j = 0; j < 4; j += 2) c[mt][0][j] = __shfl_sync(0xffffffffu, own[j / 2], lane / 4 * 4 + mt);
    }
};

// Where a slab's steps are in the three planes.
template <class Rows> struct Planes {
    const uint8_t *codes, *scales, *supers;
    __device__ Planes(const ProductArgs &a, const ProductPart &p, uint32_t slab) {
        const TileAt at = tile_at<Rows::TYPE>(p.n_slabs, a.k, slab, 0, 0);
        const uint8_t *w = (const uint8_t *)p.w;
        codes = w + at.code, scales = w + at.scale, supers = w + at.super;
    }
    __device__ const uint8_t *codes_of(uint32_t step) const { return codes + (size_t)step * Rows::LAYOUT.code_bytes; }
    __device__ const uint8_t *scales_of(uint32_t step) const {
        return scales + (size_t)step * Rows::LAYOUT.scale_bytes;
    }
    __device__ const uint8_t *supers_of(uint32_t step) const {
        return supers + (size_t)(step / (PITH_SUPER / PITH_STEP)) * Rows::LAYOUT.super_bytes;
    }
};

// A warp's steps in shared memory, `depth` of them. All lanes call all of it: ask() for a step, wait() for it, take()
// it to registers, after which its slot may be asked for again.
//
// Copied by the lanes. Each reads what it has copied itself.
template <class Rows, int DEPTH> struct LaneRing {
    static constexpr bool ASKS_EARLY = false; // a step's copies would delay its own products
    Planes<Rows> planes;
    uint8_t *slots;
    uint32_t lane;
    __device__ LaneRing(const Planes<Rows> &planes_, uint8_t *slots_, uint64_t *, uint32_t lane_)
        : planes(planes_), slots(slots_), lane(lane_) {}
    __device__ __forceinline__ void ask(int d, uint32_t step, bool is_there) const {
        constexpr pith_quant_layout l = Rows::LAYOUT;
        uint8_t *slot = slots + d * Rows::SLOT_BYTES;
        const uint32_t own = Rows::own(lane);
        if (is_there) {
#pragma unroll
            for (uint32_t i = 0; i < l.code_bytes; i += 512)
                copy_weights16_async(slot + i + lane * 16, planes.codes_of(step) + i + lane * 16);
            copy_weights_async<4>(slot + l.code_bytes + own * 4, planes.scales_of(step) + own * 4);
            constexpr uint32_t SUPER = l.super_bytes / 32;
            if constexpr (SUPER > 0)
                copy_weights_async<SUPER>(slot + l.code_bytes + l.scale_bytes + own * SUPER,
                                          planes.supers_of(step) + own * SUPER);
        }
        copies_commit(); // also nothing: the number of those behind a step is always the same
    }
    __device__ __forceinline__ void wait(int, uint32_t) const { copies_wait<DEPTH - 1>(); }
    __device__ __forceinline__ void take(typename Rows::Stage &s, int d) const {
        Rows::take(s, slots + d * Rows::SLOT_BYTES, lane);
    }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// Copied by the card, whole runs of a plane.
template <class Rows, int DEPTH> struct RunRing : Arrivals<DEPTH> {
    static constexpr bool ASKS_EARLY = true;
    using Arrivals<DEPTH>::full;
    Planes<Rows> planes;
    uint8_t *slots;
    uint32_t lane;
    __device__ RunRing(const Planes<Rows> &planes_, uint8_t *slots_, uint64_t *full_, uint32_t lane_)
        : Arrivals<DEPTH>(full_, lane_), planes(planes_), slots(slots_), lane(lane_) {}
    __device__ __forceinline__ void ask(int d, uint32_t step, bool is_there) const {
        if (lane || !is_there) return;
        constexpr pith_quant_layout l = Rows::LAYOUT;
        uint8_t *slot = slots + d * Rows::SLOT_BYTES;
        barrier_expect(&full[d], Rows::SLOT_BYTES);
        copy_run(slot, planes.codes_of(step), l.code_bytes, &full[d]);
        copy_run(slot + l.code_bytes, planes.scales_of(step), l.scale_bytes, &full[d]);
        if constexpr (l.super_bytes > 0)
            copy_run(slot + l.code_bytes + l.scale_bytes, planes.supers_of(step), l.super_bytes, &full[d]);
    }
    __device__ __forceinline__ void take(typename Rows::Stage &s, int d) const {
        Rows::take(s, slots + d * Rows::SLOT_BYTES, lane);
        __syncwarp(); // before lane 0 asks for what comes in its place
    }
};
// Eight steps share their supers, which each would bring from L2 again: for one token, where nothing else is slower
// than memory, an H200 took a tenth longer with that than with lanes' copies, which go through L1.
template <class Rows, int DEPTH>
using Ring = std::conditional_t<Rows::ALONE && Rows::Stage::HAS_SUPER, LaneRing<Rows, DEPTH>, RunRing<Rows, DEPTH>>;
#else
template <class Rows, int DEPTH> using Ring = LaneRing<Rows, DEPTH>;
#endif

template <class Rows, int NT, typename X>
__device__ __forceinline__ void load_step_x(X (&x)[NT], const uint16_t *x0, const uint32_t (&at)[NT], uint32_t step) {
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        const uint16_t *p = x0 + at[nt] + step * PITH_STEP;
        if constexpr (Rows::ALONE) x[nt] = load_x2(p) << 16;
        else if constexpr (Rows::SPLIT_X) {
            const uint2 first = load_x8(p), second = load_x8(p + 16);
            x[nt] = uint4{first.x, first.y, second.x, second.y};
        } else x[nt] = load_x(p);
    }
}

template <class Rows, int NT, bool MANY>
__global__ void __launch_bounds__(THREADS, Rows::blocks_per_sm(NT, MANY))
    product_kernel(const __grid_constant__ ProductArgs a) {
    using T16 = typename Rows::T16;
    constexpr int DEPTH = Rows::depth(NT, MANY);
    constexpr int BUFFERS = DEPTH % 2 ? DEPTH : 2;    // of activations and of scales, which take turns
    constexpr int ROOM = Rows::ALONE ? 2 : 32;        // of scales, or of the only token's bytes
    constexpr bool X_AHEAD = Rows::x_ahead(NT);       // where registers allow, activations come a step early too
    constexpr uint32_t X_EARLY = Rows::ALONE ? 2 : 1; // or two, of which one is for rounding them
    constexpr uint32_t PART_BYTES = WARPS * 8 * NT * (16 * tiles_at_once(NT) + 4) * sizeof(float);
    constexpr uint32_t SLOTS_BYTES = WARPS * DEPTH * Rows::SLOT_BYTES;
    __shared__ uint4 memory[(PART_BYTES > SLOTS_BYTES ? PART_BYTES : SLOTS_BYTES) / sizeof(uint4)]; // slots, then sums
    __shared__ float total[8 * NT * TOTAL_ROWS];
    __shared__ float4 scratch[WARPS][BUFFERS][ROOM];
    __shared__ uint64_t full[WARPS][DEPTH]; // RunRing

    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Place place(a);
    const ProductPart &p = a.part[place.which];

    // Turns: the warps that share the slab take one step each, block by block; a warp's next step is one turn later.
    const uint32_t turn = WARPS * a.n_parts, n_steps = a.k / PITH_STEP;
    uint32_t step = place.part * WARPS + warp;

    let_next_start_early(a.early);
    Rows rows;
    typename Rows::Stage stage;
    const Ring<Rows, DEPTH> ring(Planes<Rows>(a, p, place.slab), (uint8_t *)memory + warp * DEPTH * Rows::SLOT_BYTES,
                                 full[warp], lane);
#pragma unroll
    for (int d = 0; d < DEPTH; d++) ring.ask(d, step + d * turn, step + d * turn < n_steps);
    const Finish finish(a, p, place.slab, place.part);

    wait_and_let_next_start(a.early);

    const uint16_t *x0 = (const uint16_t *)a.x + (Rows::ALONE ? lane : (Rows::SPLIT_X ? 4 : 8) * t);
    uint32_t x_at[NT]; // tokens past the end read the last one; a token's column meets no other
#pragma unroll
    for (int nt = 0; nt < NT; nt++) x_at[nt] = min(nt * 8 + g, a.n - 1) * a.k;

    float c[TILES][NT][4] = {};
    std::conditional_t<Rows::ALONE, uint32_t, uint4> x[X_AHEAD ? BUFFERS : 1][NT];
    if (X_AHEAD && step < n_steps) load_step_x<Rows, NT>(x[0], x0, x_at, step);
    if constexpr (Rows::ALONE) {
        rows.round_alone(step < n_steps ? x[0][0] : 0, scratch[warp][0], lane);
        for (int i = 1; i < BUFFERS; i++) x[i][0] = 0; // what is rounded behind the last step
        if (step + turn < n_steps) load_step_x<Rows, NT>(x[0], x0, x_at, step + turn);
    }
    for (uint32_t parity = 0; step < n_steps; parity ^= 1) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            if (step >= n_steps) break;
            if (!X_AHEAD) load_step_x<Rows, NT>(x[0], x0, x_at, step);
            else if (step + X_EARLY * turn < n_steps)
                load_step_x<Rows, NT>(x[X_AHEAD ? (d + 1) % BUFFERS : 0], x0, x_at, step + X_EARLY * turn);
            ring.wait(d, parity);
            ring.take(stage, d);
            if (ring.ASKS_EARLY) ring.ask(d, step + DEPTH * turn, step + DEPTH * turn < n_steps);
            const auto &now = x[X_AHEAD ? d % BUFFERS : 0];
            float4 *room = scratch[warp][d % BUFFERS];
            if constexpr (Rows::ALONE) rows.multiply(c, stage, now, room, scratch[warp][(d + 1) % BUFFERS], lane);
            else Rows::multiply(c, stage, now, room, lane);
            if (!ring.ASKS_EARLY) ring.ask(d, step + DEPTH * turn, step + DEPTH * turn < n_steps);
            step += turn;
        }
    }
    if constexpr (Rows::ALONE) Rows::spread(c, lane);

    __syncthreads(); // all slots are free
    add_warps<NT>(c, (float *)memory, total);
    finish.template store<T16>(a, p, place.part, total);
}

template <class Rows, int NT>
cudaError_t launch(const ProductArgs &a, uint32_t n_blocks, bool many, pith_cuda_follow follow, cudaStream_t s) {
    auto *kernel = many ? product_kernel<Rows, NT, Rows::two_ways(NT)> : product_kernel<Rows, NT, false>;
    return launch_product(kernel, a, n_blocks, 0, follow, s);
}

} // namespace

// Up to 32 tokens, where registers stop: product.cu gives it more in two launches.
template <pith_cuda_type TYPE>
static cudaError_t launch_type(const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow, cudaStream_t s) {
    using Rows = QuantRows<TYPE>;
    const bool many = n_blocks > QUANT_BLOCKS * SMS;
    if (a.n == 1) return launch<QuantRows<TYPE, true>, 1>(a, n_blocks, many, follow, s);
    switch ((a.n + 7) / 8) {
    case 1: return launch<Rows, 1>(a, n_blocks, many, follow, s);
    case 2: return launch<Rows, 2>(a, n_blocks, many, follow, s);
    case 3: return launch<Rows, 3>(a, n_blocks, many, follow, s);
    case 4: return launch<Rows, 4>(a, n_blocks, many, follow, s);
    default: return cudaErrorInvalidValue;
    }
}

cudaError_t launch_quant(pith_cuda_type type, const ProductArgs &a, uint32_t n_blocks, pith_cuda_follow follow,
                         cudaStream_t s) {
    switch (type) {
    case PITH_CUDA_Q8_0: return launch_type<PITH_CUDA_Q8_0>(a, n_blocks, follow, s);
    case PITH_CUDA_Q4_0: return launch_type<PITH_CUDA_Q4_0>(a, n_blocks, follow, s);
    case PITH_CUDA_Q4_K: return launch_type<PITH_CUDA_Q4_K>(a, n_blocks, follow, s);
    case PITH_CUDA_Q6_K: return launch_type<PITH_CUDA_Q6_K>(a, n_blocks, follow, s);
    default: return cudaErrorInvalidValue;
    }
}

} // namespace pith
