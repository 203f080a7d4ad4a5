#include "eval/table.h"

#include <math.h>
#include <string.h>

// ------------------------------------------------------------------------------------------------- cells

static void samples(const eval_row *r, char out[EVAL_CELL]) { snprintf(out, EVAL_CELL, "%zu", r->n_samples); }

static void pass(const eval_row *r, char out[EVAL_CELL]) {
    snprintf(out, EVAL_CELL, "%.3f [%.3f, %.3f]", r->pass.mean, r->pass.low, r->pass.high);
}

static void difference(const eval_row *r, char out[EVAL_CELL]) {
    if (isnan(r->difference.mean)) return;
    snprintf(out, EVAL_CELL, "%+.3f [%+.3f, %+.3f]", r->difference.mean, r->difference.low, r->difference.high);
}

static void finished(const eval_row *r, char out[EVAL_CELL]) { snprintf(out, EVAL_CELL, "%.1f %%", 100 * r->finished); }

static void tokens(const eval_row *r, char out[EVAL_CELL]) { snprintf(out, EVAL_CELL, "%.0f", r->tokens); }

static void rows(double n, double share, char out[EVAL_CELL]) {
    snprintf(out, EVAL_CELL, "%.0f (%.0f %%)", n, 100 * share);
}

static void bytes(double n, double share, char out[EVAL_CELL]) {
    snprintf(out, EVAL_CELL, "%.*f MB (%.0f %%)", n < 10e6 ? 2 : 1, n / 1e6, 100 * share);
}

static void rows_mean(const eval_row *r, char out[EVAL_CELL]) { rows(r->rows_mean, r->rows_mean_share, out); }
static void rows_peak(const eval_row *r, char out[EVAL_CELL]) { rows(r->rows_peak, r->rows_peak_share, out); }
static void bytes_mean(const eval_row *r, char out[EVAL_CELL]) { bytes(r->bytes_mean, r->bytes_mean_share, out); }
static void bytes_peak(const eval_row *r, char out[EVAL_CELL]) { bytes(r->bytes_peak, r->bytes_peak_share, out); }

static void speed(const eval_row *r, char out[EVAL_CELL]) {
    if (!isnan(r->tokens_per_second)) snprintf(out, EVAL_CELL, "%.1f", r->tokens_per_second);
}

const eval_column eval_columns[EVAL_COLUMNS] = {
    {"samples", samples},      {"pass@1 [95 %]", pass},     {"to the first [95 %]", difference},
    {"finished", finished},    {"tokens", tokens},          {"rows, mean", rows_mean},
    {"rows, peak", rows_peak}, {"bytes, mean", bytes_mean}, {"bytes, peak", bytes_peak},
    {"tokens/s", speed},
};

// ------------------------------------------------------------------------------------------------- text

void eval_table_cell(const eval_column *column, const eval_row *row, char out[EVAL_CELL]) {
    strcpy(out, "-");
    if (row->n_samples > 0 || column->cell == samples) column->cell(row, out);
}

static int wider(int a, size_t b) { return (int)b > a ? (int)b : a; }

static void print_group(FILE *out, const eval_summary *s, size_t group, const int width[EVAL_COLUMNS + 1]) {
    fprintf(out, "\n%-*s", width[0], eval_summary_group(s, group));
    for (size_t c = 0; c < EVAL_COLUMNS; c++) fprintf(out, "  %*s", width[c + 1], eval_columns[c].name);
    fputc('\n', out);
    for (size_t p = 0; p < s->n_policies; p++) {
        fprintf(out, "%-*s", width[0], s->results[p].label);
        for (size_t c = 0; c < EVAL_COLUMNS; c++) {
            char cell[EVAL_CELL];
            eval_table_cell(&eval_columns[c], eval_summary_row(s, group, p), cell);
            fprintf(out, "  %*s", width[c + 1], cell);
        }
        fputc('\n', out);
    }
}

bool eval_table_print(FILE *out, const eval_summary *s, const eval_about *about) {
    int width[EVAL_COLUMNS + 1] = {6};
    for (size_t p = 0; p < s->n_policies; p++) width[0] = wider(width[0], strlen(s->results[p].label));
    for (size_t g = 0; g <= s->n_groups; g++) width[0] = wider(width[0], strlen(eval_summary_group(s, g)));
    for (size_t c = 0; c < EVAL_COLUMNS; c++) {
        width[c + 1] = (int)strlen(eval_columns[c].name);
        for (size_t i = 0; i < (1 + s->n_groups) * s->n_policies; i++) {
            char cell[EVAL_CELL];
            eval_table_cell(&eval_columns[c], &s->rows[i], cell);
            width[c + 1] = wider(width[c + 1], strlen(cell));
        }
    }
    fprintf(out, "%s\n", about->title);
    for (size_t g = 0; g <= s->n_groups; g++) print_group(out, s, g, width);
    return fflush(out) == 0 && !ferror(out);
}

// --------------------------------------------------------------------------------------------- Markdown

// Bars in a cell would end it.
static void put_escaped(FILE *out, const char *text) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

bool eval_table_markdown(FILE *out, const eval_summary *s, const eval_about *about) {
    fprintf(out, "%s\n\n| ", about->title);
    put_escaped(out, s->by);
    fputs(" | policy |", out);
    for (size_t c = 0; c < EVAL_COLUMNS; c++) fprintf(out, " %s |", eval_columns[c].name);
    fputs("\n| --- | --- |", out);
    for (size_t c = 0; c < EVAL_COLUMNS; c++) fputs(" ---: |", out);
    for (size_t i = 0; i < (1 + s->n_groups) * s->n_policies; i++) {
        const size_t group = (i / s->n_policies + 1) % (1 + s->n_groups), policy = i % s->n_policies; // all come last
        fputs("\n| ", out);
        if (policy == 0) put_escaped(out, eval_summary_group(s, group));
        fprintf(out, " | `%s` |", s->results[policy].label);
        for (size_t c = 0; c < EVAL_COLUMNS; c++) {
            char cell[EVAL_CELL];
            eval_table_cell(&eval_columns[c], eval_summary_row(s, group, policy), cell);
            fprintf(out, " %s |", cell);
        }
    }
    fputc('\n', out);
    return fflush(out) == 0 && !ferror(out);
}

// ------------------------------------------------------------------------------------------------- JSON

static json_t *number(double x) { return isnan(x) ? json_null() : json_real(x); }

static json_t *interval(const eval_interval *i) {
    return isnan(i->mean)
               ? json_null()
               : json_pack("{s:f, s:o, s:o}", "mean", i->mean, "low", number(i->low), "high", number(i->high));
}

static json_t *row_json(const eval_row *r) {
    if (r->n_samples == 0) return json_pack("{s:i, s:i}", "samples", 0, "problems", 0);
    return json_pack("{s:I, s:I, s:o, s:o, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", //
                     "samples", (json_int_t)r->n_samples, "problems", (json_int_t)r->n_problems, "pass_at_1",
                     interval(&r->pass), "difference", interval(&r->difference), "pairs", (json_int_t)r->n_pairs,
                     "finished", r->finished, "completion_tokens", r->tokens, "rows_mean", r->rows_mean,
                     "rows_mean_share", r->rows_mean_share, "rows_peak", r->rows_peak, "rows_peak_share",
                     r->rows_peak_share, "bytes_mean", r->bytes_mean, "bytes_mean_share", r->bytes_mean_share,
                     "bytes_peak", r->bytes_peak, "bytes_peak_share", r->bytes_peak_share, "tokens_per_second",
                     number(r->tokens_per_second));
}

json_t *eval_table_json(const eval_summary *s, const eval_about *about) {
    json_t *policies = json_array();
    for (size_t p = 0; p < s->n_policies; p++) {
        json_t *groups = json_object();
        for (size_t g = 1; g <= s->n_groups; g++)
            json_object_set_new(groups, s->groups[g - 1], row_json(eval_summary_row(s, g, p)));
        json_array_append_new(policies, json_pack("{s:s, s:s, s:o, s:o}", "policy", s->results[p].policy, "spec",
                                                  s->results[p].label, "all", row_json(eval_summary_row(s, 0, p)),
                                                  "groups", groups));
    }
    return json_pack("{s:O, s:o}", "settings", about->settings, "policies", policies);
}
