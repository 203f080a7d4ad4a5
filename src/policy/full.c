// Full cache: every row stays. The baseline that the other policies are compared with; it has no options.
#include "policy/option.h"
#include "policy/registry.h"

static void full_defaults(pith_params *params) { (void)params; }

static pith_status full_set(pith_params *params, const char *key, const char *value, pith_error *err) {
    (void)params, (void)value;
    return pith_option_unknown("full", key, "", err);
}

static pith_status full_check(pith_params *params, pith_error *err) {
    (void)params, (void)err;
    return PITH_OK;
}

static void full_print(const pith_params *params, char *out, size_t capacity) {
    (void)params;
    if (capacity) out[0] = 0;
}

static uint32_t full_window(const pith_params *params) {
    (void)params;
    return 0;
}

static int32_t full_observe_prompt(const pith_params *params, pith_policy_state *state, uint32_t i, uint32_t n) {
    (void)params, (void)state, (void)i, (void)n;
    return -1;
}

static int32_t full_observe(const pith_params *params, pith_policy_state *state) {
    (void)params, (void)state;
    return -1;
}

static void full_advance(const pith_params *params, pith_policy_state *state) { (void)params, (void)state; }

static bool full_due(const pith_params *params, const pith_policy_state *state) {
    (void)params, (void)state;
    return false;
}

// Never due, so neither of these is called; a caller that does gets an event without candidates.
static void full_select(const pith_params *params, const pith_policy_state *state, pith_event *event) {
    (void)params, (void)state;
    event->scores = (pith_scores){0};
}

static void full_settle(const pith_params *params, pith_policy_state *state) { (void)params, (void)state; }

static uint32_t full_peak_rows(const pith_params *params, const pith_policy_state *state, uint32_t n_rows,
                               uint32_t n_prompt, uint32_t max_new) {
    (void)params, (void)state;
    uint64_t rows = (uint64_t)n_rows + n_prompt + max_new;
    return rows > UINT32_MAX ? UINT32_MAX : (uint32_t)rows;
}

static uint32_t full_max_candidates(const pith_params *params, const pith_policy_state *state, uint32_t max_new) {
    (void)params, (void)state, (void)max_new;
    return 0;
}

static uint32_t full_max_queries(const pith_params *params) {
    (void)params;
    return 0;
}

const pith_policy pith_policy_full = {
    .name = "full",
    .summary = "keep every row (no options)",
    .defaults = full_defaults,
    .set = full_set,
    .check = full_check,
    .print = full_print,
    .window = full_window,
    .observe_prompt = full_observe_prompt,
    .observe = full_observe,
    .advance = full_advance,
    .due = full_due,
    .select = full_select,
    .settle = full_settle,
    .peak_rows = full_peak_rows,
    .max_candidates = full_max_candidates,
    .max_queries = full_max_queries,
};
