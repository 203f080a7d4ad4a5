#include "eval/results.h"

#include <stdlib.h>

#include "eval/fail.h"

uint32_t eval_part_problems(const eval_part *part) {
    return part->limit > part->shard ? (part->limit - part->shard - 1) / part->n_shards + 1 : 0;
}

pith_status eval_results_init(eval_results *r, const char *policy, const char *label, const eval_part *part,
                              pith_error *err) {
    *r = (eval_results){.policy = policy, .label = label, .part = *part};
    r->have = calloc((size_t)part->limit * part->samples + 1, sizeof *r->have);
    return r->have ? PITH_OK : eval_no_memory(err);
}

void eval_results_free(eval_results *r) {
    free(r->samples);
    free(r->have);
    *r = (eval_results){.n = 0};
}

static bool is_wanted(const eval_results *r, uint32_t problem, uint32_t sample) {
    return eval_part_has(&r->part, problem) && sample < r->part.samples;
}

bool eval_results_has(const eval_results *r, uint32_t problem, uint32_t sample) {
    return is_wanted(r, problem, sample) && r->have[(size_t)problem * r->part.samples + sample];
}

pith_status eval_results_add(eval_results *r, const eval_sample *s, pith_error *err) {
    if (!is_wanted(r, s->problem, s->sample) || eval_results_has(r, s->problem, s->sample)) return PITH_OK;
    if (r->n == r->capacity) {
        const size_t capacity = r->capacity ? 2 * r->capacity : 64;
        eval_sample *more = realloc(r->samples, capacity * sizeof *more);
        if (!more) return eval_no_memory(err);
        r->samples = more, r->capacity = capacity;
    }
    r->samples[r->n++] = *s;
    r->have[(size_t)s->problem * r->part.samples + s->sample] = true;
    return PITH_OK;
}
