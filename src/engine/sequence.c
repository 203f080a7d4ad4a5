// A sequence: its turns, and what they reserve.
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"

void pith_sequence_params_init(pith_sequence_params *params) {
    *params = (pith_sequence_params){.sampling = {.temperature = 0.6f, .top_p = 0.95f}, .max_new = 4096};
}

pith_status pith_policy_check(const char *spec, char *canonical, size_t capacity, pith_error *err) {
    pith_spec parsed;
    pith_status status = pith_spec_parse(spec, &parsed, err);
    if (status == PITH_OK && canonical && capacity > 0) {
        strncpy(canonical, parsed.text, capacity - 1);
        canonical[capacity - 1] = '\0';
    }
    return status;
}

static pith_status check(const pith_sequence_params *p, pith_error *err) {
    const pith_sampling *s = &p->sampling;
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return pith_fail(err, PITH_E_ARG, "temperature: expected 0 to 100, found %g", (double)s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return pith_fail(err, PITH_E_ARG, "top-p: expected more than 0, at most 1, found %g", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return pith_fail(err, PITH_E_ARG, "min-p: expected 0 to 1, found %g", (double)s->min_p);
    if (p->max_new < 1) return pith_fail(err, PITH_E_ARG, "new tokens: expected at least 1");
    return PITH_OK;
}

pith_status pith_sequence_new(pith_engine *e, const pith_sequence_params *params, pith_sequence **out,
                              pith_error *err) {
    *out = NULL;
    pith_spec spec;
    pith_status status = pith_spec_parse(params->policy, &spec, err);
    if (status == PITH_OK) status = check(params, err);
    if (status != PITH_OK) return status;
    if (e->n_sequences == e->max_sequences)
        return pith_fail(err, PITH_E_STATE, "all %u sequences are in use", e->max_sequences);

    pith_sequence *s = pith_new(e->alloc, 1, sizeof *s);
    if (!s) return pith_fail(err, PITH_E_MEMORY, "no memory for a sequence");
    e->sequences[e->n_sequences++] = s; // from here pith_sequence_free undoes everything
    s->engine = e, s->spec = spec, s->params = *params, s->forced = -1;
    s->params.policy = s->spec.text;
    s->cap_tokens = e->n_ctx;
    s->tokens = pith_new(e->alloc, s->cap_tokens, sizeof *s->tokens);
    if (!s->tokens) status = pith_fail(err, PITH_E_MEMORY, "no memory for a sequence");
    if (status == PITH_OK)
        status =
            e->backend->ops->window_create(e->backend, &e->geo, spec.policy->window(&spec.params), &s->window, err);
    if (status == PITH_OK) status = pith_kv_init(&s->kv, &e->pool, e->alloc, e->n_ctx, err);
    // Every batch size up to the number of sequences has its plan, so that a decode step records nothing.
    for (uint32_t n = e->n_sequences; status == PITH_OK && n >= 1; n--) status = pith_engine_decode_plan(e, n, err);
    if (status != PITH_OK) {
        pith_sequence_free(s);
        return status;
    }
    *out = s;
    return PITH_OK;
}

void pith_sequence_free(pith_sequence *s) {
    if (!s) return;
    pith_engine *e = s->engine;
    uint32_t at = 0;
    while (e->sequences[at] != s) at++;
    memmove(&e->sequences[at], &e->sequences[at + 1], (--e->n_sequences - at) * sizeof *e->sequences);
    pith_prefix_release(s->last_chunk);
    pith_kv_free(&s->kv);
    e->backend->ops->window_destroy(e->backend, &e->geo, &s->window);
    pith_delete(e->alloc, s->prompts, s->cap_prompts, sizeof *s->prompts);
    pith_delete(e->alloc, s->tokens, s->cap_tokens, sizeof *s->tokens);
    pith_delete(e->alloc, s, 1, sizeof *s);
}

// ------------------------------------------------------------------------------------------------- admission

uint32_t pith_sequence_stable(const pith_sequence *s) {
    return s->n_prompts == 0 ? 0 : (uint32_t)s->prompts[0].end; // the first turn's prompt; generated rows follow it
}

uint32_t pith_sequence_prompt_below(const pith_sequence *s, uint32_t pos) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_prompts && (uint32_t)s->prompts[i].begin < pos; i++) {
        const uint32_t end = (uint32_t)s->prompts[i].end;
        n += (end < pos ? end : pos) - (uint32_t)s->prompts[i].begin;
    }
    return n;
}

static pith_status grow_scratch(pith_engine *e, uint32_t candidates, uint32_t rows, pith_error *err) {
    const size_t lanes = (size_t)e->backend->ops->event_layers * e->geo.n_kv_heads;
    if (candidates > e->keep_cap) {
        uint32_t *keep = pith_new(e->alloc, lanes * candidates, sizeof *keep);
        if (!keep) return pith_fail(err, PITH_E_MEMORY, "no memory for compression");
        pith_delete(e->alloc, e->keep, lanes * e->keep_cap, sizeof *keep);
        e->keep = keep, e->keep_cap = candidates;
    }
    if (rows > e->kept_cap) {
        int32_t *kept = pith_new(e->alloc, rows, sizeof *kept);
        if (!kept) return pith_fail(err, PITH_E_MEMORY, "no memory for compression");
        pith_delete(e->alloc, e->kept, e->kept_cap, sizeof *kept);
        e->kept = kept, e->kept_cap = rows;
    }
    return PITH_OK;
}

// What a turn of n_prompt more tokens and max_new generated ones can need at most. A generated token of the last turn
// that has no row yet counts with the new ones.
static void worst_case(const pith_sequence *s, uint32_t n_prompt, uint32_t max_new, uint32_t *peak,
                       uint32_t *candidates) {
    const uint32_t pending = s->n_tokens - s->n_cached;
    *peak = s->spec.policy->peak_rows(&s->spec.params, &s->state, pith_kv_rows(&s->kv), n_prompt, max_new + pending);
    *candidates = s->spec.policy->max_candidates(&s->spec.params, &s->state, max_new + pending);
}

static pith_status reserve_events(pith_sequence *s, uint32_t peak, uint32_t candidates, pith_error *err) {
    if (candidates == 0) return PITH_OK;
    pith_engine *e = s->engine;
    pith_status status = grow_scratch(e, candidates, peak, err);
    if (status != PITH_OK) return status;
    return e->backend->ops->events_reserve(e->backend, &e->geo, candidates,
                                           s->spec.policy->max_queries(&s->spec.params), err);
}

// Kept prefixes give way to sequences, unless even all of the pool would not do.
static bool make_room(pith_engine *e, uint32_t peak) {
    return pith_kv_pages_for(&e->geo, peak) <= e->pool.n_pages && pith_prefix_evict(&e->prefix);
}

// How many tokens of a history of n may be there already. One at least is left to read, whose logits start the answer;
// a policy that ranks by the prompt's last queries needs these computed, so their tokens are read too.
static uint32_t most_reused(const pith_sequence *s, uint32_t n) {
    pith_policy_state fresh = {0};
    if (n == 0) return 0;
    if (s->spec.policy->observe_prompt(&s->spec.params, &fresh, n - 1, n) < 0) return n - 1;
    const uint32_t queries = s->spec.policy->max_queries(&s->spec.params);
    return n > queries ? n - queries : 0;
}

static void begin_sharing(pith_sequence *s, uint32_t n_prompt) {
    pith_prefix_release(s->last_chunk);
    s->last_chunk = NULL, s->n_shared = 0;
    s->shares = s->engine->share_prefixes && s->n_tokens == 0;
    s->share_limit = most_reused(s, n_prompt);
}

pith_status pith_sequence_prompt(pith_sequence *s, const pith_token *tokens, size_t n, pith_error *err) {
    pith_engine *e = s->engine;
    const uint32_t n_vocab = pith_model_config(e->model)->n_vocab;
    if (s->phase == PITH_READY || s->phase == PITH_DECODE || s->phase == PITH_PREFILL)
        return pith_fail(err, PITH_E_STATE, "the sequence's turn has not ended");
    if (n == 0) return pith_fail(err, PITH_E_ARG, "the prompt is empty");
    if (n >= s->cap_tokens || s->n_tokens + n >= s->cap_tokens)
        return pith_fail(
            err, PITH_E_CONTEXT,
            "the prompt has %zu tokens; the context has %u, of which %u are free, and one must be left for the answer",
            n, s->cap_tokens, s->cap_tokens - s->n_tokens);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= n_vocab)
            return pith_fail(err, PITH_E_ARG, "token %zu: expected an id below %u, found %d", i, n_vocab,
                             (int)tokens[i]);

    if (s->n_prompts == s->cap_prompts) {
        uint32_t cap = s->cap_prompts ? 2 * s->cap_prompts : 4;
        pith_span *more = pith_new(e->alloc, cap, sizeof *more);
        if (!more) return pith_fail(err, PITH_E_MEMORY, "no memory for a turn");
        if (s->n_prompts > 0) memcpy(more, s->prompts, s->n_prompts * sizeof *more);
        pith_delete(e->alloc, s->prompts, s->cap_prompts, sizeof *more);
        s->prompts = more, s->cap_prompts = cap;
    }

    const uint32_t room = s->cap_tokens - s->n_tokens - (uint32_t)n;
    const uint32_t limit = s->params.max_new < room ? s->params.max_new : room;
    uint32_t peak, candidates;
    worst_case(s, (uint32_t)n, limit, &peak, &candidates);
    pith_status status = reserve_events(s, peak, candidates, err);
    const uint32_t stable = s->n_prompts > 0 ? pith_sequence_stable(s) : (uint32_t)n;
    if (status == PITH_OK) do
            status = pith_kv_reserve(&s->kv, peak, stable, err);
        while (status == PITH_E_MEMORY && make_room(e, peak));
    if (status != PITH_OK) return status;

    begin_sharing(s, (uint32_t)n);
    s->prompts[s->n_prompts++] = (pith_span){(int32_t)s->n_tokens, (int32_t)(s->n_tokens + n)};
    memcpy(s->tokens + s->n_tokens, tokens, n * sizeof *tokens);
    s->n_tokens += (uint32_t)n;
    s->n_generated = 0, s->turn_limit = limit;
    s->prefill_s = s->decode_s = s->compress_s = 0;
    s->phase = PITH_PREFILL, s->logits = NULL, s->forced = -1;
    return PITH_OK;
}

pith_status pith_sequence_rewind(pith_sequence *s, const pith_token *history, size_t n, size_t *n_kept,
                                 pith_error *err) {
    if (s->phase == PITH_READY || s->phase == PITH_DECODE || s->phase == PITH_PREFILL)
        return pith_fail(err, PITH_E_STATE, "the sequence's turn has not ended");
    size_t same = 0;
    while (same < n && same < s->n_tokens && history[same] == s->tokens[same]) same++;
    *n_kept = same;
    if (same == s->n_tokens && same < n) return PITH_OK; // the history goes on where the sequence stands

    // Rows behind the first generated token may have been evicted: only those in front of it are a fresh run's.
    uint32_t keep = pith_sequence_stable(s);
    if (same < keep) keep = (uint32_t)same;
    if (keep > most_reused(s, (uint32_t)n)) keep = most_reused(s, (uint32_t)n);
    pith_kv_truncate(&s->kv, keep);
    if (s->n_cached > keep) s->n_cached = keep;
    s->n_tokens = keep;
    s->n_prompts = keep > 0;
    if (keep > 0) s->prompts[0].end = (int32_t)keep;
    s->state = (pith_policy_state){0};
    s->phase = PITH_IDLE, s->logits = NULL;
    s->n_generated = s->n_compressions = 0;
    s->rows_peak = pith_kv_rows(&s->kv), s->bytes_peak = pith_kv_bytes(&s->kv);
    *n_kept = keep;
    return PITH_OK;
}

pith_status pith_sequence_fork(pith_sequence *s, const pith_sequence_params *params, pith_sequence **out,
                               pith_error *err) {
    *out = NULL;
    if (s->phase != PITH_READY)
        return pith_fail(err, PITH_E_STATE, "only a sequence that has just been prefilled can fork");
    pith_spec spec;
    pith_status status = pith_spec_parse(params->policy, &spec, err);
    if (status != PITH_OK) return status;
    if (strcmp(spec.text, s->spec.text) != 0)
        return pith_fail(err, PITH_E_ARG, "a fork keeps its policy: expected %s, found %s", s->spec.text, spec.text);

    pith_sequence *f;
    if ((status = pith_sequence_new(s->engine, params, &f, err)) != PITH_OK) return status;
    pith_engine *e = s->engine;
    const uint32_t room = s->cap_tokens - s->n_tokens;
    f->turn_limit = params->max_new < room ? params->max_new : room;
    f->prompts = pith_new(e->alloc, s->n_prompts, sizeof *f->prompts);
    if (!f->prompts) {
        pith_sequence_free(f);
        return pith_fail(err, PITH_E_MEMORY, "no memory for a fork");
    }
    f->cap_prompts = f->n_prompts = s->n_prompts;
    memcpy(f->prompts, s->prompts, s->n_prompts * sizeof *f->prompts);
    memcpy(f->tokens, s->tokens, s->n_tokens * sizeof *f->tokens);
    e->backend->ops->window_copy(e->backend, &e->geo, &f->window, &s->window);
    f->state = s->state, f->n_tokens = s->n_tokens, f->n_cached = s->n_cached;
    f->phase = s->phase, f->logits = s->logits;

    // Both must be able to go to the longer one's end: whoever writes a shared page copies it.
    const uint32_t longest = f->turn_limit > s->turn_limit ? f->turn_limit : s->turn_limit;
    uint32_t peak, candidates;
    worst_case(s, 0, longest, &peak, &candidates);
    status = reserve_events(f, peak, candidates, err);
    if (status == PITH_OK) do
            status = pith_kv_fork(&f->kv, &s->kv, peak, pith_sequence_stable(s), err);
        while (status == PITH_E_MEMORY && make_room(e, peak));
    if (status != PITH_OK) {
        pith_sequence_free(f);
        return status;
    }
    f->n_shared = s->n_shared;
    f->rows_peak = pith_kv_rows(&f->kv);
    f->bytes_peak = pith_kv_bytes(&f->kv);
    *out = f;
    return PITH_OK;
}

// ------------------------------------------------------------------------------------------- looking and nudging

void pith_sequence_describe(const pith_sequence *s, pith_sequence_info *out) {
    *out = (pith_sequence_info){
        .phase = s->phase,
        .n_tokens = s->n_tokens,
        .n_prompt = pith_sequence_prompt_below(s, s->n_tokens),
        .n_turn_prompt =
            s->n_prompts == 0 ? 0 : (uint32_t)(s->prompts[s->n_prompts - 1].end - s->prompts[s->n_prompts - 1].begin),
        .n_shared = s->n_shared,
        .n_generated = s->n_generated,
        .n_waiting = s->phase == PITH_PREFILL ? s->n_tokens - s->n_cached : 0,
        .n_compressions = s->n_compressions,
        .rows = pith_kv_rows(&s->kv),
        .rows_peak = s->rows_peak,
        .rows_full = s->n_cached,
        .bytes = pith_kv_bytes(&s->kv),
        .bytes_peak = s->bytes_peak,
        .bytes_full = pith_kv_pages_for(&s->engine->geo, s->n_cached) * s->engine->pool.pages.page_bytes,
        .prefill_ms = 1e3 * s->prefill_s,
        .decode_ms = 1e3 * s->decode_s,
        .compress_ms = 1e3 * s->compress_s,
    };
}

const pith_token *pith_sequence_tokens(const pith_sequence *s, size_t *n) {
    *n = s->n_tokens;
    return s->tokens;
}

void pith_sequence_stop(pith_sequence *s) {
    if (s->phase == PITH_PREFILL) { // tokens that were never read are not part of the timeline
        pith_span *last = &s->prompts[s->n_prompts - 1];
        if ((uint32_t)last->end > s->n_cached) {
            last->end = (int32_t)(s->n_cached > (uint32_t)last->begin ? s->n_cached : (uint32_t)last->begin);
            if (last->end == last->begin) s->n_prompts--;
            s->n_tokens = (uint32_t)last->end;
        }
    }
    if (s->phase == PITH_PREFILL || s->phase == PITH_READY || s->phase == PITH_DECODE) s->phase = PITH_STOPPED;
    if (s->overdue) pith_engine_compress(s->engine, s); // the next turn's worst case counts from here
    s->forced = -1, s->logits = NULL;
}

const float *pith_sequence_logits(const pith_sequence *s) {
    if (!s->logits) return NULL;
    const pith_engine *e = s->engine;
    return e->backend->ops->logits_read(e->backend, s->logits, pith_model_config(e->model)->n_vocab);
}

pith_status pith_sequence_force(pith_sequence *s, pith_token token, pith_error *err) {
    if ((s->phase != PITH_READY && s->phase != PITH_DECODE) || s->n_cached < s->n_tokens)
        return pith_fail(err, PITH_E_STATE, "the sequence draws no token in the next step");
    const uint32_t n_vocab = pith_model_config(s->engine->model)->n_vocab;
    if (token < 0 || (uint32_t)token >= n_vocab)
        return pith_fail(err, PITH_E_ARG, "token: expected an id below %u, found %d", n_vocab, (int)token);
    s->forced = token;
    return PITH_OK;
}
