#include "eval/summary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/fail.h"

// Problems of which a field is a text; no text stands for all problems.
typedef struct selection {
    const eval_task *task;
    const char *field, *text;
} selection;

static bool selects(const selection *which, const eval_sample *s) {
    const char *own = which->text ? eval_problem_text(&which->task->problems[s->problem], which->field) : NULL;
    return !which->text || (own && strcmp(own, which->text) == 0);
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 1; }

static void add_means(const selection *which, const eval_results *r, eval_row *row) {
    double rows_full_mean = 0, rows_full = 0, bytes_full_mean = 0, bytes_full = 0;
    for (size_t i = 0; i < r->n; i++) {
        const eval_sample *s = &r->samples[i];
        if (!selects(which, s)) continue;
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
static void count(const selection *which, const eval_results *r, const eval_results *paired_with,
                  eval_cluster *clusters) {
    memset(clusters, 0, which->task->n * sizeof *clusters);
    for (size_t i = 0; i < r->n; i++) {
        const eval_sample *s = &r->samples[i];
        if (!selects(which, s) || !eval_results_has(paired_with, s->problem, s->sample)) continue;
        clusters[s->problem].n++;
        clusters[s->problem].n_correct += s->correct;
    }
}

static double rate_of(const eval_cluster *c) { return (double)c->n_correct / c->n; }

typedef struct scratch {
    eval_cluster *own, *first; // (problems)
    double *differences;       // (problems)
} scratch;

static void add_pass_rate(const selection *which, const eval_results *r, scratch *s, eval_row *row) {
    count(which, r, r, s->own);
    for (size_t i = 0; i < which->task->n; i++) // those with samples to the front
        if (s->own[i].n > 0) s->own[row->n_problems++] = s->own[i];
    row->pass = eval_pass_rate(s->own, row->n_problems);
}

static void add_difference(const selection *which, const eval_results *r, const eval_results *first, scratch *s,
                           eval_row *row) {
    count(which, r, first, s->own);
    count(which, first, r, s->first);
    size_t n = 0;
    for (size_t i = 0; i < which->task->n; i++) {
        if (s->own[i].n == 0) continue; // the same samples as in `first`
        s->differences[n++] = rate_of(&s->own[i]) - rate_of(&s->first[i]);
        row->n_pairs += s->own[i].n;
    }
    row->difference = eval_mean_difference(s->differences, n);
}

static bool has_samples(const eval_summary *s, const char *group) {
    const selection which = {s->task, s->by, group};
    for (size_t p = 0; p < s->n_policies; p++)
        for (size_t i = 0; i < s->results[p].n; i++)
            if (selects(&which, &s->results[p].samples[i])) return true;
    return false;
}

static bool find_groups(eval_summary *s) {
    if (!(s->groups = calloc(s->task->n, sizeof *s->groups))) return false;
    for (size_t i = 0; i < s->task->n; i++) {
        const char *group = eval_problem_text(&s->task->problems[i], s->by);
        bool known = !group;
        for (size_t j = 0; !known && j < s->n_groups; j++) known = strcmp(s->groups[j], group) == 0;
        if (!known && has_samples(s, group)) s->groups[s->n_groups++] = group;
    }
    return true;
}

static void fill_row(const eval_summary *s, size_t group, size_t policy, scratch *room, eval_row *row) {
    const eval_results *r = &s->results[policy];
    const selection which = {s->task, s->by, group == 0 ? NULL : s->groups[group - 1]};
    add_means(&which, r, row);
    add_pass_rate(&which, r, room, row);
    row->difference = (eval_interval){NAN, NAN, NAN};
    if (policy > 0) add_difference(&which, r, &s->results[0], room, row);
    row->tokens_per_second = group == 0 && r->decode_seconds > 0 ? (double)r->decoded / r->decode_seconds : NAN;
}

pith_status eval_summarize(const eval_task *task, const char *by, const eval_results *results, size_t n_policies,
                           eval_summary *out, pith_error *err) {
    *out = (eval_summary){.task = task, .by = by, .results = results, .n_policies = n_policies};
    scratch room = {calloc(task->n, sizeof *room.own), calloc(task->n, sizeof *room.first),
                    calloc(task->n, sizeof *room.differences)};
    bool ok = room.own && room.first && room.differences && find_groups(out);
    if (ok) ok = (out->rows = calloc((1 + out->n_groups) * n_policies, sizeof *out->rows)) != NULL;
    for (size_t group = 0; ok && group <= out->n_groups; group++)
        for (size_t p = 0; p < n_policies; p++) fill_row(out, group, p, &room, &out->rows[group * n_policies + p]);
    free(room.own);
    free(room.first);
    free(room.differences);
    if (ok) return PITH_OK;
    eval_summary_free(out);
    return eval_no_memory(err);
}

void eval_summary_free(eval_summary *s) {
    free(s->groups);
    free(s->rows);
    *s = (eval_summary){.n_policies = 0};
}
