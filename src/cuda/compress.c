// The work around a compression, for all layers of a sequence at once.
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "cuda/compact.h"
#include "cuda/device.h"
#include "cuda/events.h"
#include "cuda/lanes.h"

void pith_cuda_free_events(pith_cuda *cuda) {
    cudaFree(cuda->event_memory);
    cudaFree(cuda->positions);
}

static size_t carve(size_t *at, size_t bytes) {
    const size_t begin = *at;
    *at += (bytes + 255) / 256 * 256;
    return begin;
}

// A kernel is loaded when it is first launched, and a compression's would be in the middle of a step. What is captured
// is loaded too, and not run. With other settings other kernels may still be loaded later.
static void load_kernels(pith_cuda *cuda, const pith_geometry *geo) {
    const pith_cuda_event e = {.n_layers = 1, .n = 1};
    pith_cuda_cache *cache = &cuda->cache;
    float *score = cuda->event_score[0], *pooled = cuda->event_score[1];
    uint32_t *rows = cuda->event_rows, *keep = cuda->event_keep, *stay = (uint32_t *)(void *)cuda->event_mass;
    cudaStream_t stream = cuda->stream;
    cudaGraph_t graph = NULL;
    if (!PITH_CUDA_DO(cuda, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal))) return;
    PITH_CUDA_DO(cuda, pith_cuda_candidates(cache, &e, NULL, 0, 0, rows, NULL, stream));
    PITH_CUDA_DO(cuda, pith_cuda_mass(cache, &e, cuda->event_mass, 1, keep, 1, PITH_ARITH_F32, rows, cuda->mass_scratch,
                                      cuda->event_mass, stream));
    PITH_CUDA_DO(cuda, pith_cuda_aggregate(geo, &e, PITH_AGG_LAYER, PITH_ARITH_F32, cuda->event_mass, score, stream));
    PITH_CUDA_DO(cuda, pith_cuda_pool(&e, 1, PITH_POOL_AVG, 1, PITH_ARITH_F32, score, pooled, stream));
    PITH_CUDA_DO(cuda, pith_cuda_top(&e, 1, pooled, 1, keep, stream));
    PITH_CUDA_DO(cuda, pith_cuda_survivors(cache, &e, rows, 1, keep, 1, stay, 1, stream));
    PITH_CUDA_DO(cuda, pith_cuda_compact_layers(cache, &e, rows, 1, stay, 1, stream));
    pith_cuda_ok(cuda, cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture"); // whatever went wrong
    if (graph) cudaGraphDestroy(graph);
}

static pith_status events_reserve(pith_backend *backend, const pith_geometry *geo, uint32_t n, uint32_t n_slots,
                                  pith_error *err) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    if (n <= cuda->event_n && n_slots <= cuda->event_slots) return PITH_OK;
    if (n < cuda->event_n) n = cuda->event_n;
    if (n_slots < cuda->event_slots) n_slots = cuda->event_slots;
    const size_t lanes = pith_n_lanes(geo), of_lane = lanes * n * sizeof(uint32_t);
    uint32_t mass_layers = geo->n_layers;
    while (mass_layers > 1 && pith_cuda_mass_scratch(geo, mass_layers, n, n_slots) > MASS_SCRATCH_BYTES)
        mass_layers = (mass_layers + 1) / 2;
    // The mass's memory then takes the rows that stay: of one layer at least.
    size_t mass = (size_t)geo->n_layers * geo->n_heads * n * sizeof(float);
    const size_t stay = (size_t)geo->n_kv_heads * cuda->max_rows * sizeof(uint32_t);
    if (mass < stay) mass = stay;

    size_t bytes = 0;
    const size_t rows = carve(&bytes, of_lane), keep = carve(&bytes, of_lane), score0 = carve(&bytes, of_lane),
                 score1 = carve(&bytes, of_lane), mass_at = carve(&bytes, mass),
                 scratch = carve(&bytes, pith_cuda_mass_scratch(geo, mass_layers, n, n_slots));
    if (!cuda->positions)
        cuda->positions = pith_cuda_new(cuda, cuda->max_rows * sizeof *cuda->positions, "compression", err);
    uint8_t *memory = cuda->positions ? pith_cuda_new(cuda, bytes, "compression", err) : NULL;
    if (!memory) return PITH_E_MEMORY;
    cudaFree(cuda->event_memory); // waits for what still runs
    const bool first = !cuda->event_memory;
    cuda->event_memory = memory;
    cuda->event_n = n, cuda->event_slots = n_slots, cuda->mass_layers = mass_layers, cuda->event_mass_bytes = mass;
    cuda->event_rows = (uint32_t *)(void *)(memory + rows);
    cuda->event_keep = (uint32_t *)(void *)(memory + keep);
    cuda->event_score[0] = (float *)(void *)(memory + score0);
    cuda->event_score[1] = (float *)(void *)(memory + score1);
    cuda->event_mass = (float *)(void *)(memory + mass_at);
    cuda->mass_scratch = memory + scratch;
    if (first) load_kernels(cuda, geo);
    return backend->ops->check(backend, err);
}

static pith_cuda_event event_of(const pith_group *group, uint32_t n) {
    return (pith_cuda_event){.seq = group->table->slot, .layer0 = group->layer, .n_layers = group->n_layers, .n = n};
}

// How many there are follows from what the host knows: every protected position has a row.
static void candidates(pith_backend *backend, const pith_group *group, const pith_span *protect, uint32_t n_protect,
                       uint32_t n_tail, pith_scores *out) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    uint32_t n = group->lanes->n_rows;
    for (uint32_t i = 0; i < n_protect; i++) n -= (uint32_t)(protect[i].end - protect[i].begin);
    n = n > n_tail ? n - n_tail : 0;
    *out = (pith_scores){.n_layers = group->n_layers,
                         .n = n,
                         .n_sets = cuda->geo.n_heads,
                         .rows = cuda->event_rows,
                         .score = cuda->event_mass,
                         .keep = cuda->event_keep};
    pith_cuda_flush_updates(cuda);
    const pith_cuda_event e = event_of(group, n);
    const pith_span *spans = pith_cuda_send(cuda, protect, n_protect * sizeof *protect);
    PITH_CUDA_DO(cuda, pith_cuda_candidates(&cuda->cache, &e, spans, n_protect, n_tail, out->rows, NULL, cuda->stream));
}

static void mass(pith_backend *backend, const pith_group *group, const uint32_t *slots, uint32_t n_slots,
                 pith_arith arith, pith_scores *s) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const pith_geometry *geo = &cuda->geo;
    const uint32_t *device_slots = pith_cuda_send(cuda, slots, n_slots * sizeof *slots);
    for (uint32_t layer = 0; layer < group->n_layers; layer += cuda->mass_layers) {
        const uint32_t left = group->n_layers - layer;
        pith_cuda_event e = event_of(group, s->n);
        e.layer0 += layer, e.n_layers = left < cuda->mass_layers ? left : cuda->mass_layers;
        PITH_CUDA_DO(cuda, pith_cuda_mass(&cuda->cache, &e, group->window->q, group->window->cap, device_slots, n_slots,
                                          arith, s->rows + (size_t)layer * geo->n_kv_heads * s->n, cuda->mass_scratch,
                                          cuda->event_mass + (size_t)layer * geo->n_heads * s->n, cuda->stream));
    }
    s->score = cuda->event_mass, s->n_sets = geo->n_heads;
}

static void aggregate(pith_backend *backend, const pith_geometry *geo, pith_aggregate how, pith_arith arith,
                      pith_scores *s) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const pith_cuda_event e = {.n_layers = s->n_layers, .n = s->n};
    float *out = cuda->event_score[0];
    PITH_CUDA_DO(cuda, pith_cuda_aggregate(geo, &e, how, arith, s->score, out, cuda->stream));
    s->score = out, s->n_sets = how == PITH_AGG_LAYER ? 1 : geo->n_kv_heads;
}

static void pool(pith_backend *backend, pith_pool how, uint32_t width, pith_arith arith, pith_scores *s) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const pith_cuda_event e = {.n_layers = s->n_layers, .n = s->n};
    float *out = s->score == cuda->event_score[0] ? cuda->event_score[1] : cuda->event_score[0];
    PITH_CUDA_DO(cuda, pith_cuda_pool(&e, s->n_sets, how, width, arith, s->score, out, cuda->stream));
    s->score = out;
}

static void top(pith_backend *backend, pith_scores *s, uint32_t n_keep) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const pith_cuda_event e = {.n_layers = s->n_layers, .n = s->n};
    s->n_keep = n_keep;
    PITH_CUDA_DO(cuda, pith_cuda_top(&e, s->n_sets, s->score, n_keep, s->keep, cuda->stream));
}

static void choose(pith_backend *backend, pith_scores *s, uint32_t n_sets, uint32_t n_keep, const uint32_t *keep) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    s->n_sets = n_sets, s->n_keep = n_keep;
    // From pageable memory: read when the call returns.
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(s->keep, keep, (size_t)s->n_layers * n_sets * n_keep * sizeof *keep,
                                       cudaMemcpyHostToDevice, cuda->stream));
}

// The mass has been used: its memory takes the rows that stay, of as many layers at a time as it can.
static void compact(pith_backend *backend, const pith_group *group, const pith_scores *s) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const uint32_t heads = cuda->geo.n_kv_heads, room = group->lanes->n_rows;
    uint32_t *stay = (uint32_t *)(void *)cuda->event_mass;
    const uint32_t at_once = (uint32_t)(cuda->event_mass_bytes / ((size_t)heads * room * sizeof *stay));
    pith_cuda_flush_updates(cuda); // pages that were shared have been replaced
    for (uint32_t layer = 0; layer < group->n_layers; layer += at_once) {
        const uint32_t left = group->n_layers - layer;
        pith_cuda_event e = event_of(group, s->n);
        e.layer0 += layer, e.n_layers = left < at_once ? left : at_once;
        const uint32_t *rows = s->rows + (size_t)layer * heads * s->n;
        const uint32_t *keep = s->keep + (size_t)layer * s->n_sets * s->n_keep;
        PITH_CUDA_DO(cuda, pith_cuda_survivors(&cuda->cache, &e, rows, s->n_sets, keep, s->n_keep, stay, room,
                                               cuda->stream));
        PITH_CUDA_DO(cuda,
                     pith_cuda_compact_layers(&cuda->cache, &e, rows, s->n_keep, stay, room, cuda->stream));
    }
}

static void positions(pith_backend *backend, const pith_group *group, uint32_t lane, int32_t *out) {
    pith_cuda *cuda = pith_cuda_enter(backend);
    const uint32_t n = group->lanes[lane].n_rows;
    const uint32_t entry =
        group->table->slot * pith_n_lanes(&cuda->geo) + pith_lane_index(&cuda->geo, group->layer, 0) + lane;
    PITH_CUDA_DO(cuda, pith_cuda_positions(&cuda->cache, entry, n, cuda->positions, cuda->stream));
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(out, cuda->positions, n * sizeof *out, cudaMemcpyDeviceToHost, cuda->stream));
    PITH_CUDA_DO(cuda, cudaStreamSynchronize(cuda->stream));
}

void pith_cuda_table_events(pith_ops *ops) {
    ops->events_reserve = events_reserve;
    ops->candidates = candidates;
    ops->mass = mass;
    ops->aggregate = aggregate;
    ops->pool = pool;
    ops->top = top;
    ops->choose = choose;
    ops->compact = compact;
    ops->positions = positions;
}
