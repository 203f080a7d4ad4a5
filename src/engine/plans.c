// The recorded shapes of an engine: one decode plan for each batch size, and the prefill plans in recent use.
#include "engine/engine.h"

pith_status pith_engine_decode_plan(pith_engine *e, uint32_t n, pith_error *err) {
    pith_plan **plan = &e->decode_plans[n - 1];
    if (*plan && !e->backend->ops->plan_is_stale(*plan)) return PITH_OK;
    if (*plan) e->backend->ops->plan_free(*plan);
    pith_shape shape = {.cls = PITH_CLASS_DECODE, .n_tokens = n, .n_out = n};
    return pith_forward_record(e->model, e->backend, &e->geo, &shape, plan, err);
}

// Prefill shapes vary with the prompts' lengths: the least recently used one makes room.
pith_status pith_engine_prefill_plan(pith_engine *e, uint32_t n, pith_plan **out, pith_error *err) {
    pith_prefill_plan *entry = &e->prefill_plans[0];
    for (uint32_t i = 0; i < PREFILL_PLANS; i++) {
        pith_prefill_plan *p = &e->prefill_plans[i];
        if (p->plan && p->shape.n_tokens == n) {
            entry = p;
            break;
        }
        if (!p->plan || (entry->plan && p->used < entry->used)) entry = p;
    }
    if (entry->plan && (entry->shape.n_tokens != n || e->backend->ops->plan_is_stale(entry->plan))) {
        e->backend->ops->plan_free(entry->plan);
        entry->plan = NULL;
    }
    entry->used = e->n_steps;
    if (!entry->plan) {
        entry->shape = (pith_shape){.cls = PITH_CLASS_PREFILL, .n_tokens = n, .n_out = 1};
        pith_status status = pith_forward_record(e->model, e->backend, &e->geo, &entry->shape, &entry->plan, err);
        if (status != PITH_OK) return status;
    }
    if (out) *out = entry->plan;
    return PITH_OK;
}
