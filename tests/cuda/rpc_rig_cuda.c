// Nothing but a compression runs here, so what steps would have put into the device's memory goes there in one piece
// before each: all pages, the window, the lanes' numbers of rows. Behind it the pages come back, with what has moved.
#include "cuda/rpc_rig_cuda.h"

#include "base/half.h"
#include "cuda/device.h"
#include "t.h"

static struct rig_cuda {
    pith_cuda *cuda;
    bool bf16;
    pith_pages pages;
    uint32_t n_pages;
    pith_table *table;
    pith_window window;
    int32_t *n_rows; // device (n_layers, G)
} rig;

static void expect(cudaError_t e) {
    if (e) fail_msg("%s", cudaGetErrorString(e));
}
static void expect_ok(pith_status status, const pith_error *err) {
    if (status != PITH_OK) fail_msg("%s", err->msg);
}

static pith_status create(const pith_geometry *geo, bool bf16, pith_backend **out, pith_error *err) {
    const pith_cuda_params params = {.kv_bf16 = bf16, .max_rows = RIG_MOST_TOKENS, .max_sequences = 1, .n_threads = 1};
    return pith_cuda_create(geo, &params, out, err);
}

pith_status rig_cuda_probe(pith_error *err) {
    const pith_geometry geo = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64, .elt_bytes = 2};
    pith_backend *backend;
    const pith_status status = create(&geo, false, &backend, err);
    if (status == PITH_OK) backend->ops->free(backend);
    return status;
}

// ------------------------------------------------------------------------------------------------- opening, closing

static pith_backend *open_side(const rig_room *room, bool bf16) {
    const pith_geometry *geo = &room->geo;
    const uint32_t n_lanes = pith_n_lanes(geo), of_lane = room->n_pages / n_lanes;
    pith_backend *backend;
    pith_error err;
    expect_ok(create(geo, bf16, &backend, &err), &err);
    const pith_ops *ops = backend->ops;
    rig = (struct rig_cuda){.cuda = pith_cuda_enter(backend), .bf16 = bf16, .n_pages = room->n_pages};
    expect_ok(ops->pool_create(backend, geo, room->n_pages, &rig.pages, &err), &err);
    expect_ok(ops->table_create(backend, geo, of_lane, &rig.table, &err), &err);
    for (uint32_t lane = 0; lane < n_lanes; lane++)
        for (uint32_t i = 0; i < of_lane; i++) ops->table_set(rig.table, lane, i, lane * of_lane + i);
    expect_ok(ops->window_create(backend, geo, room->window_cap, &rig.window, &err), &err);
    expect_ok(ops->events_reserve(backend, geo, room->n_candidates, room->n_queries, &err), &err);
    expect(cudaMalloc((void **)&rig.n_rows, n_lanes * sizeof *rig.n_rows));
    rig.cuda->cache.n_rows = rig.n_rows;
    return backend;
}
static pith_backend *open_f16(const rig_room *room) { return open_side(room, false); }
static pith_backend *open_bf16(const rig_room *room) { return open_side(room, true); }

static void close_side(void) {
    pith_backend *backend = &rig.cuda->base;
    const pith_ops *ops = backend->ops;
    ops->window_destroy(backend, &rig.pages.geo, &rig.window);
    ops->table_destroy(backend, rig.table);
    ops->pool_destroy(backend, &rig.pages, rig.n_pages);
    ops->free(backend);
    expect(cudaFree(rig.n_rows));
}

// ------------------------------------------------------------------------------------------------------------- rows

// As cuda/cache.h lays out a page.
static void write_row(const pith_pages *pages, const pith_lane *lane, uint32_t row, const float *key, int32_t pos) {
    const uint32_t d = pages->geo.head_dim;
    uint16_t *k = (uint16_t *)(void *)pith_page_at(pages, lane->pages[row / PITH_PAGE_ROWS]) + row % PITH_PAGE_ROWS * d;
    for (uint32_t i = 0; i < d; i++) k[i] = rig.bf16 ? pith_f32_to_bf16(key[i]) : pith_f32_to_f16(key[i]);
    *pith_lane_pos(pages, lane, row) = pos;
}

// -------------------------------------------------------------------------------------------------------- compression

static void send(void *to, const void *from, size_t bytes) {
    expect(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, rig.cuda->stream));
}

static void enter(pith_event *event) {
    pith_group *group = &event->group;
    const pith_geometry *geo = &rig.pages.geo;
    int32_t n_rows[RIG_LAYERS * RIG_MOST_LANES];
    for (uint32_t lane = 0; lane < pith_n_lanes(geo); lane++) n_rows[lane] = (int32_t)group->lanes[lane].n_rows;
    send(rig.n_rows, n_rows, pith_n_lanes(geo) * sizeof *n_rows);
    send(rig.pages.base, group->pages->base, rig.n_pages * rig.pages.page_bytes);
    send(rig.window.q, group->window->q, pith_cuda_window_floats(geo, rig.window.cap) * sizeof(float));
    group->table = rig.table, group->window = &rig.window;
}

static void compact(const pith_event *event) {
    pith_backend *backend = event->backend;
    pith_error err;
    backend->ops->compact(backend, &event->group, &event->scores);
    expect(cudaMemcpyAsync(event->group.pages->base, rig.pages.base, rig.n_pages * rig.pages.page_bytes,
                           cudaMemcpyDeviceToHost, rig.cuda->stream));
    expect(cudaStreamSynchronize(rig.cuda->stream));
    expect_ok(backend->ops->check(backend, &err), &err);
}

const rig_side rig_cuda_f16 = {.n_layers = RIG_LAYERS,
                               .open = open_f16,
                               .write_row = write_row,
                               .enter = enter,
                               .compact = compact,
                               .close = close_side};
const rig_side rig_cuda_bf16 = {.n_layers = RIG_LAYERS,
                                .open = open_bf16,
                                .write_row = write_row,
                                .enter = enter,
                                .compact = compact,
                                .close = close_side};
