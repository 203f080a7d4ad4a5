// Bound: bytes. A row costs 4 d bytes (K and V), read once for all g query heads of its KV head: 16 sequences of 9216
// rows of a 7B model are 302 MB a layer, 98 us at 3.08 TB/s; one sequence of 32640 rows 67 MB, 22 us. Tensor-core work
// is 64 operations per byte at g <= 8, a tenth of what they can do.
//
// A warp works alone from its first item to its last: without barriers, on its own part of shared memory. It reads an
// item's rows in *slices* of 16, which are one stream across the borders of items. Slices are copied to a ring of
// STAGES, asynchronously, in pieces of 16 bytes; while one is used those behind it are on their way, and a stage's keys
// are asked for anew as soon as they have been multiplied, before its values are. 2 stages of 8 KB for each of 8 warps
// keep 96 to 128 KB under way on every multiprocessor; 3 TB/s at a microsecond and a half of latency need 36.
//
//     S (16 rows, 8 heads) = K Q^T
//     P                               softmax weights, 16 bits; the transposed fragment by movmatrix
//     O^T (d, 8 heads) += V^T P       V^T is V read transposed
//
// A warp's first item is given by its number. Further ones are taken from a counter, so that whoever is served faster
// takes more. What is taken is known, with its page, before the item in front of it has been asked for entirely.
//
// What an item leaves is a part: sums, maxima and weights. Putting parts together is another kernel's
// (attend_merge.cu): whoever arrived last at a lane could do it here, but the fence that this needs waits for all that
// its warp has under way, rows for the next item among it.
#include "cuda/attend_items.cuh"
#include "cuda/chain.cuh"

namespace pith {
namespace {

constexpr int WARPS = 4, THREADS = WARPS * 32; // of a block
constexpr int SLICE_ROWS = 16;
constexpr uint32_t NONE = ~0u;

// Rings and warps of a multiprocessor. Slices of the larger heads are large, and few warps have enough under way.
constexpr int RING_BYTES = 128 << 10;
template <int D> struct shape {
    static constexpr int SM_WARPS = D <= 128 ? 8 : 4;
    static constexpr int BLOCKS = SM_WARPS / WARPS;
    // Registers as if for three blocks where that costs nothing: the next kernel's blocks need some too.
    static constexpr int least_blocks(int nt) { return D <= 128 && nt == 1 && BLOCKS < 3 ? 3 : BLOCKS; }
    static constexpr int SECTION = SLICE_ROWS * 2 * D; // bytes of a slice's keys, and of its values
    static constexpr int FIT = RING_BYTES / (SM_WARPS * 2 * SECTION);
    static constexpr int MOST = D <= 128 ? 4 : 2;
    static constexpr int STAGES = FIT < 2 ? 2 : FIT > MOST ? MOST : FIT;
    static constexpr int WARP_BYTES = STAGES * 2 * SECTION;
    static_assert(SM_WARPS % WARPS == 0, "whole blocks");
};

// Where in a section a row's piece of 16 bytes is. Rows follow each other as in memory, but pieces change places within
// their row, so that the same piece of eight neighbouring rows, which a matrix load takes, lies in different banks.
template <int D> __device__ __forceinline__ uint32_t piece_at(uint32_t row, uint32_t piece) {
    const uint32_t turn = D % 64 ? row / 2 % 4 : row % 8;
    return row * (2 * D) + (piece ^ turn) * 16;
}

// Places in a section that a lane of the warp names again and again. They repeat, rows or pieces further on, after as
// many as are kept, so that what is left to do at each is an addition.
template <int D> struct places {
    static constexpr int N_COPY = D / 32, N_MATRIX = D % 64 ? 2 : 4;
    uint32_t copy[N_COPY];                     // of the lane's i-th piece of a section, 32 i + lane
    uint32_t keys[N_MATRIX], values[N_MATRIX]; // of the row that it names when tile i is loaded, as it is or transposed

    __device__ __forceinline__ places(uint32_t lane, bool in_registers) {
#pragma unroll
        for (int i = 0; i < N_COPY; i++) copy[i] = piece_at<D>((i * 32 + lane) / (D / 8), (i * 32 + lane) % (D / 8));
#pragma unroll
        for (int i = 0; i < N_MATRIX; i++) {
            keys[i] = piece_at<D>(lane % 16, 2 * i + lane / 16);
            values[i] = piece_at<D>(lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2);
        }
        if (!in_registers) return;
        for (uint32_t &at : copy) keep(at);
        for (uint32_t &at : keys) keep(at);
        for (uint32_t &at : values) keep(at);
    }
    __device__ __forceinline__ uint32_t copy_at(int i) const { return copy[i % N_COPY] + i / N_COPY * (16 * D); }
    __device__ __forceinline__ uint32_t keys_at(int i) const {
        return keys[i % N_MATRIX] + i / N_MATRIX * N_MATRIX * 32;
    }
    __device__ __forceinline__ uint32_t values_at(int i) const {
        return values[i % N_MATRIX] + i / N_MATRIX * N_MATRIX * 32;
    }
};

// A slice's keys or values. Rows behind the lane's end become 0, since 0 times the garbage there need not be 0.
template <int D>
__device__ __forceinline__ void copy_section(uint8_t *to, const uint8_t *from, uint32_t n_valid, const places<D> &at,
                                             uint32_t lane) {
    from += lane * 16;
    if (n_valid >= SLICE_ROWS) {
#pragma unroll
        for (int i = 0; i < D / 16; i++) copy16_async(to + at.copy_at(i), from + i * 512);
    } else if (n_valid > 0) {
#pragma unroll 1
        for (int i = 0; i < D / 16; i++) {
            const uint32_t c = i * 32 + lane, row = c / (D / 8);
            copy16_async(to + piece_at<D>(row, c % (D / 8)), from + i * 512, row < n_valid);
        }
    }
}

// The page that this lane of the warp keeps of an item's: lane i the i-th.
__device__ __forceinline__ int32_t page_of(const attend_args &p, const uint4 &words, uint32_t lane) {
    const uint32_t n_rows = words.z, n_pages = chunk_pages(n_rows);
    const uint32_t lane_pages = (n_rows + PITH_PAGE_ROWS - 1) / PITH_PAGE_ROWS;
    const uint32_t mine = words.y * n_pages + (lane < n_pages ? lane : 0);
    return __ldcg(p.pages + (int32_t)words.w + (mine < lane_pages ? mine : lane_pages - 1));
}

// The slices that a warp asks for, one after the other. What comes behind the current item is found out step by step,
// so that nobody waits: its number, its entry in the plan, its pages.
//
// The counter is back at 0 when the kernel ends. With n items and A warps, A < n, all of which have a first item, item
// A + v belongs to whoever finds v there. A warp takes once for every item that it enters, its first included, and ends
// when it gets none. So a launch takes as often as items are entered: n times, of which n - A find one and A, one of
// each warp, do not; and the counter goes round at n. With n <= A nobody takes. No launch takes before its wait, by
// which all in front of it have ended, wherever its blocks already are: so one counter serves all layers.
template <int D> struct source {
    const attend_args &p;
    const uint32_t lane, n_items, n_first; // n_first: items that are somebody's first, or as many as could be
    uint32_t work = NONE;                  // the item, NONE behind the last
    uint32_t lane_of = 0, n_rows = 0;      // as in item
    uint32_t begin = 0, end = 0, row = 0;  // rows of the item, and the slice's first
    int32_t my_page = 0;                   // lane i of the warp: the item's i-th
    uint32_t n_known = 2, next = NONE;     // nothing is to be found out before something is taken
    uint4 next_words = {0, 0, 0, 0};
    int32_t next_page = 0;

    __device__ __forceinline__ void enter(uint32_t item, const uint4 &words, int32_t page) {
        const uint32_t rows = chunk_pages(words.z) * PITH_PAGE_ROWS;
        work = item, lane_of = words.x, n_rows = words.z, my_page = page;
        begin = row = words.y * rows, end = min(n_rows, begin + rows);
    }
    __device__ __forceinline__ void take() {
        n_known = 0, next = NONE;
        if (work != NONE && n_first < n_items && lane == 0) next = n_first + atomicInc(p.n_taken, n_items - 1);
    }
    __device__ __forceinline__ void find_item() {
        next = __shfl_sync(FULL, next, 0);
        if (next >= n_items) next = NONE;
        else next_words = __ldcg(reinterpret_cast<const uint4 *>(p.plan + 1 + next));
        n_known = 1;
    }
    __device__ __forceinline__ void find_page() {
        if (next != NONE) next_page = page_of(p, next_words, lane);
        n_known = 2;
    }
    // From a slice that has been asked for to the one behind it.
    __device__ __forceinline__ void advance() {
        if (work == NONE) return;
        row += SLICE_ROWS;
        if (row < end) {
            if (n_known == 0) find_item();
            else if (n_known == 1) find_page();
            return;
        }
        if (n_known == 0) find_item();
        if (n_known == 1) find_page();
        work = next;
        if (work == NONE) return;
        enter(next, next_words, next_page);
        take();
    }
    __device__ __forceinline__ uint32_t n_valid() const { return work == NONE ? 0 : n_rows - row; }
    __device__ __forceinline__ const uint8_t *keys() const {
        const uint32_t at = row - begin;
        return page_k(p.at, __shfl_sync(FULL, my_page, at / PITH_PAGE_ROWS)) + at % PITH_PAGE_ROWS * (2 * D);
    }
};

// ------------------------------------------------------------------------------------------------------------- kernel

template <int D, int NT, bool BF16>
__global__ void __launch_bounds__(THREADS, shape<D>::least_blocks(NT)) stream_kernel(attend_args p) {
    constexpr int STAGES = shape<D>::STAGES, SECTION = shape<D>::SECTION, IN_FLIGHT = 2 * STAGES - 1;
    PITH_CUDA_DYNAMIC_SHARED(uint8_t, memory); // (WARPS, STAGES, 2, SECTION): keys, values
    // Which slice a stage has: item, lane, rows of the lane, first row of the slice. NONE: no more come.
    __shared__ uint4 slots[WARPS][STAGES];

    let_next_start_early(p.early);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pr = lane / 4, t = lane % 4;
    const uint32_t g = p.H / p.G, n_items = __ldcg(&p.plan[0].lane);
    const float scale = 1.4426950408889634f / sqrtf((float)D); // scores in units of log2
    if (blockIdx.x >= n_items) {
        if (blockIdx.x == 0) wait_for_previous(); // one block has to, chain.h says why
        return;
    }
    uint8_t *ring = memory + warp * shape<D>::WARP_BYTES;
    const places<D> at(lane, NT * D < 400); // where sums leave room for them

    // Items go round the blocks, not the warps of one: few of them still are on all multiprocessors.
    source<D> from = {p, lane, n_items, gridDim.x * WARPS};
    const uint32_t first_item = warp * gridDim.x + blockIdx.x;
    if (first_item < n_items) {
        const uint4 words = __ldcg(reinterpret_cast<const uint4 *>(p.plan + 1 + first_item));
        from.enter(first_item, words, page_of(p, words, lane));
    }
    // A stage's keys, its values, and what it has: in this order, one commit for each section.
    auto ask_keys = [&](uint32_t stage) {
        if (lane == 0) slots[warp][stage] = uint4{from.work, from.lane_of, from.n_rows, from.row};
        copy_section<D>(ring + stage * (2 * SECTION), from.keys(), from.n_valid(), at, lane);
        copies_commit();
    };
    auto ask_values = [&](uint32_t stage) {
        copy_section<D>(ring + stage * (2 * SECTION) + SECTION, from.keys() + p.at.v_offset, from.n_valid(), at, lane);
        copies_commit();
        from.advance();
    };
    // The lane's newest row may be still to be written by who is in front: its slice has to wait, older ones need not.
    bool waited = false;
#pragma unroll 1
    for (uint32_t stage = 0; stage < STAGES; stage++) {
        // Nor is a second item taken before the wait. Rows of no item, none, are at their end.
        if (!waited && from.row + SLICE_ROWS >= from.end) {
            wait_and_let_next_start(p.early);
            from.take();
            waited = true;
        }
        ask_keys(stage), ask_values(stage);
    }
    if (!waited) wait_and_let_next_start(p.early), from.take();

    uint32_t qf[NT][D / 16][2];
    auto load_q = [&](const uint4 &slice) {
        const uint16_t *q = p.q + ((size_t)(slice.y / p.G) * p.H + slice.y % p.G * g) * D + 2 * t;
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int i = 0; i < D / 16; i++)
#pragma unroll
                for (int b = 0; b < 2; b++) {
                    const uint32_t h = nt * 8 + pr;
                    const uint16_t *word = q + h * D + 16 * i + 8 * b;
                    qf[nt][i][b] = h < g ? __ldcg(reinterpret_cast<const uint32_t *>(word)) : 0;
                }
    };
    float acc[NT][D / 16][4], m[NT][2], l[NT][2];
    auto clear = [&] {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            m[nt][0] = m[nt][1] = -INFINITY, l[nt][0] = l[nt][1] = 0.0f;
#pragma unroll
            for (int i = 0; i < D / 16; i++) acc[nt][i][0] = acc[nt][i][1] = acc[nt][i][2] = acc[nt][i][3] = 0.0f;
        }
    };
    __syncwarp();
    uint4 slice = slots[warp][0];
    if (slice.x != NONE) load_q(slice);
    clear();
    for (uint32_t stage = 0; slice.x != NONE;) {
        const uint8_t *keys = ring + stage * (2 * SECTION), *values = keys + SECTION;
        copies_wait<IN_FLIGHT>();
        __syncwarp();
        float s[NT][4], odd[4] = {}; // two sums of a lone tile: a product waits for the one before the last
#pragma unroll
        for (int nt = 0; nt < NT; nt++) s[nt][0] = s[nt][1] = s[nt][2] = s[nt][3] = 0.0f;
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint32_t a[4];
            load_matrix4(a, keys + at.keys_at(i));
#pragma unroll
            for (int nt = 0; nt < NT; nt++) mma<BF16>(NT == 1 && i % 2 ? odd : s[nt], a, qf[nt][i][0], qf[nt][i][1]);
        }
        __syncwarp();
        ask_keys(stage);

        // Lane: rows pr and pr + 8, heads 2t and 2t + 1.
        const bool ends = slice.w + SLICE_ROWS > slice.z; // the lane does, in this slice
        uint32_t weight[NT][2];
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
#pragma unroll
            for (int e = 0; e < 4; e++) s[nt][e] = __fmul_rn(NT == 1 ? s[nt][e] + odd[e] : s[nt][e], scale);
            if (ends) {
                if (slice.w + pr >= slice.z) s[nt][0] = s[nt][1] = -INFINITY;
                if (slice.w + pr + 8 >= slice.z) s[nt][2] = s[nt][3] = -INFINITY;
            }
            // While no head of the tile has a new maximum all sums keep their scale.
            const float high[2] = {fmaxf(s[nt][0], s[nt][2]), fmaxf(s[nt][1], s[nt][3])};
            if (__any_sync(FULL, high[0] > m[nt][0] || high[1] > m[nt][1])) {
                float c[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float top = high[e];
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 4));
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 8));
                    top = fmaxf(top, __shfl_xor_sync(FULL, top, 16));
                    top = fmaxf(m[nt][e], top);
                    c[e] = exp2_or_0(m[nt][e] - soft_shift(top)); // exactly 1 for a head whose maximum stays
                    m[nt][e] = top;
                    l[nt][e] *= c[e];
                }
#pragma unroll
                for (int i = 0; i < D / 16; i++) {
                    acc[nt][i][0] *= c[0], acc[nt][i][1] *= c[1];
                    acc[nt][i][2] *= c[0], acc[nt][i][3] *= c[1];
                }
            }
            const float shift[2] = {soft_shift(m[nt][0]), soft_shift(m[nt][1])};
            // A difference of rounded products, not a fused one: equal scores weigh exactly 1.
#pragma unroll
            for (int e = 0; e < 4; e++) s[nt][e] = exp2_or_0(s[nt][e] - shift[e % 2]);
            weight[nt][0] = pack2<BF16>(s[nt][0], s[nt][1]), weight[nt][1] = pack2<BF16>(s[nt][2], s[nt][3]);
            // The weights that count are the rounded ones: they sum up to l, so a mean of equal values is that value.
            const float2 lo = unpack2<BF16>(weight[nt][0]), hi = unpack2<BF16>(weight[nt][1]);
            l[nt][0] += lo.x + hi.x, l[nt][1] += lo.y + hi.y;
            weight[nt][0] = transpose8(weight[nt][0]), weight[nt][1] = transpose8(weight[nt][1]);
        }
        copies_wait<IN_FLIGHT>();
        __syncwarp();
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            uint32_t a[4];
            load_matrix4_trans(a, values + at.values_at(i));
#pragma unroll
            for (int nt = 0; nt < NT; nt++) mma<BF16>(acc[nt][i], a, weight[nt][0], weight[nt][1]);
        }
        __syncwarp();
        ask_values(stage);

        stage = stage + 1 == STAGES ? 0 : stage + 1;
        const uint4 done = slice;
        slice = slots[warp][stage]; // written at least one wait ago
        if (slice.x == done.x) continue;

        // The item is read.
        if (slice.x != NONE) load_q(slice);
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 4);
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 8);
                l[nt][e] += __shfl_xor_sync(FULL, l[nt][e], 16);
            }
        float *to = p.parts + done.x * part_floats<NT>(D);
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const uint32_t h = 8 * nt + 2 * t;
            if (h >= g) continue;
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                const float4 sum = {acc[nt][i][0], acc[nt][i][1], acc[nt][i][2], acc[nt][i][3]};
                reinterpret_cast<float4 *>(to)[(nt * (D / 16) + i) * 32 + lane] = sum;
            }
            if (pr == 0)
                reinterpret_cast<float4 *>(to + 8 * NT * D)[4 * nt + t] = {m[nt][0], l[nt][0], m[nt][1], l[nt][1]};
        }
        clear();
    }
    copies_wait<0>();
}

template <int D> attend_kernel kernel_of_dim(uint32_t g, pith_half type) {
    attend_kernel k = {nullptr, THREADS, (size_t)WARPS * shape<D>::WARP_BYTES};
    if (g <= 8) k.run = type == PITH_HALF_BF16 ? stream_kernel<D, 1, true> : stream_kernel<D, 1, false>;
    else k.run = type == PITH_HALF_BF16 ? stream_kernel<D, 2, true> : stream_kernel<D, 2, false>;
    return k;
}

} // namespace

attend_kernel attend_stream_kernel(const pith_geometry *geo, pith_half type) {
    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    if (geo->elt_bytes != 2 || g == 0 || g > 16) return {};
    switch (geo->head_dim) {
    case 64: return kernel_of_dim<64>(g, type);
    case 96: return kernel_of_dim<96>(g, type);
    case 128: return kernel_of_dim<128>(g, type);
    case 160: return kernel_of_dim<160>(g, type);
    case 192: return kernel_of_dim<192>(g, type);
    case 224: return kernel_of_dim<224>(g, type);
    case 256: return kernel_of_dim<256>(g, type);
    default: return {};
    }
}

} // namespace pith
