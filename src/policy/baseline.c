#include "policy/baseline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "policy/option.h"
#include "policy/schedule.h"

enum { RATIO_PERIOD = 1024, BUDGET_PERIOD = 128, RECENT = 32, RATIO = 4 }; // the defaults

_Static_assert(sizeof(pith_baseline) <= sizeof(pith_params), "parameters fit");
_Static_assert(sizeof(pith_counts) <= sizeof(pith_policy_state), "state fits");

pith_baseline pith_baseline_params(const pith_params *params) {
    pith_baseline p;
    memcpy(&p, params->bytes, sizeof p);
    return p;
}
void pith_baseline_store(pith_params *params, const pith_baseline *p) { memcpy(params->bytes, p, sizeof *p); }

static pith_counts counts_of(const pith_policy_state *state) {
    pith_counts s;
    memcpy(&s, state->bytes, sizeof s);
    return s;
}
static void store_counts(pith_policy_state *state, const pith_counts *s) { memcpy(state->bytes, s, sizeof *s); }

// ---------------------------------------------------------------------------------------------------- options

// Period, ratio and budget stay 0 until all options are known: their defaults depend on one another.
void pith_baseline_defaults(pith_params *params) { pith_baseline_store(params, &(pith_baseline){.recent = RECENT}); }

static pith_status set_key(const char *policy, const char *keys, pith_baseline *p, const char *key, const char *value,
                           pith_error *err) {
    if (!strcmp(key, "p")) return pith_option_u32(policy, key, value, 1, PITH_PERIOD_MAX, &p->period, err);
    if (!strcmp(key, "r")) return pith_option_u32(policy, key, value, 1, PITH_RECENT_MAX, &p->recent, err);
    if (!strcmp(key, "c")) return pith_option_micro(policy, key, value, 1, PITH_PERIOD_MAX, &p->ratio, err);
    if (!strcmp(key, "budget")) return pith_option_u32(policy, key, value, 2, PITH_BUDGET_MAX, &p->budget, err);
    return pith_option_unknown(policy, key, keys, err);
}

pith_status pith_baseline_set(const char *policy, const char *keys, pith_params *params, const char *key,
                              const char *value, pith_error *err) {
    pith_baseline p = pith_baseline_params(params);
    pith_status status = set_key(policy, keys, &p, key, value, err);
    if (!status) pith_baseline_store(params, &p);
    return status;
}

static pith_status check_budget(const char *policy, const pith_baseline *p, pith_error *err) {
    if (p->ratio) {
        char c[PITH_OPTION_MICRO_TEXT];
        pith_option_micro_print(p->ratio, c);
        return pith_fail(err, PITH_E_ARG, "policy '%s': c=%s with budget=%" PRIu32 ": expected one of the two", policy,
                         c, p->budget);
    }
    if (p->budget <= p->recent)
        return pith_fail(err, PITH_E_ARG,
                         "policy '%s': budget=%" PRIu32 ": expected more than r=%" PRIu32 ", the rows that always stay",
                         policy, p->budget, p->recent);
    return PITH_OK;
}

pith_status pith_baseline_check(const char *policy, pith_params *params, pith_error *err) {
    pith_baseline p = pith_baseline_params(params);
    pith_status status;
    if (p.budget) {
        if (!p.period) p.period = BUDGET_PERIOD;
        status = check_budget(policy, &p, err);
    } else {
        if (!p.period) p.period = RATIO_PERIOD;
        if (!p.ratio) p.ratio = (uint64_t)RATIO * PITH_OPTION_MICRO;
        status = pith_schedule_check(policy, p.period, p.ratio, err);
    }
    pith_baseline_store(params, &p);
    return status;
}

void pith_baseline_print(const pith_params *params, char *out, size_t capacity) {
    const pith_baseline p = pith_baseline_params(params);
    char c[PITH_OPTION_MICRO_TEXT];
    pith_option_micro_print(p.ratio, c);
    if (p.budget) snprintf(out, capacity, "p=%" PRIu32 ",r=%" PRIu32 ",budget=%" PRIu32, p.period, p.recent, p.budget);
    else snprintf(out, capacity, "p=%" PRIu32 ",r=%" PRIu32 ",c=%s", p.period, p.recent, c);
}

// ---------------------------------------------------------------------------------------- it observes no queries

uint32_t pith_baseline_window(const pith_params *params) {
    (void)params;
    return 0;
}

int32_t pith_baseline_observe_prompt(const pith_params *params, pith_policy_state *state, uint32_t i, uint32_t n) {
    (void)params, (void)state, (void)i, (void)n;
    return -1;
}

int32_t pith_baseline_observe(const pith_params *params, pith_policy_state *state) {
    (void)params, (void)state;
    return -1;
}

uint32_t pith_baseline_max_queries(const pith_params *params) {
    (void)params;
    return 0;
}

// ----------------------------------------------------------------------------------- when it fires, how many stay

static pith_schedule schedule_of(const pith_params *params) {
    const pith_baseline p = pith_baseline_params(params);
    return p.budget ? pith_schedule_budget(p.period, p.recent, p.budget)
                    : pith_schedule_ratio(p.period, p.recent, p.ratio);
}

void pith_baseline_advance(const pith_params *params, pith_policy_state *state) {
    (void)params;
    pith_counts s = counts_of(state);
    s.m++;
    store_counts(state, &s);
}

bool pith_baseline_due(const pith_params *params, const pith_policy_state *state) {
    const pith_schedule schedule = schedule_of(params);
    const pith_counts s = counts_of(state);
    return pith_schedule_due(&schedule, &s);
}

uint64_t pith_baseline_begin(const pith_params *params, const pith_policy_state *state, pith_event *event) {
    const pith_schedule schedule = schedule_of(params);
    const pith_counts s = counts_of(state);
    event->backend->ops->candidates(event->backend, &event->group, event->protect, event->n_protect,
                                    (uint32_t)schedule.recent, &event->scores);
    event->scores.n_keep = pith_schedule_keep(&schedule, &s);
    return s.k;
}

void pith_baseline_settle(const pith_params *params, pith_policy_state *state) {
    (void)params;
    pith_counts s = counts_of(state);
    s.k++;
    store_counts(state, &s);
}

// --------------------------------------------------------------------------------------------------- worst case

uint32_t pith_baseline_peak_rows(const pith_params *params, const pith_policy_state *state, uint32_t n_rows,
                                 uint32_t n_prompt, uint32_t max_new) {
    const pith_schedule schedule = schedule_of(params);
    const pith_counts s = counts_of(state);
    return pith_schedule_peak_rows(&schedule, &s, n_rows, n_prompt, max_new);
}

uint32_t pith_baseline_max_candidates(const pith_params *params, const pith_policy_state *state, uint32_t max_new) {
    const pith_schedule schedule = schedule_of(params);
    const pith_counts s = counts_of(state);
    return pith_schedule_max_candidates(&schedule, &s, max_new);
}
