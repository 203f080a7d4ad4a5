#include "eval/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/fail.h"

// NULL stands for all problems.
static bool in_band(const eval_task *task, const eval_sample *s, const char *band) {
    const char *own = task->problems[s->problem].band;
    return !band || (own && strcmp(own, band) == 0);
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 1; }

static void add_means(const eval_task *task, const eval_results *r, const char *band, eval_row *row) {
    double rows_full_mean = 0, rows_full = 0, bytes_full_mean = 0, bytes_full = 0;
    for (size_t i = 0; i < r->n; i++) {
        const eval_sample *s = &r->samples[i];
        if (!in_band(task, s, band)) continue;
        row->n_samples++;
        row->finished += s->finished, row->tokens += s->completion_tokens;
        row->rows_mean += s->rows_mean, rows_full_mean += s->rows_full_mean;
        row->rows_peak += s->rows_peak, rows_full += s->rows_full;
        row->bytes_mean += s->bytes_mean, bytes_full_mean += s->bytes_full_mean;
        row->bytes_peak += (double)s->bytes_peak, bytes_full += (double)s->bytes_full;
    }
    row->rows_mean_share = share(row->rows_mean, rows_full_mean);
    row->rows_peak_share = share(row->rows_peak, rows_full);
    row->bytes_mean_share = share(row->bytes_mean, bytes_full_mean);
    row->bytes_peak_share = share(row->bytes_peak, bytes_full);
    double *sums[] = {&row->finished,  &row->tokens,     &row->rows_mean,
                      &row->rows_peak, &row->bytes_mean, &row->bytes_peak};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) *sums[i] /= (double)row->n_samples;
}

// Samples by problem. clusters: (problems), zeroed here.
static void count(const eval_task *task, const eval_results *r, const char *band, const eval_results *paired_with,
                  eval_cluster *clusters) {
    memset(clusters, 0, task->n * sizeof *clusters);
    for (size_t i = 0; i < r->n; i++) {
        const eval_sample *s = &r->samples[i];
        if (!in_band(task, s, band) || !eval_results_has(paired_with, s->problem, s->sample)) continue;
        clusters[s->problem].n++;
        clusters[s->problem].n_correct += s->correct;
    }
}

static double rate_of(const eval_cluster *c) { return (double)c->n_correct / c->n; }

typedef struct scratch {
    eval_cluster *own, *first; // (problems)
    double *differences;       // (problems)
} scratch;

static void add_pass_rate(const eval_task *task, const eval_results *r, const char *band, scratch *s, eval_row *row) {
    count(task, r, band, r, s->own);
    for (size_t i = 0; i < task->n; i++) // those with samples to the front
        if (s->own[i].n > 0) s->own[row->n_problems++] = s->own[i];
    row->pass = eval_pass_rate(s->own, row->n_problems);
}

static void add_difference(const eval_task *task, const eval_results *r, const eval_results *first, const char *band,
                           scratch *s, eval_row *row) {
    count(task, r, band, first, s->own);
    count(task, first, band, r, s->first);
    size_t n = 0;
    for (size_t i = 0; i < task->n; i++) {
        if (s->own[i].n == 0) continue; // the same samples as in `first`
        s->differences[n++] = rate_of(&s->own[i]) - rate_of(&s->first[i]);
        row->n_pairs += s->own[i].n;
    }
    row->difference = eval_mean_difference(s->differences, n);
}

static bool has_samples(const eval_summary *s, const char *band) {
    for (size_t p = 0; p < s->n_policies; p++)
        for (size_t i = 0; i < s->results[p].n; i++)
            if (in_band(s->task, &s->results[p].samples[i], band)) return true;
    return false;
}

static bool find_bands(eval_summary *s) {
    if (!(s->bands = calloc(s->task->n, sizeof *s->bands))) return false;
    for (size_t i = 0; i < s->task->n; i++) {
        const char *band = s->task->problems[i].band;
        bool known = !band;
        for (size_t j = 0; !known && j < s->n_bands; j++) known = strcmp(s->bands[j], band) == 0;
        if (!known && has_samples(s, band)) s->bands[s->n_bands++] = band;
    }
    return true;
}

static void fill_row(const eval_summary *s, const char *band, size_t policy, scratch *room, eval_row *row) {
    const eval_results *r = &s->results[policy];
    add_means(s->task, r, band, row);
    add_pass_rate(s->task, r, band, room, row);
    row->difference = (eval_interval){NAN, NAN, NAN};
    if (policy > 0) add_difference(s->task, r, &s->results[0], band, room, row);
    row->tokens_per_second = !band && r->decode_seconds > 0 ? (double)r->decoded / r->decode_seconds : NAN;
}

pith_status eval_summarize(const eval_task *task, const eval_results *results, size_t n_policies, eval_summary *out,
                           pith_error *err) {
    *out = (eval_summary){.task = task, .results = results, .n_policies = n_policies};
    scratch room = {calloc(task->n, sizeof *room.own), calloc(task->n, sizeof *room.first),
                    calloc(task->n, sizeof *room.differences)};
    bool ok = room.own && room.first && room.differences && find_bands(out);
    if (ok) ok = (out->rows = calloc((1 + out->n_bands) * n_policies, sizeof *out->rows)) != NULL;
    for (size_t group = 0; ok && group <= out->n_bands; group++)
        for (size_t p = 0; p < n_policies; p++)
            fill_row(out, group == 0 ? NULL : out->bands[group - 1], p, &room, &out->rows[group * n_policies + p]);
    free(room.own);
    free(room.first);
    free(room.differences);
    if (ok) return PITH_OK;
    eval_summary_free(out);
    return eval_no_memory(err);
}

void eval_summary_free(eval_summary *s) {
    free(s->bands);
    free(s->rows);
    *s = (eval_summary){.n_policies = 0};
}
