#include "bench_report.h"

#include <math.h>
#include <string.h>

enum { CELL = BENCH_SIZE };

// ------------------------------------------------------------------------------------------------- cells

static void ms_cell(double ms, char out[CELL]) { snprintf(out, CELL, ms < 100 ? "%.2f" : "%.0f", ms); }

static void rate(const bench_row *r, char out[CELL]) {
    snprintf(out, CELL, "%.*f", r->value[BENCH_RATE] < 100 ? 1 : 0, r->value[BENCH_RATE]);
}
static void speedup(const bench_row *r, char out[CELL]) { snprintf(out, CELL, "%.2f", r->value[BENCH_SPEEDUP]); }
static void cache(const bench_row *r, char out[CELL]) { bench_size(r->value[BENCH_CACHE], out); }
static void memory(const bench_row *r, char out[CELL]) { bench_size(r->value[BENCH_MEMORY], out); }
static void step_bytes(const bench_row *r, char out[CELL]) { bench_size(r->value[BENCH_STEP_BYTES], out); }
static void share(const bench_row *r, char out[CELL]) { snprintf(out, CELL, "%.0f %%", 100 * r->value[BENCH_SHARE]); }
static void p50(const bench_row *r, char out[CELL]) { ms_cell(r->value[BENCH_P50], out); }
static void p99(const bench_row *r, char out[CELL]) { ms_cell(r->value[BENCH_P99], out); }
static void longest(const bench_row *r, char out[CELL]) { ms_cell(r->value[BENCH_MAX], out); }
static void event(const bench_row *r, char out[CELL]) { ms_cell(r->value[BENCH_EVENT], out); }
static void within(const bench_row *r, char out[CELL]) {
    snprintf(out, CELL, "%.0f %%", 100 * r->value[BENCH_EVENT_WITHIN]);
}

static const struct column {
    const char *name;
    bench_value value; // without it the cell is "-"
    void (*cell)(const bench_row *, char out[CELL]);
} columns[] = {
    {"tok/s", BENCH_RATE, rate},
    {"to full", BENCH_SPEEDUP, speedup},
    {"cache", BENCH_CACHE, cache},
    {"memory", BENCH_MEMORY, memory},
    {"read/step", BENCH_STEP_BYTES, step_bytes},
    {"bandwidth", BENCH_SHARE, share},
    {"ms p50", BENCH_P50, p50},
    {"p99", BENCH_P99, p99},
    {"max", BENCH_MAX, longest},
    {"event ms", BENCH_EVENT, event},
    {"in bound", BENCH_EVENT_WITHIN, within},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static void fill_cell(const struct column *c, const bench_row *r, char out[CELL]) {
    strcpy(out, "-");
    if (!isnan(r->value[c->value])) c->cell(r, out);
}

// ------------------------------------------------------------------------------------------------- table

static int wider(int a, size_t b) { return (int)b > a ? (int)b : a; }

static void print_row(FILE *out, const bench_row *r, int label, const int width[N_COLUMNS], bool phases) {
    fprintf(out, "%-*s  %5u  %6u", label, r->spec, r->batch, r->length);
    if (phases) fprintf(out, "  %-12s", r->staggered ? "out of phase" : "in phase");
    if (r->outcome != BENCH_OK) {
        fprintf(out, "  %s%s%s\n", bench_outcomes[r->outcome], *r->why ? ": " : "", r->why);
        return;
    }
    for (size_t c = 0; c < N_COLUMNS; c++) {
        char cell[CELL];
        fill_cell(&columns[c], r, cell);
        fprintf(out, "  %*s", width[c], cell);
    }
    fputs(r->extrapolated ? "  extrapolated\n" : "\n", out);
}

bool bench_report_table(FILE *out, const bench_grid *g) {
    int label = 6, width[N_COLUMNS];
    bool phases = false, extrapolated = false;
    for (size_t c = 0; c < N_COLUMNS; c++) width[c] = (int)strlen(columns[c].name);
    for (size_t i = 0; i < bench_grid_size(g); i++) {
        const bench_row *r = &g->rows[i];
        label = wider(label, strlen(r->spec));
        phases = phases || r->staggered, extrapolated = extrapolated || r->extrapolated;
        for (size_t c = 0; c < N_COLUMNS && r->outcome == BENCH_OK; c++) {
            char cell[CELL];
            fill_cell(&columns[c], r, cell);
            width[c] = wider(width[c], strlen(cell));
        }
    }
    fprintf(out, "%s\n", g->title);
    if (extrapolated)
        fputs("extrapolated: steps were measured at a few lengths of the cache only, compressions not at all\n", out);
    fprintf(out, "\n%-*s  batch  %6s", label, "policy", g->at_rows ? "rows" : "length");
    if (phases) fprintf(out, "  %-12s", "sequences");
    for (size_t c = 0; c < N_COLUMNS; c++) fprintf(out, "  %*s", width[c], columns[c].name);
    fputc('\n', out);
    const size_t block = g->n_lengths * g->n_policies;
    for (size_t i = 0; i < bench_grid_size(g); i++) {
        if (i > 0 && i % block == 0) fputc('\n', out);
        print_row(out, &g->rows[i], label, width, phases);
    }
    return fflush(out) == 0 && !ferror(out);
}

// ---------------------------------------------------------------------------------------------- CSV, JSON

static void write_quoted(FILE *out, const char *text) {
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"') fputc('"', out);
        fputc(*c, out);
    }
    fputc('"', out);
}

bool bench_report_csv(FILE *out, const bench_grid *g) {
    fputs("policy,spec,batch,length,staggered,extrapolated,outcome,why", out);
    for (int v = 0; v < BENCH_VALUES; v++) fprintf(out, ",%s", bench_keys[v]);
    fputc('\n', out);
    for (size_t i = 0; i < bench_grid_size(g); i++) {
        const bench_row *r = &g->rows[i];
        write_quoted(out, r->policy);
        fputc(',', out);
        write_quoted(out, r->spec);
        fprintf(out, ",%u,%u,%s,%s,%s,", r->batch, r->length, r->staggered ? "true" : "false",
                r->extrapolated ? "true" : "false", bench_outcomes[r->outcome]);
        write_quoted(out, r->why);
        for (int v = 0; v < BENCH_VALUES; v++) {
            if (isnan(r->value[v])) fputc(',', out);
            else fprintf(out, ",%.12g", r->value[v]);
        }
        fputc('\n', out);
    }
    return fflush(out) == 0 && !ferror(out);
}

bool bench_report_json(FILE *out, const bench_grid *g) {
    json_t *rows = json_array();
    for (size_t i = 0; i < bench_grid_size(g); i++) {
        const bench_row *r = &g->rows[i];
        json_t *row =
            json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:s, s:s}", "policy", r->policy, "spec", r->spec, "batch",
                      (json_int_t)r->batch, "length", (json_int_t)r->length, "staggered", r->staggered, "extrapolated",
                      r->extrapolated, "outcome", bench_outcomes[r->outcome], "why", r->why);
        for (int v = 0; v < BENCH_VALUES; v++)
            json_object_set_new(row, bench_keys[v], isnan(r->value[v]) ? json_null() : json_real(r->value[v]));
        json_array_append_new(rows, row);
    }
    json_t *all = json_pack("{s:O, s:o}", "settings", g->settings, "rows", rows);
    const bool ok =
        all && json_dumpf(all, out, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) == 0 && fputc('\n', out) != EOF;
    json_decref(all);
    return ok && fflush(out) == 0 && !ferror(out);
}
