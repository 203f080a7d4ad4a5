// The plan of decode attention, and its launches. The kernels are in attend_stream.cu and attend_merge.cu.
#include "cuda/attend_decode.h"

#include "cuda/attend_items.cuh"
#include "cuda/chain.cuh"
#include "cuda/launch.cuh"

using namespace pith;

namespace {

struct plan_args {
    const int32_t *first, *n_rows, *seq;
    void *plan;
    uint32_t n, n_layers, G, cap;
};

constexpr uint32_t PLAN_THREADS = 256;

// One block per layer: a scan over the chunk counts of n * G lanes (64 to 4096 of them), then every lane writes its
// items.
__global__ void __launch_bounds__(PLAN_THREADS) plan_kernel(plan_args p) {
    __shared__ uint32_t warp_sum[PLAN_THREADS / 32];
    const uint32_t layer = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_lanes = p.n * p.G;
    const layer_plan plan = plan_of_layer(p.plan, layer, p.cap);
    uint32_t base = 0;
    for (uint32_t from = 0; from < n_lanes; from += PLAN_THREADS) {
        const uint32_t i = from + threadIdx.x;
        const int32_t seq = i < n_lanes ? p.seq[i / p.G] : -1;
        const size_t entry = seq < 0 ? 0 : ((size_t)seq * p.n_layers + layer) * p.G + i % p.G;
        const uint32_t n_rows = seq < 0 ? 0 : (uint32_t)p.n_rows[entry], n = chunks_of(n_rows);
        const int32_t first = p.first[entry];
        uint32_t sum = n;
#pragma unroll
        for (uint32_t step = 1; step < 32; step *= 2) {
            const uint32_t below = __shfl_up_sync(FULL, sum, step);
            if (lane >= step) sum += below;
        }
        if (lane == 31) warp_sum[warp] = sum;
        __syncthreads();
        uint32_t before = base, total = base;
        for (uint32_t w = 0; w < PLAN_THREADS / 32; w++) {
            if (w < warp) before += warp_sum[w];
            total += warp_sum[w];
        }
        before += sum - n;
        for (uint32_t c = 0; c < n && before + c < p.cap; c++) plan.items[1 + before + c] = {i, c, n_rows, first};
        if (i < n_lanes && i < p.cap) plan.lanes[i] = {before, before < p.cap ? min(n, p.cap - before) : 0};
        base = total;
        __syncthreads();
    }
    if (threadIdx.x == 0) plan.items[0] = {base < p.cap ? base : p.cap, 0, 0, 0};
}

} // namespace

extern "C" uint32_t pith_cuda_attend_items(const pith_geometry *geo, uint32_t n, uint32_t max_rows) {
    // Where chunks grow, a lane has more of them than one of a row more.
    uint32_t most = chunks_of(max_rows);
    for (uint32_t border : {LONGEST_IN_1_PAGE, LONGEST_IN_2_PAGES, LONGEST_IN_4_PAGES})
        if (max_rows > border && chunks_of(border) > most) most = chunks_of(border);
    return n * geo->n_kv_heads * most;
}

extern "C" size_t pith_cuda_attend_plan_bytes(const pith_geometry *geo, uint32_t cap_items) {
    return geo->n_layers * layer_plan_items(cap_items) * sizeof(item);
}

extern "C" size_t pith_cuda_attend_parts_bytes(const pith_geometry *geo, uint32_t cap_items) {
    const uint32_t g = geo->n_heads / geo->n_kv_heads;
    return COUNTER_BYTES + cap_items * part_floats(g, geo->head_dim) * sizeof(float);
}

extern "C" cudaError_t pith_cuda_attend_reset(void *parts, cudaStream_t stream) {
    return cudaMemsetAsync(parts, 0, COUNTER_BYTES, stream);
}

extern "C" cudaError_t pith_cuda_attend_plan(const pith_cuda_cache *c, const int32_t *seq, uint32_t n, void *plan,
                                             uint32_t cap_items, cudaStream_t stream) {
    const plan_args args = {c->first, c->n_rows, seq, plan, n, c->geo.n_layers, c->geo.n_kv_heads, cap_items};
    return launch_kernel(plan_kernel, c->geo.n_layers, PLAN_THREADS, 0, stream, args);
}

extern "C" cudaError_t pith_cuda_attend_decode(const pith_cuda_cache *c, uint32_t layer, const uint16_t *q, uint32_t n,
                                               void *plan, void *parts, uint32_t cap_items, uint32_t n_blocks,
                                               uint16_t *out, pith_half out_type, pith_cuda_follow follow,
                                               cudaStream_t stream) {
    const attend_kernel k = attend_stream_kernel(&c->geo, c->type);
    if (!k.run || n_blocks == 0 || n > cap_items / c->geo.n_kv_heads) return cudaErrorInvalidValue;
    if (n == 0) return cudaSuccess;
    const layer_plan of_layer = plan_of_layer(plan, layer, cap_items);
    const attend_args args = {sections_of(*c),
                              c->pages,
                              of_layer.items,
                              q,
                              out,
                              reinterpret_cast<float *>(static_cast<uint8_t *>(parts) + COUNTER_BYTES),
                              static_cast<uint32_t *>(parts),
                              of_layer.lanes,
                              c->geo.n_heads,
                              c->geo.n_kv_heads,
                              out_type == PITH_HALF_BF16,
                              follow == PITH_CUDA_EARLY};
    const cudaError_t err = launch_chained(k.run, dim3(n_blocks), k.threads, k.shared_bytes, follow, stream, args);
    return err ? err : attend_merge(args, &c->geo, n, follow, stream);
}

extern "C" cudaError_t pith_cuda_attend_blocks(const pith_geometry *geo, pith_half type, uint32_t *n_blocks) {
    const attend_kernel k = attend_stream_kernel(geo, type);
    int device, n_sm, per_sm;
    if (!k.run) return cudaErrorInvalidValue;
    // Also raises the limit of shared memory, which the launches rely on.
    cudaError_t err = cudaFuncSetAttribute(k.run, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)k.shared_bytes);
    // As it will be launched: how much is shared memory decides how many fit.
    if (!err) err = cudaFuncSetAttribute(k.run, cudaFuncAttributePreferredSharedMemoryCarveout, CHAIN_CARVEOUT);
    if (!err) err = cudaGetDevice(&device);
    if (!err) err = cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
    if (!err) err = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, k.run, (int)k.threads, k.shared_bytes);
    if (!err) *n_blocks = (uint32_t)n_sm * (uint32_t)(per_sm > 0 ? per_sm : 1);
    return err;
}
