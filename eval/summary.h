// The numbers of the tables: one row for each policy, over all problems and for each group of them.
#ifndef PITH_EVAL_SUMMARY_H
#define PITH_EVAL_SUMMARY_H

#include "eval/results.h"
#include "eval/stats.h"

// Means are over samples; a share is a mean relative to the mean without compression at the same lengths.
typedef struct eval_row {
    size_t n_samples, n_problems;
    eval_interval pass;       // pass@1
    size_t n_pairs;           // samples that both this and the first policy have; 0: the first itself
    eval_interval difference; // of pass@1 to the first policy, over these; NaN without pairs
    double finished;          // share of samples that ended by themselves
    double tokens;            // generated
    double rows_mean, rows_mean_share, rows_peak, rows_peak_share;
    double bytes_mean, bytes_mean_share, bytes_peak, bytes_peak_share;
    double tokens_per_second; // decoded by this run; NaN: nothing, or a group
} eval_row;

typedef struct eval_summary {
    const eval_task *task;       // borrowed, as are the results
    const eval_results *results; // (n_policies), the first is what others are compared with
    size_t n_policies;
    const char *by;              // the problems' field that groups them, borrowed
    const char **groups;         // (n_groups): its texts, of the task, in order of first appearance; only those with samples
    size_t n_groups;
    eval_row *rows; // (1 + n_groups, n_policies): all problems, then group by group
} eval_summary;

// by: such as "band"; problems in which it is no text are in no group.
pith_status eval_summarize(const eval_task *task, const char *by, const eval_results *results, size_t n_policies,
                           eval_summary *out, pith_error *err);
void eval_summary_free(eval_summary *);

static inline const eval_row *eval_summary_row(const eval_summary *s, size_t group, size_t policy) {
    return &s->rows[group * s->n_policies + policy];
}
static inline const char *eval_summary_group(const eval_summary *s, size_t group) {
    return group == 0 ? "all" : s->groups[group - 1];
}

#endif
