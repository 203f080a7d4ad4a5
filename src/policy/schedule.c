#include "policy/schedule.h"

#include <inttypes.h>

#include "policy/option.h"

pith_schedule pith_schedule_ratio(uint32_t period, uint32_t recent, uint64_t ratio) {
    return (pith_schedule){
        .period = period, .recent = recent, .gain = (uint64_t)period * PITH_OPTION_MICRO / ratio, .base = 0};
}

pith_schedule pith_schedule_budget(uint32_t period, uint32_t recent, uint32_t budget) {
    return (pith_schedule){.period = period, .recent = recent, .gain = 0, .base = budget - recent};
}

pith_status pith_schedule_check(const char *policy, uint32_t period, uint64_t ratio, pith_error *err) {
    if (ratio <= (uint64_t)period * PITH_OPTION_MICRO) return PITH_OK;
    char c[PITH_OPTION_MICRO_TEXT];
    pith_option_micro_print(ratio, c);
    return pith_fail(err, PITH_E_ARG, "policy '%s': c=%s: expected at most p=%" PRIu32 ", or nothing would be kept",
                     policy, c, period);
}

// Generated tokens at which compression k is due.
static uint64_t due_at(const pith_schedule *s, uint64_t k) { return s->base + k * s->period + s->recent; }

bool pith_schedule_due(const pith_schedule *s, const pith_counts *now) { return now->m >= due_at(s, now->k + 1); }

uint32_t pith_schedule_keep(const pith_schedule *s, const pith_counts *now) {
    return (uint32_t)(s->base + (now->k + 1) * s->gain); // at most the candidates, as T <= P
}

// ------------------------------------------------------------------------------------------------- worst cases

static uint32_t saturated(uint64_t n) { return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n; }

// Compressions done once m generated tokens are in the cache.
static uint64_t compressions_by(const pith_schedule *s, uint64_t m) {
    return m < due_at(s, 0) ? 0 : (m - due_at(s, 0)) / s->period;
}

// Rows grow by one per token and shrink by P - T per compression. They are the most just before the last compression
// (each comes T rows higher than the one before) or at the very end.
uint32_t pith_schedule_peak_rows(const pith_schedule *s, const pith_counts *now, uint32_t n_rows, uint32_t n_prompt,
                                 uint32_t max_new) {
    const uint64_t evicted = s->period - s->gain;
    const uint64_t k_end = compressions_by(s, now->m + max_new);
    const uint64_t start = (uint64_t)n_rows + n_prompt, end = start + max_new;
    if (k_end <= now->k) return saturated(end);
    const uint64_t n_events = k_end - now->k;
    const uint64_t before_last = start + (due_at(s, k_end) - now->m) - (n_events - 1) * evicted;
    const uint64_t at_end = end - n_events * evicted;
    return saturated(before_last > at_end ? before_last : at_end);
}

uint32_t pith_schedule_max_candidates(const pith_schedule *s, const pith_counts *now, uint32_t max_new) {
    const uint64_t k_end = compressions_by(s, now->m + max_new);
    if (k_end <= now->k) return 0;
    return saturated(s->base + (k_end - 1) * s->gain + s->period);
}
