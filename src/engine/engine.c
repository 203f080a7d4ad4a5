// Life of an engine: what is allocated once.
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cpu/backend.h"
#include "cpu/threads.h"
#include "cuda/backend.h"

enum { DEFAULT_CHUNK = 256, MAX_CHUNK = 4096, MAX_SEQUENCES = 1024, MAX_DEVICES = 64 };

void pith_engine_params_init(pith_engine_params *params) { *params = (pith_engine_params){.max_sequences = 1}; }

// Pages of the pool: what the caller asks for, else full contexts for all sequences within what the backend can spare.
static uint32_t pool_pages(const pith_engine_params *params, const pith_backend *backend, const pith_geometry *geo,
                           uint32_t n_ctx) {
    const uint64_t bytes = params->kv_budget_bytes ? params->kv_budget_bytes : backend->ops->spare_bytes(backend);
    const uint64_t full = pith_kv_pages_for(geo, n_ctx) * params->max_sequences; // nobody can ever hold more
    uint64_t n = bytes / pith_page_bytes(geo);
    if (n > full) n = full;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

// ------------------------------------------------------------------------------------------------- the device

// "cpu" is -1, "cuda" 0, "cuda:N" N.
static pith_status parse_device(const char *text, int32_t *out, pith_error *err) {
    *out = -1;
    if (!text || !strcmp(text, "cpu")) return PITH_OK;
    if (!strcmp(text, "cuda")) return *out = 0, PITH_OK;
    if (!strncmp(text, "cuda:", 5) && text[5] >= '0' && text[5] <= '9') {
        char *end;
        const unsigned long n = strtoul(text + 5, &end, 10);
        if (!*end && n < MAX_DEVICES) return *out = (int32_t)n, PITH_OK;
    }
    return pith_fail(err, PITH_E_ARG, "device: expected cpu, cuda or cuda:N with N below %d, found \"%.40s\"",
                     MAX_DEVICES, text);
}

// AUTO: what a model computes in, as far as the device has it.
static pith_status choose_kv_type(const pith_engine_params *params, const pith_weights *w, bool gpu, pith_kv_type *out,
                                  pith_error *err) {
    *out = params->kv_type;
    if (*out == PITH_KV_AUTO) *out = gpu && w->layers[0].wq->type != PITH_TENSOR_F16 ? PITH_KV_BF16 : PITH_KV_F16;
    const bool known = *out == PITH_KV_F16 || *out == (gpu ? PITH_KV_BF16 : PITH_KV_F32);
    if (known) return PITH_OK;
    return pith_fail(err, PITH_E_ARG, "cache type: on a %s expected f16 or %s", gpu ? "GPU" : "CPU",
                     gpu ? "bf16" : "f32");
}

static pith_status check_weights_fit(const pith_engine *e, pith_error *err) {
    const pith_ops *ops = e->backend->ops;
    const pith_weights *w = pith_model_weights(e->model);
    const pith_gguf *gguf = pith_model_gguf(e->model);
    if (!ops->weights_fit) return PITH_OK;
    return ops->weights_fit(e->backend, gguf->tensors, gguf->n_tensors, w->embed != w->head ? w->embed : NULL, err);
}

static pith_status create_backend(pith_engine *e, int32_t device, pith_error *err) {
    if (device < 0) {
        pith_cpu_params cpu = {
            .n_threads = e->n_threads, .max_rows = e->n_ctx, .disabled = getenv("PITH_DISABLE_CPU"), .alloc = e->alloc};
        return pith_cpu_create(&e->geo, &cpu, &e->backend, err);
    }
    pith_cuda_params cuda = {.device = (uint32_t)device,
                             .kv_bf16 = e->kv_type == PITH_KV_BF16,
                             .max_rows = e->n_ctx,
                             .max_sequences = e->max_sequences,
                             .n_threads = e->n_threads,
                             .alloc = e->alloc};
    return pith_cuda_create(&e->geo, &cuda, &e->backend, err);
}

// ----------------------------------------------------------------------------------------------- making an engine

static pith_status check(const pith_engine_params *params, const pith_config *config, pith_error *err) {
    if (params->max_sequences < 1 || params->max_sequences > MAX_SEQUENCES)
        return pith_fail(err, PITH_E_ARG, "sequences: expected 1 to %d, found %u", MAX_SEQUENCES,
                         params->max_sequences);
    if (params->chunk % 64 != 0 || params->chunk > MAX_CHUNK)
        return pith_fail(err, PITH_E_ARG, "chunk: expected a multiple of 64 up to %d, found %u", MAX_CHUNK,
                         params->chunk);
    if (params->n_ctx > config->n_ctx)
        return pith_fail(err, PITH_E_ARG, "context: the model has %u positions, asked for %u", config->n_ctx,
                         params->n_ctx);
    return PITH_OK;
}

pith_status pith_engine_new(const pith_model *model, const pith_engine_params *params, pith_engine **out,
                            pith_error *err) {
    *out = NULL;
    const pith_config *c = pith_model_config(model);
    int32_t device;
    pith_kv_type kv_type;
    pith_status status = check(params, c, err);
    if (status == PITH_OK) status = parse_device(params->device, &device, err);
    if (status == PITH_OK) status = choose_kv_type(params, pith_model_weights(model), device >= 0, &kv_type, err);
    if (status != PITH_OK) return status;

    pith_engine *e = pith_new(params->alloc, 1, sizeof *e);
    if (!e) return pith_fail(err, PITH_E_MEMORY, "no memory for an engine");
    e->model = model, e->alloc = params->alloc, e->kv_type = kv_type;
    e->n_ctx = params->n_ctx ? params->n_ctx : c->n_ctx;
    e->max_sequences = params->max_sequences;
    e->chunk = params->chunk ? params->chunk : DEFAULT_CHUNK;
    e->n_threads = params->n_threads ? params->n_threads : pith_cpu_default_threads();
    if (e->n_threads > PITH_MAX_THREADS) e->n_threads = PITH_MAX_THREADS;
    e->geo = (pith_geometry){.n_layers = c->n_layers,
                             .n_heads = c->n_heads,
                             .n_kv_heads = c->n_kv_heads,
                             .head_dim = c->head_dim,
                             .elt_bytes = kv_type == PITH_KV_F32 ? 4 : 2};

    const uint32_t n_inputs = e->max_sequences > e->chunk ? e->max_sequences : e->chunk;
    e->sequences = pith_new(e->alloc, e->max_sequences, sizeof(void *));
    e->decoding = pith_new(e->alloc, e->max_sequences, sizeof(void *));
    e->segments = pith_new(e->alloc, e->max_sequences, sizeof *e->segments);
    e->decode_plans = pith_new(e->alloc, e->max_sequences, sizeof(void *));
    e->draw_rows = pith_new(e->alloc, e->max_sequences, sizeof *e->draw_rows);
    e->draws = pith_new(e->alloc, e->max_sequences, sizeof *e->draws);
    e->drawn = pith_new(e->alloc, e->max_sequences, sizeof *e->drawn);
    e->ids = pith_new(e->alloc, 3 * (size_t)n_inputs, sizeof *e->ids);
    if (!e->sequences || !e->decoding || !e->segments || !e->decode_plans || !e->draw_rows || !e->draws || !e->drawn ||
        !e->ids) {
        status = pith_fail(err, PITH_E_MEMORY, "no memory for an engine of %u sequences", e->max_sequences);
        goto failed;
    }
    e->pos = e->ids + n_inputs;
    e->slot = e->pos + n_inputs;

    if ((status = create_backend(e, device, err)) != PITH_OK) goto failed;
    if ((status = check_weights_fit(e, err)) != PITH_OK) goto failed;
    const pith_ops *ops = e->backend->ops;
    status = ops->sample_reserve(e->backend, e->max_sequences, c->n_vocab, err);
    if (status == PITH_OK)
        status = ops->logits_create(e->backend, e->max_sequences, c->n_vocab, &e->decode_logits, err);
    if (status == PITH_OK) status = ops->logits_create(e->backend, 1, c->n_vocab, &e->prefill_logits, err);
    pith_prefix_init(&e->prefix, &e->pool, e->alloc, pith_n_lanes(&e->geo), e->chunk);
    e->share_prefixes = params->share_prefixes, e->spread_compressions = params->spread_compressions;
    // The largest plans first: smaller ones then fit into the memory that these need. One comes before the pool, which
    // on a GPU gets what the weights leave.
    if (status == PITH_OK) status = pith_engine_prefill_plan(e, e->chunk, NULL, err);
    if (status == PITH_OK)
        status = pith_pool_init(&e->pool, e->backend, e->alloc, &e->geo,
                                pool_pages(params, e->backend, &e->geo, e->n_ctx), err);
    const uint32_t fewest = ops->plan_warm ? 1 : e->max_sequences;
    for (uint32_t n = e->max_sequences; status == PITH_OK && n >= fewest; n--) {
        status = pith_engine_decode_plan(e, n, err);
        if (status == PITH_OK && ops->plan_warm) ops->plan_warm(e->decode_plans[n - 1], e->decode_logits);
    }
    if (status == PITH_OK) status = ops->check(e->backend, err);
    if (status != PITH_OK) goto failed;
    *out = e;
    return PITH_OK;

failed:
    pith_engine_free(e);
    return status;
}

void pith_engine_free(pith_engine *e) {
    if (!e) return;
    while (e->n_sequences > 0) pith_sequence_free(e->sequences[e->n_sequences - 1]);
    for (uint32_t i = 0; e->decode_plans && i < e->max_sequences; i++)
        if (e->decode_plans[i]) e->backend->ops->plan_free(e->decode_plans[i]);
    for (uint32_t i = 0; i < PREFILL_PLANS; i++)
        if (e->prefill_plans[i].plan) e->backend->ops->plan_free(e->prefill_plans[i].plan);
    pith_prefix_free(&e->prefix);
    pith_pool_free(&e->pool);
    const uint32_t n_inputs = e->max_sequences > e->chunk ? e->max_sequences : e->chunk;
    const uint32_t n_vocab = pith_model_config(e->model)->n_vocab,
                   event_layers = e->backend ? e->backend->ops->event_layers : 0;
    if (e->backend) {
        e->backend->ops->logits_destroy(e->backend, e->decode_logits, e->max_sequences, n_vocab);
        e->backend->ops->logits_destroy(e->backend, e->prefill_logits, 1, n_vocab);
        e->backend->ops->free(e->backend);
    }
    pith_delete(e->alloc, e->sequences, e->max_sequences, sizeof(void *));
    pith_delete(e->alloc, e->decoding, e->max_sequences, sizeof(void *));
    pith_delete(e->alloc, e->segments, e->max_sequences, sizeof *e->segments);
    pith_delete(e->alloc, e->decode_plans, e->max_sequences, sizeof(void *));
    pith_delete(e->alloc, e->draw_rows, e->max_sequences, sizeof *e->draw_rows);
    pith_delete(e->alloc, e->draws, e->max_sequences, sizeof *e->draws);
    pith_delete(e->alloc, e->drawn, e->max_sequences, sizeof *e->drawn);
    pith_delete(e->alloc, e->ids, 3 * (size_t)n_inputs, sizeof *e->ids);
    pith_delete(e->alloc, e->keep, (size_t)event_layers * e->geo.n_kv_heads * e->keep_cap, sizeof *e->keep);
    pith_delete(e->alloc, e->kept, e->kept_cap, sizeof *e->kept);
    pith_delete(e->alloc, e, 1, sizeof *e);
}

void pith_engine_describe(const pith_engine *e, pith_engine_info *out) {
    const uint64_t page = e->pool.pages.page_bytes;
    *out = (pith_engine_info){
        .n_threads = e->n_threads,
        .n_ctx = e->n_ctx,
        .kv_type = e->kv_type,
        .page_rows = PITH_PAGE_ROWS,
        .page_bytes = page,
        .pool_bytes = e->pool.n_pages * page,
        .pool_used_bytes = (e->pool.n_pages - e->pool.n_free) * page,
        .row_bytes = pith_row_bytes(&e->geo) * pith_n_lanes(&e->geo),
        .prefix_bytes = e->prefix.n_pages * page,
    };
    pith_device_info device;
    e->backend->ops->describe(e->backend, &device);
    memcpy(out->device, device.name, sizeof out->device);
    memcpy(out->isa, device.isa, sizeof out->isa);
    memcpy(out->note, device.note, sizeof out->note);
    out->device_bytes_used = device.bytes_used, out->device_bytes_total = device.bytes_total;
    out->read_bytes_per_second = device.read_bytes_per_second;
}

pith_status pith_peak_bytes(const pith_engine *e, const char *policy, uint32_t n_prompt, uint32_t max_new,
                            uint64_t *bytes, pith_error *err) {
    pith_spec spec;
    pith_status status = pith_spec_parse(policy, &spec, err);
    if (status != PITH_OK) return status;
    pith_policy_state fresh = {0};
    const uint32_t room = n_prompt < e->n_ctx ? e->n_ctx - n_prompt : 0; // a turn ends where the context does
    if (max_new > room) max_new = room;
    *bytes = pith_kv_pages_for(&e->geo, spec.policy->peak_rows(&spec.params, &fresh, 0, n_prompt, max_new)) *
             e->pool.pages.page_bytes;
    return PITH_OK;
}

void pith_engine_on_compress(pith_engine *e, pith_event_fn fn, void *ctx) {
    e->on_compress = fn;
    e->on_compress_ctx = ctx;
}
