// The step: draw a token for every sequence that has logits, decode all of them as one batch, compress what is due,
// prefill one chunk.
//
// Compressions that fall together can be spread over steps, so that a running answer waits for few of them: a sequence
// whose compression is overdue draws its next token and then sits out until it has been compressed. The trigger counts
// the sequence's own tokens and the compression comes before the next row, as always, so nobody's answer changes.
//
// Draws come first because the logits lie in memory that the step's plans write again. Prefill comes last so that a
// running answer waits for at most one chunk.
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "engine/engine.h"

// ------------------------------------------------------------------------------------------------- compression

// One event for each layer of the group and, where they were chosen apart, each KV head.
static void report(pith_engine *e, pith_sequence *s, const pith_group *group, uint32_t n_sets, uint32_t rows_before) {
    const uint32_t n_heads = e->geo.n_kv_heads, n_told = n_sets == 1 ? 1 : n_heads;
    for (uint32_t i = 0; i < group->n_layers * n_told; i++) {
        const uint32_t layer = i / n_told, head = i % n_told, lane = layer * n_heads + head;
        e->backend->ops->positions(e->backend, group, lane, e->kept);
        pith_compress_event event = {
            .seq = s,
            .step = s->n_cached - pith_sequence_prompt_below(s, s->n_cached),
            .layer = group->layer + layer,
            .head = n_sets == 1 ? -1 : (int32_t)head,
            .rows_before = rows_before,
            .rows_after = group->lanes[lane].n_rows,
            .kept = e->kept,
        };
        e->on_compress(e->on_compress_ctx, &event);
    }
}

void pith_engine_compress(pith_engine *e, pith_sequence *s) {
    const double start = pith_seconds();
    const pith_policy *policy = s->spec.policy;
    const pith_sampling *sampling = &s->params.sampling;
    const uint32_t at_once = e->backend->ops->event_layers;
    for (uint32_t layer = 0; layer < e->geo.n_layers; layer += at_once) {
        const uint32_t left = e->geo.n_layers - layer;
        pith_event event = {
            .backend = e->backend,
            .group = pith_kv_group(&s->kv, layer, left < at_once ? left : at_once, &s->window),
            .protect = s->prompts,
            .n_protect = s->n_prompts,
            .draw = pith_mix64(pith_mix64(sampling->seed) + sampling->stream),
            .keep = e->keep,
        };
        const uint32_t rows_before = event.group.lanes->n_rows;
        policy->select(&s->spec.params, &s->state, &event);
        pith_kv_compact(&s->kv, layer, pith_sequence_stable(s), &event.scores);
        if (e->on_compress) report(e, s, &event.group, event.scores.n_sets, rows_before);
    }
    policy->settle(&s->spec.params, &s->state);
    s->n_compressions++, s->overdue = false;
    s->compress_s += pith_seconds() - start;
}

enum { SEQUENCES_PER_COMPRESSION = 8 }; // of a batch, one in so many is compressed in a step

// Those that have sat out come before those whose compression fell due in this step.
static void compress_some(pith_engine *e) {
    uint32_t left = e->spread_compressions ? 1 + e->n_sequences / SEQUENCES_PER_COMPRESSION : UINT32_MAX;
    for (int turn = 0; turn < 2; turn++) {
        for (uint32_t i = 0; i < e->n_sequences && left > 0; i++) {
            pith_sequence *s = e->sequences[i];
            if (!s->overdue || (turn == 0 && s->n_cached == s->n_tokens)) continue;
            pith_engine_compress(e, s);
            left--;
        }
    }
}

// ------------------------------------------------------------------------------------------------------ decode

// Its last token has a row, and so there are logits.
static bool draws(const pith_sequence *s) {
    return (s->phase == PITH_READY || s->phase == PITH_DECODE) && s->n_cached == s->n_tokens;
}

// e->drawn: a token for every sequence that draws, in their order.
static void draw_tokens(pith_engine *e) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_sequences; i++) {
        const pith_sequence *s = e->sequences[i];
        if (!draws(s) || s->forced >= 0) continue;
        const pith_sampling *p = &s->params.sampling;
        e->draw_rows[n] = s->logits;
        e->draws[n++] =
            (pith_draw){p->temperature, p->top_k, p->top_p, p->min_p, pith_uniform(p->seed, p->stream, s->n_tokens)};
    }
    if (n > 0)
        e->backend->ops->sample(e->backend, e->draw_rows, e->draws, n, pith_model_config(e->model)->n_vocab, e->drawn);
}

// Adds the next token to the timeline.
static void take_token(pith_engine *e, pith_sequence *s, pith_token token) {
    s->forced = -1;
    s->tokens[s->n_tokens++] = token;
    s->n_generated++;
    if (!s->params.ignore_end && pith_token_ends(e->model, token)) s->phase = PITH_STOPPED;
    else if (s->n_generated >= s->turn_limit) s->phase = PITH_LENGTH;
    else s->phase = PITH_DECODE;
    s->logits = NULL;                                                      // the step writes others' there
    if (s->phase != PITH_DECODE && s->overdue) pith_engine_compress(e, s); // a turn ends with nothing outstanding
}

// The last turn's final token was drawn and never read: it comes before the new prompt, as the decode row it is.
static bool has_pending_token(const pith_sequence *s) {
    return s->phase == PITH_PREFILL && s->n_cached < (uint32_t)s->prompts[s->n_prompts - 1].begin;
}

static bool wants_row(const pith_sequence *s) {
    return !s->overdue && (has_pending_token(s) || (s->phase == PITH_DECODE && s->n_cached < s->n_tokens));
}

static void note_peak(pith_sequence *s) {
    const uint32_t rows = pith_kv_rows(&s->kv);
    const uint64_t bytes = pith_kv_bytes(&s->kv);
    if (rows > s->rows_peak) s->rows_peak = rows;
    if (bytes > s->bytes_peak) s->bytes_peak = bytes;
}

static pith_status decode(pith_engine *e, pith_error *err) {
    const double start = pith_seconds();
    draw_tokens(e);
    uint32_t n = 0;
    for (uint32_t i = 0, k = 0; i < e->n_sequences; i++) {
        pith_sequence *s = e->sequences[i];
        if (draws(s)) take_token(e, s, s->forced >= 0 ? s->forced : e->drawn[k++]);
        if (wants_row(s)) e->decoding[n++] = s;
    }
    if (n == 0) return compress_some(e), PITH_OK;
    pith_status status = pith_engine_decode_plan(e, n, err);
    if (status != PITH_OK) return status;

    for (uint32_t i = 0; i < n; i++) {
        pith_sequence *s = e->decoding[i];
        e->ids[i] = s->tokens[s->n_cached];
        e->pos[i] = (int32_t)s->n_cached;
        e->slot[i] = s->spec.policy->observe(&s->spec.params, &s->state);
        pith_kv_grow(&s->kv, 1);
        e->segments[i] =
            (pith_segment){.lanes = s->kv.lanes, .table = s->kv.table, .window = &s->window, .first = i, .n_tokens = 1};
        note_peak(s);
    }
    const pith_step step = {e->ids, e->pos, e->slot, e->segments, n, e->decode_logits};
    e->backend->ops->replay(e->decode_plans[n - 1], &step);

    const size_t n_vocab = pith_model_config(e->model)->n_vocab;
    for (uint32_t i = 0; i < n; i++) {
        pith_sequence *s = e->decoding[i];
        s->logits = s->phase == PITH_DECODE ? e->decode_logits + i * n_vocab : NULL;
        s->n_cached++;
        s->spec.policy->advance(&s->spec.params, &s->state);
        s->overdue = s->spec.policy->due(&s->spec.params, &s->state);
    }
    compress_some(e);
    const double seconds = pith_seconds() - start;
    for (uint32_t i = 0; i < n; i++) e->decoding[i]->decode_s += seconds;
    return PITH_OK;
}

// ----------------------------------------------------------------------------------------------------- prefill

// Takes over the next chunks of a prompt that others have read. What is taken over is whole chunks, so the borders of
// the rest stay where they would be.
static void take_over(pith_engine *e, pith_sequence *s) {
    while (s->shares && s->n_cached % e->chunk == 0 && s->n_cached + e->chunk <= s->share_limit) {
        pith_prefix_node *next = pith_prefix_find(&e->prefix, s->last_chunk, s->tokens + s->n_cached);
        if (!next) return;
        pith_prefix_adopt(&e->prefix, next, &s->kv);
        pith_prefix_hold(next);
        pith_prefix_release(s->last_chunk);
        s->last_chunk = next;
        s->n_cached += e->chunk, s->n_shared += e->chunk;
        note_peak(s);
    }
}

// Keeps a chunk that was read for others. Without memory for that, nothing is kept.
static void keep_chunk(pith_engine *e, pith_sequence *s, uint32_t first, uint32_t end) {
    if (s->shares && end - first == e->chunk) {
        pith_prefix_node *kept = pith_prefix_find(&e->prefix, s->last_chunk, s->tokens + first);
        if (!kept) kept = pith_prefix_add(&e->prefix, s->last_chunk, s->tokens + first, &s->kv, first);
        pith_prefix_hold(kept);
        pith_prefix_release(s->last_chunk);
        s->last_chunk = kept, s->shares = kept != NULL;
    }
    if (end < s->n_tokens) return;
    pith_prefix_release(s->last_chunk);
    s->last_chunk = NULL, s->shares = false;
}

// Chunk borders lie at multiples of the chunk in the sequence's own positions: a row's chunk does not depend on what
// was shared or when the prompt came.
static pith_status prefill(pith_engine *e, pith_error *err) {
    pith_sequence *s = NULL;
    for (uint32_t i = 0; i < e->n_sequences && !s; i++)
        if (e->sequences[i]->phase == PITH_PREFILL && !has_pending_token(e->sequences[i]) && !e->sequences[i]->overdue)
            s = e->sequences[i];
    if (!s) return PITH_OK;

    const double start = pith_seconds();
    take_over(e, s);
    const pith_span prompt = s->prompts[s->n_prompts - 1];
    const uint32_t first = s->n_cached, border = (first / e->chunk + 1) * e->chunk;
    const uint32_t end = border < s->n_tokens ? border : s->n_tokens, n = end - first;
    pith_plan *plan;
    pith_status status = pith_engine_prefill_plan(e, n, &plan, err);
    if (status != PITH_OK) return status;

    for (uint32_t t = 0; t < n; t++) {
        e->ids[t] = s->tokens[first + t];
        e->pos[t] = (int32_t)(first + t);
        e->slot[t] = s->spec.policy->observe_prompt(&s->spec.params, &s->state, first + t - (uint32_t)prompt.begin,
                                                    (uint32_t)(prompt.end - prompt.begin));
    }
    pith_kv_grow(&s->kv, n);
    note_peak(s);
    e->segments[0] =
        (pith_segment){.lanes = s->kv.lanes, .table = s->kv.table, .window = &s->window, .first = 0, .n_tokens = n};
    const pith_step step = {e->ids, e->pos, e->slot, e->segments, 1, e->prefill_logits};
    e->backend->ops->replay(plan, &step);

    s->n_cached = end;
    keep_chunk(e, s, first, end);
    if (end == s->n_tokens) {
        s->phase = PITH_READY, s->logits = e->prefill_logits;
        if (e->backend->ops->wait) e->backend->ops->wait(e->backend); // as the draw would, for prefill_s
    }
    s->prefill_s += pith_seconds() - start;
    return PITH_OK;
}

pith_status pith_engine_step(pith_engine *e, uint32_t *n_active, pith_error *err) {
    e->n_steps++;
    pith_status status = decode(e, err);
    if (status == PITH_OK) status = prefill(e, err);
    if (status == PITH_OK) status = e->backend->ops->check(e->backend, err);
    *n_active = 0;
    for (uint32_t i = 0; i < e->n_sequences; i++) {
        const pith_phase phase = e->sequences[i]->phase;
        *n_active += phase == PITH_PREFILL || phase == PITH_READY || phase == PITH_DECODE;
    }
    return status;
}
