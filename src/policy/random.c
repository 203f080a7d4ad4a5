// Random rows: what any score must beat. The method of "Random Attention" (arXiv 2609.03430) with the prompts of all
// turns protected (there "random_pp"); docs/policies.md says what of it is known to us.
//
//     survivors   of the candidates (generated rows but the last R, as far as they are still there) a subset of the
//                 size wanted, all subsets equally likely, drawn anew for every layer and KV head
//
// How many and when, options and defaults: baseline.h; and seed=0.
//
// Draws are keyed, without state: by the policy's seed, a number of the sequence's own, the compressions done, layer,
// head and candidate. So two sequences do not lose the same rows, while one and the same loses the same rows whatever
// its neighbours and the number of threads.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "policy/baseline.h"
#include "policy/option.h"
#include "policy/registry.h"

static pith_status random_set(pith_params *params, const char *key, const char *value, pith_error *err) {
    if (strcmp(key, "seed") != 0) return pith_baseline_set("random", "p, r, c, budget, seed", params, key, value, err);
    pith_baseline p = pith_baseline_params(params);
    pith_status status = pith_option_u32("random", key, value, 0, UINT32_MAX, &p.seed, err);
    if (!status) pith_baseline_store(params, &p);
    return status;
}

static pith_status random_check(pith_params *params, pith_error *err) {
    return pith_baseline_check("random", params, err);
}

static void random_print(const pith_params *params, char *out, size_t capacity) {
    pith_baseline_print(params, out, capacity);
    const size_t n = strlen(out);
    snprintf(out + n, capacity - n, ",seed=%" PRIu32, pith_baseline_params(params).seed);
}

// keep (n_keep) of n, ascending. Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S):
// each candidate is taken with the probability (still wanted) / (still to come). A uniform number is below 1, so the
// last ones are taken when all of them are wanted.
static void draw_subset(uint64_t key, uint64_t set, uint32_t n, uint32_t n_keep, uint32_t *keep) {
    for (uint32_t j = 0, taken = 0; taken < n_keep; j++)
        if (pith_uniform(key, set, j) * (n - j) < n_keep - taken) keep[taken++] = j;
}

static void random_select(const pith_params *params, const pith_policy_state *state, pith_event *event) {
    const uint64_t k = pith_baseline_begin(params, state, event);
    const uint64_t own = pith_mix64(pith_mix64(pith_baseline_params(params).seed) + event->draw);
    const uint64_t key = pith_mix64(own + k);
    const uint32_t n_heads = event->group.pages->geo.n_kv_heads, n_keep = event->scores.n_keep;
    for (uint32_t i = 0; i < event->group.n_layers * n_heads; i++)
        draw_subset(key, (uint64_t)event->group.layer * n_heads + i, event->scores.n, n_keep,
                    event->keep + (size_t)i * n_keep);
    event->backend->ops->choose(event->backend, &event->scores, n_heads, n_keep, event->keep);
}

const pith_policy pith_policy_random = {
    .name = "random",
    .summary = "the prompt, random rows of each KV head and the last r, as many as rpc keeps or a budget",
    .defaults = pith_baseline_defaults,
    .set = random_set,
    .check = random_check,
    .print = random_print,
    .window = pith_baseline_window,
    .observe_prompt = pith_baseline_observe_prompt,
    .observe = pith_baseline_observe,
    .advance = pith_baseline_advance,
    .due = pith_baseline_due,
    .select = random_select,
    .settle = pith_baseline_settle,
    .peak_rows = pith_baseline_peak_rows,
    .max_candidates = pith_baseline_max_candidates,
    .max_queries = pith_baseline_max_queries,
};
