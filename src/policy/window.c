// The most recent rows: what remains when nothing is known about a row but its age. A baseline; as "sliding window" or
// "recent only" in most papers on cache compression, here with the prompts of all turns protected.
//
//     survivors   of the candidates (generated rows but the last R) the newest, the same in all layers and heads
//
// So after every compression the generated rows in the cache are the newest without a gap. How many and when, options
// and defaults: baseline.h.
#include "policy/baseline.h"
#include "policy/registry.h"

static pith_status window_set(pith_params *params, const char *key, const char *value, pith_error *err) {
    return pith_baseline_set("window", "p, r, c, budget", params, key, value, err);
}

static pith_status window_check(pith_params *params, pith_error *err) {
    return pith_baseline_check("window", params, err);
}

static void window_select(const pith_params *params, const pith_policy_state *state, pith_event *event) {
    pith_baseline_begin(params, state, event);
    const uint32_t n_keep = event->scores.n_keep, first = event->scores.n - n_keep;
    for (uint32_t layer = 0; layer < event->group.n_layers; layer++)
        for (uint32_t i = 0; i < n_keep; i++) event->keep[(size_t)layer * n_keep + i] = first + i;
    event->backend->ops->choose(event->backend, &event->scores, 1, n_keep, event->keep);
}

const pith_policy pith_policy_window = {
    .name = "window",
    .summary = "the prompt and the most recent rows, as many as rpc keeps or a budget",
    .defaults = pith_baseline_defaults,
    .set = window_set,
    .check = window_check,
    .print = pith_baseline_print,
    .window = pith_baseline_window,
    .observe_prompt = pith_baseline_observe_prompt,
    .observe = pith_baseline_observe,
    .advance = pith_baseline_advance,
    .due = pith_baseline_due,
    .select = window_select,
    .settle = pith_baseline_settle,
    .peak_rows = pith_baseline_peak_rows,
    .max_candidates = pith_baseline_max_candidates,
    .max_queries = pith_baseline_max_queries,
};
