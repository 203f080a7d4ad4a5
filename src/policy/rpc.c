// RPC: Reasoning Path Compression. Song, Jo, Kim, Kim: "Reasoning Path Compression: Compressing Generation
// Trajectories for Efficient LLM Reasoning", NeurIPS 2025, arXiv 2505.13866. docs/policies.md has the long version.
//
// Let m be the number of generated tokens in the cache, P the period, R the window, c the ratio and T = floor(P/c).
// The k-th compression, k = 1, 2, ..., is due when m >= kP + R. For each layer on its own:
//
//     candidates  generated rows but the last R, in row order: S = (k-1)T + P of them; prompts of all turns are safe
//     weight      A[h][r][j] = softmax over the candidates j of q[r][h] . key[j] / sqrt(d), for R recent queries r
//     importance  s[j] = mean over h of sum over r of A[h][r][j], then averaged over j-3 ... j+3
//     survivors   the kT candidates of highest importance, ties to the lower row; prompt and window stay as they are
//
// Counting, and with it the worst case, is schedule.h's business.
//
// Defaults are the paper's: P = 1024, R = 32, c = 4, average over 7, one set per layer, recent queries.
//
// Deviations from the authors' code, which compat=1 undoes: each of the last R queries counts once (there the oldest is
// missing and the newest counts twice), scores are f32 (there bf16), averages at the ends divide by the candidates that
// exist (there always by 7). The paper's Algorithm 1, taken literally, would gather the R queries after each trigger;
// its text, its figure 4 and the code gather those before, and so do we.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "policy/option.h"
#include "policy/registry.h"
#include "policy/schedule.h"

enum { POOL_MAX = 255 };

typedef enum selector { SEL_RECENT, SEL_NEW, SEL_PROMPT } selector;

static const char *const agg_names[] = {
    [PITH_AGG_LAYER] = "layer", [PITH_AGG_GROUP] = "group", [PITH_AGG_HEAD] = "head", NULL};
static const char *const sel_names[] = {[SEL_RECENT] = "recent", [SEL_NEW] = "new", [SEL_PROMPT] = "prompt", NULL};
static const char *const bool_names[] = {"0", "1", NULL};

typedef struct rpc {
    uint64_t ratio;  // c in millionths
    uint32_t period; // P
    uint32_t recent; // R
    uint32_t width;  // of the pooling, odd; 1 with PITH_POOL_NONE
    uint32_t pool;   // pith_pool
    uint32_t agg;    // pith_aggregate
    uint32_t sel;    // selector
    uint32_t compat;
    uint32_t zero; // in place of padding: equal parameters are equal bytes
} rpc;

typedef struct rpc_state {
    pith_counts counts; // m, k
    uint32_t n_prompt;  // queries of the latest prompt that the window holds (sel=prompt)
} rpc_state;

_Static_assert(sizeof(rpc) <= sizeof(pith_params), "parameters fit");
_Static_assert(sizeof(rpc_state) <= sizeof(pith_policy_state), "state fits");

static rpc params_of(const pith_params *params) {
    rpc p;
    memcpy(&p, params->bytes, sizeof p);
    return p;
}
static rpc_state state_of(const pith_policy_state *state) {
    rpc_state s;
    memcpy(&s, state->bytes, sizeof s);
    return s;
}
static void store_params(pith_params *params, const rpc *p) { memcpy(params->bytes, p, sizeof *p); }
static void store_state(pith_policy_state *state, const rpc_state *s) { memcpy(state->bytes, s, sizeof *s); }

// ---------------------------------------------------------------------------------------------------- options

static void rpc_defaults(pith_params *params) {
    store_params(params, &(rpc){.period = 1024,
                                .recent = 32,
                                .ratio = (uint64_t)4 * PITH_OPTION_MICRO,
                                .pool = PITH_POOL_AVG,
                                .width = 7,
                                .agg = PITH_AGG_LAYER,
                                .sel = SEL_RECENT});
}

// "avg7", "max5", "none"
static pith_status set_pool(rpc *p, const char *value, pith_error *err) {
    if (!strcmp(value, "none")) {
        p->pool = PITH_POOL_NONE;
        p->width = 1;
        return PITH_OK;
    }
    const bool avg = !strncmp(value, "avg", 3), max = !strncmp(value, "max", 3);
    uint32_t width;
    if ((!avg && !max) || pith_option_u32("rpc", "pool", value + 3, 1, POOL_MAX, &width, NULL))
        return pith_fail(err, PITH_E_ARG,
                         "policy 'rpc': pool=%s: expected avgN, maxN or none, N an odd number from 1 to %d", value,
                         POOL_MAX);
    if (width % 2 == 0)
        return pith_fail(err, PITH_E_ARG,
                         "policy 'rpc': pool=%s: the width %" PRIu32 " is even, expected an odd number from 1 to %d",
                         value, width, POOL_MAX);
    p->pool = avg ? PITH_POOL_AVG : PITH_POOL_MAX;
    p->width = width;
    return PITH_OK;
}

static pith_status set_key(rpc *p, const char *key, const char *value, pith_error *err) {
    if (!strcmp(key, "p")) return pith_option_u32("rpc", key, value, 1, PITH_PERIOD_MAX, &p->period, err);
    if (!strcmp(key, "r")) return pith_option_u32("rpc", key, value, 1, PITH_RECENT_MAX, &p->recent, err);
    if (!strcmp(key, "c")) return pith_option_micro("rpc", key, value, 1, PITH_PERIOD_MAX, &p->ratio, err);
    if (!strcmp(key, "pool")) return set_pool(p, value, err);
    if (!strcmp(key, "agg")) return pith_option_choice("rpc", key, value, agg_names, &p->agg, err);
    if (!strcmp(key, "sel")) return pith_option_choice("rpc", key, value, sel_names, &p->sel, err);
    if (!strcmp(key, "compat")) return pith_option_choice("rpc", key, value, bool_names, &p->compat, err);
    return pith_option_unknown("rpc", key, "p, r, c, pool, agg, sel, compat", err);
}

static pith_status rpc_set(pith_params *params, const char *key, const char *value, pith_error *err) {
    rpc p = params_of(params);
    pith_status status = set_key(&p, key, value, err);
    if (!status) store_params(params, &p);
    return status;
}

static pith_status rpc_check(pith_params *params, pith_error *err) {
    const rpc p = params_of(params);
    pith_status status = pith_schedule_check("rpc", p.period, p.ratio, err);
    if (status) return status;
    if (p.compat && p.agg == PITH_AGG_HEAD)
        return pith_fail(
            err, PITH_E_ARG,
            "policy 'rpc': agg=head with compat=1: expected layer or group, the reference cannot run head");
    return PITH_OK;
}

static void rpc_print(const pith_params *params, char *out, size_t capacity) {
    const rpc p = params_of(params);
    char c[PITH_OPTION_MICRO_TEXT], pool[16] = "none";
    pith_option_micro_print(p.ratio, c);
    if (p.pool != PITH_POOL_NONE)
        snprintf(pool, sizeof pool, "%s%" PRIu32, p.pool == PITH_POOL_AVG ? "avg" : "max", p.width);
    snprintf(out, capacity, "p=%" PRIu32 ",r=%" PRIu32 ",c=%s,pool=%s,agg=%s,sel=%s,compat=%" PRIu32, p.period,
             p.recent, c, pool, agg_names[p.agg], sel_names[p.sel], p.compat);
}

// T, survivors added per compression, is at least 1 because c <= P. The division is exact, but the reference's is one
// of doubles, which for a fractional c may end just below a whole number: int(33 / 1.1) is 29.
static pith_schedule schedule_of(const rpc *p) {
    pith_schedule schedule = pith_schedule_ratio(p->period, p->recent, p->ratio);
    if (p->compat) schedule.gain = (uint64_t)((double)p->period / ((double)p->ratio / PITH_OPTION_MICRO));
    return schedule;
}

// The reference knows 'recent' and takes everything else for 'new'.
static selector selector_of(const rpc *p) {
    if (p->compat && p->sel == SEL_PROMPT) return SEL_NEW;
    return (selector)p->sel;
}

// --------------------------------------------------------------------------------------------- what it observes

// The newest query needs one slot. For recent ones the window is a ring: the i-th generated token's query, i = 1, 2,
// ..., lies in slot (i-1) mod R. For the prompt's the slots are in order.
static uint32_t rpc_window(const pith_params *params) {
    const rpc p = params_of(params);
    return selector_of(&p) == SEL_NEW ? 1 : p.recent;
}

// The last R queries of this turn's prompt, or all of a shorter one; those of an earlier turn are forgotten.
static int32_t rpc_observe_prompt(const pith_params *params, pith_policy_state *state, uint32_t i, uint32_t n) {
    const rpc p = params_of(params);
    if (selector_of(&p) != SEL_PROMPT) return -1;
    rpc_state s = state_of(state);
    s.n_prompt = n < p.recent ? n : p.recent;
    store_state(state, &s);
    const uint32_t first = n - s.n_prompt;
    return i < first ? -1 : (int32_t)(i - first);
}

static int32_t rpc_observe(const pith_params *params, pith_policy_state *state) {
    const rpc p = params_of(params);
    if (selector_of(&p) == SEL_PROMPT) return -1;
    return (int32_t)(state_of(state).counts.m % rpc_window(params)); // the token that comes is number m + 1
}

static void rpc_advance(const pith_params *params, pith_policy_state *state) {
    (void)params;
    rpc_state s = state_of(state);
    s.counts.m++;
    store_state(state, &s);
}

// ------------------------------------------------------------------------------------------------ when it fires

static bool rpc_due(const pith_params *params, const pith_policy_state *state) {
    const rpc p = params_of(params);
    const rpc_state s = state_of(state);
    const pith_schedule schedule = schedule_of(&p);
    return pith_schedule_due(&schedule, &s.counts);
}

static void rpc_settle(const pith_params *params, pith_policy_state *state) {
    (void)params;
    rpc_state s = state_of(state);
    s.counts.k++;
    store_state(state, &s);
}

// -------------------------------------------------------------------------------------------- score and select

// compat: number i of the first generated token whose query the reference has gathered when it fires at m = (k+1)P + R.
// It gathers q_i while i >= (k+1)P + 2, starting afresh after each compression. When it fires it appends q_m, which it
// has already: R-1 queries and a repetition; with R = 1 only q_m; with R > P, from the second compression on, all P
// since the last one and a repetition.
static uint64_t first_gathered(const rpc *p, const pith_counts *s) {
    const uint64_t by_count = s->m + 2 - p->recent, after_last = s->k * p->period + p->recent + 1;
    return s->k > 0 && after_last > by_count ? after_last : by_count;
}

// The slots whose queries score the candidates, from the oldest to the newest; returns their number, at most R.
static uint32_t selectors(const rpc *p, const rpc_state *s, uint32_t slots[PITH_RECENT_MAX]) {
    const uint64_t m = s->counts.m;
    uint32_t n = 0;
    switch (selector_of(p)) {
    case SEL_NEW: slots[n++] = 0; break;
    case SEL_PROMPT:
        for (; n < s->n_prompt; n++) slots[n] = n;
        break;
    case SEL_RECENT:
        for (uint64_t i = p->compat ? first_gathered(p, &s->counts) : m + 1 - p->recent; i <= m; i++)
            slots[n++] = (uint32_t)((i - 1) % p->recent);
        if (p->compat) slots[n++] = (uint32_t)((m - 1) % p->recent);
        break;
    }
    return n;
}

static void rpc_select(const pith_params *params, const pith_policy_state *state, pith_event *event) {
    const rpc p = params_of(params);
    const rpc_state s = state_of(state);
    const pith_schedule schedule = schedule_of(&p);
    const pith_arith arith = p.compat ? PITH_ARITH_BF16 : PITH_ARITH_F32;
    const pith_ops *ops = event->backend->ops;
    uint32_t slots[PITH_RECENT_MAX];
    const uint32_t n_slots = selectors(&p, &s, slots);

    ops->candidates(event->backend, &event->group, event->protect, event->n_protect, p.recent, &event->scores);
    ops->mass(event->backend, &event->group, slots, n_slots, arith, &event->scores);
    ops->aggregate(event->backend, &event->group.pages->geo, (pith_aggregate)p.agg, arith, &event->scores);
    ops->pool(event->backend, (pith_pool)p.pool, p.width, arith, &event->scores);
    ops->top(event->backend, &event->scores, pith_schedule_keep(&schedule, &s.counts));
}

// --------------------------------------------------------------------------------------------------- worst case

static uint32_t rpc_peak_rows(const pith_params *params, const pith_policy_state *state, uint32_t n_rows,
                              uint32_t n_prompt, uint32_t max_new) {
    const rpc p = params_of(params);
    const rpc_state s = state_of(state);
    const pith_schedule schedule = schedule_of(&p);
    return pith_schedule_peak_rows(&schedule, &s.counts, n_rows, n_prompt, max_new);
}

static uint32_t rpc_max_candidates(const pith_params *params, const pith_policy_state *state, uint32_t max_new) {
    const rpc p = params_of(params);
    const rpc_state s = state_of(state);
    const pith_schedule schedule = schedule_of(&p);
    return pith_schedule_max_candidates(&schedule, &s.counts, max_new);
}

static uint32_t rpc_max_queries(const pith_params *params) {
    const rpc p = params_of(params);
    return selector_of(&p) == SEL_NEW ? 1 : p.recent;
}

const pith_policy pith_policy_rpc = {
    .name = "rpc",
    .summary = "Reasoning Path Compression: every p tokens keep 1/c of what was generated",
    .defaults = rpc_defaults,
    .set = rpc_set,
    .check = rpc_check,
    .print = rpc_print,
    .window = rpc_window,
    .observe_prompt = rpc_observe_prompt,
    .observe = rpc_observe,
    .advance = rpc_advance,
    .due = rpc_due,
    .select = rpc_select,
    .settle = rpc_settle,
    .peak_rows = rpc_peak_rows,
    .max_candidates = rpc_max_candidates,
    .max_queries = rpc_max_queries,
};
