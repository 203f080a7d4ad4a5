#include "eval/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/plot.h"

static const char STYLE[] =
    "body{background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;"
    "padding:0 1rem}\n"
    "h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}p,figcaption{color:var(--soft);max-width:48rem}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}\n"
    "figure{margin:1rem 0;max-width:48rem}svg{width:100%;height:auto;font-size:12px}\n"
    "ol{padding-left:1.5rem}li{color:var(--c)}li code{color:var(--ink)}\n";

static size_t colour(size_t policy) { return policy % EVAL_COLOURS; }

// ------------------------------------------------------------------------------------------------ tables

static void write_table(FILE *out, const eval_summary *s, size_t group) {
    fputs("<h2>", out);
    eval_plot_text(out, group == 0 ? "All problems" : eval_summary_group(s, group));
    fputs("</h2>\n<div class=\"wide\"><table>\n<tr><th scope=\"col\">policy</th>", out);
    for (size_t c = 0; c < EVAL_COLUMNS; c++) fprintf(out, "<th scope=\"col\">%s</th>", eval_columns[c].name);
    fputs("</tr>\n", out);
    for (size_t p = 0; p < s->n_policies; p++) {
        fprintf(out, "<tr><th scope=\"row\">%zu ", p + 1);
        eval_plot_text(out, s->results[p].label);
        fputs("</th>", out);
        for (size_t c = 0; c < EVAL_COLUMNS; c++) {
            char cell[EVAL_CELL];
            eval_table_cell(&eval_columns[c], eval_summary_row(s, group, p), cell);
            fprintf(out, "<td>%s</td>", cell);
        }
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

static void write_legend(FILE *out, const eval_summary *s) {
    fputs("<h2>Policies</h2>\n<ol>\n", out);
    for (size_t p = 0; p < s->n_policies; p++) {
        fprintf(out, "<li class=\"s%zu\"><code>", colour(p));
        eval_plot_text(out, s->results[p].policy);
        fputs("</code></li>\n", out);
    }
    fputs("</ol>\n", out);
}

static void write_settings(FILE *out, const eval_about *about) {
    fputs("<h2>Settings</h2>\n<table>\n", out);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)about->settings, key, value) {
        char *text = json_is_string(value) ? strdup(json_string_value(value))
                                           : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        fputs("<tr><th scope=\"row\">", out);
        eval_plot_text(out, key);
        fputs("</th><td>", out);
        eval_plot_text(out, text ? text : "");
        fputs("</td></tr>\n", out);
        free(text);
    }
    fputs("</table>\n", out);
}

// ------------------------------------------------------------------------------------------------- plots

static void write_name(const eval_plot *p, size_t policy, double x, double y) {
    fprintf(p->out, "<text class=\"name s%zu\" x=\"%.1f\" y=\"%.1f\">%zu</text>\n", colour(policy), x + 6, y + 4,
            policy + 1);
}

static void plot_accuracy(FILE *out, const eval_summary *s) {
    const eval_plot_labels labels = {
        "accuracy", "Accuracy against cache bytes",
        "One point for each policy: pass@1 with its 95 % interval over the mean bytes of cache of a sequence.",
        "mean cache of a sequence (MB)", "pass@1"};
    double most = 0;
    for (size_t i = 0; i < s->n_policies; i++) most = fmax(most, eval_summary_row(s, 0, i)->bytes_mean);
    fputs("<figure>\n", out);
    const eval_plot p = eval_plot_begin(out, &labels, most / 1e6, 1);
    for (size_t i = 0; i < s->n_policies; i++) {
        const eval_row *r = eval_summary_row(s, 0, i);
        if (r->n_samples == 0) continue;
        const double x = eval_plot_x(&p, r->bytes_mean / 1e6), y = eval_plot_y(&p, r->pass.mean);
        fprintf(out, "<path class=\"curve s%zu\" d=\"M%.1f %.1f V%.1f\"/>", colour(i), x, eval_plot_y(&p, r->pass.low),
                eval_plot_y(&p, r->pass.high));
        fprintf(out, "<circle class=\"mark s%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>", colour(i), x, y);
        write_name(&p, i, x, y);
    }
    eval_plot_end(&p);
    fputs("<figcaption>Accuracy against memory: pass@1 with its 95 % interval over the mean bytes of cache that a "
          "sequence holds. Up and to the left is better.</figcaption>\n</figure>\n",
          out);
}

enum { GRID = 120 }; // positions along a curve

// Rows that a sample held when it had generated x tokens: those of the last point that is not behind x.
static double rows_at(const eval_sample *s, double x) {
    uint32_t i = 0;
    while (i + 1 < s->n_points && s->points[i + 1].generated <= x) i++;
    return s->points[i].rows;
}

static double longest(const eval_summary *s) {
    double most = 1;
    for (size_t i = 0; i < s->n_policies; i++)
        for (size_t j = 0; j < s->results[i].n; j++) most = fmax(most, s->results[i].samples[j].completion_tokens);
    return most;
}

// Lower quartile, median and upper quartile of the rows of the samples that are at least x tokens long. False when
// these are fewer than a quarter of all: what is left then are the odd ones. values: room for all samples.
static bool quartiles_at(const eval_results *r, double x, double *values, double out[3]) {
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->samples[i].completion_tokens >= x && r->samples[i].n_points > 0)
            values[n++] = rows_at(&r->samples[i], x);
    if (n == 0 || 4 * n < r->n) return false;
    eval_sort(values, n);
    for (int q = 0; q < 3; q++) out[q] = eval_quantile(values, n, 0.25 * (q + 1));
    return true;
}

// A policy's curve: quartiles at the first n of GRID positions from 0 to the end of the longest curve.
typedef struct curve {
    double at[GRID][3];
    int n;
} curve;

// values: room for all samples. Returns the highest value.
static double find_curve(const eval_results *r, double most, double *values, curve *c) {
    double highest = 0;
    for (c->n = 0; c->n < GRID && quartiles_at(r, most * c->n / (GRID - 1), values, c->at[c->n]); c->n++)
        highest = fmax(highest, c->at[c->n][2]);
    return highest;
}

// The length that a quarter of the samples reach: there their curve ends.
static double end_of_curve(const eval_results *r, double *values) {
    for (size_t i = 0; i < r->n; i++) values[i] = r->samples[i].completion_tokens;
    eval_sort(values, r->n);
    return r->n > 0 ? values[r->n - (r->n + 3) / 4] : 1;
}

static void draw_curve(const eval_plot *p, double most, const curve *c, size_t policy) {
    if (c->n < 2) return;
    fprintf(p->out, "<path class=\"band s%zu\" d=\"", colour(policy));
    for (int j = 0; j < 2 * c->n; j++) { // forth along the lower quartile, back along the upper one
        const int k = j < c->n ? j : 2 * c->n - 1 - j;
        fprintf(p->out, "%c%.1f %.1f", j ? 'L' : 'M', eval_plot_x(p, most * k / (GRID - 1)),
                eval_plot_y(p, c->at[k][j < c->n ? 0 : 2]));
    }
    fprintf(p->out, "Z\"/>\n<path class=\"curve s%zu\" d=\"", colour(policy));
    for (int j = 0; j < c->n; j++)
        fprintf(p->out, "%c%.1f %.1f", j ? 'L' : 'M', eval_plot_x(p, most * j / (GRID - 1)),
                eval_plot_y(p, c->at[j][1]));
    fputs("\"/>", p->out);
    write_name(p, policy, eval_plot_x(p, most * (c->n - 1) / (GRID - 1)), eval_plot_y(p, c->at[c->n - 1][1]));
}

static bool plot_rows(FILE *out, const eval_summary *s) {
    const eval_plot_labels labels = {"rows", "Cache rows over time",
                                     "For each policy the median of the cache rows of a sequence over the tokens it "
                                     "has generated, with the quartiles.",
                                     "generated tokens", "rows of the longest lane"};
    size_t most_samples = 1;
    for (size_t i = 0; i < s->n_policies; i++)
        if (s->results[i].n > most_samples) most_samples = s->results[i].n;
    double *values = malloc(most_samples * sizeof *values);
    curve *curves = calloc(s->n_policies, sizeof *curves);
    if (values && curves) {
        double most = 1, most_rows = 1;
        for (size_t i = 0; i < s->n_policies; i++) most = fmax(most, end_of_curve(&s->results[i], values));
        for (size_t i = 0; i < s->n_policies; i++)
            most_rows = fmax(most_rows, find_curve(&s->results[i], most, values, &curves[i]));
        fputs("<figure>\n", out);
        const eval_plot p = eval_plot_begin(out, &labels, most, most_rows);
        for (size_t i = 0; i < s->n_policies; i++) draw_curve(&p, most, &curves[i], i);
        eval_plot_end(&p);
        fputs("<figcaption>Rows of cache while a sequence generates: median and quartiles over the samples that are at "
              "least as long; a curve ends where these are fewer than a quarter.</figcaption>\n</figure>\n",
              out);
    }
    const bool ok = values && curves;
    free(values);
    free(curves);
    return ok;
}

static void plot_lengths(FILE *out, const eval_summary *s) {
    const eval_plot_labels labels = {"lengths", "Length distribution",
                                     "For each policy the share of samples that are no longer than a number of tokens.",
                                     "generated tokens", "share of samples"};
    const double most = longest(s);
    fputs("<figure>\n", out);
    const eval_plot p = eval_plot_begin(out, &labels, most, 1);
    for (size_t i = 0; i < s->n_policies; i++) {
        const eval_results *r = &s->results[i];
        if (r->n == 0) continue;
        // The number stands at a height of its own, where the curve crosses it.
        const double height = 0.15 + 0.7 * ((double)i + 0.5) / (double)s->n_policies;
        double crossing = 0;
        fprintf(out, "<path class=\"curve s%zu\" d=\"", colour(i));
        for (int j = 0; j < GRID; j++) {
            const double x = most * j / (GRID - 1);
            size_t n = 0;
            for (size_t k = 0; k < r->n; k++) n += r->samples[k].completion_tokens <= x;
            if ((double)n < height * (double)r->n) crossing = x;
            fprintf(out, "%c%.1f %.1f", j ? 'L' : 'M', eval_plot_x(&p, x), eval_plot_y(&p, (double)n / (double)r->n));
        }
        fputs("\"/>", out);
        write_name(&p, i, eval_plot_x(&p, crossing) + 6, eval_plot_y(&p, height));
    }
    eval_plot_end(&p);
    fputs(
        "<figcaption>How long the answers are: the share of samples that are no longer than so many tokens. A jump at "
        "the end are samples that were cut off at the limit.</figcaption>\n</figure>\n",
        out);
}

// ------------------------------------------------------------------------------------------------- the page

bool eval_page_write(FILE *out, const eval_summary *s, const eval_about *about) {
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Pith: ",
          out);
    eval_plot_text(out, about->title);
    fprintf(out, "</title>\n<style>\n%s%s</style>\n</head>\n<body>\n<h1>", eval_plot_style, STYLE);
    eval_plot_text(out, about->title);
    fputs("</h1>\n", out);
    write_legend(out, s);
    for (size_t group = 0; group <= s->n_groups; group++) write_table(out, s, group);
    fputs(
        "<p>pass@1 is the mean over problems; its interval is Wilson's with the effective number of samples. The "
        "difference is to the first policy, over the samples that both have, with a bootstrap over problems. Means of "
        "rows and bytes are over a sequence's generated tokens; shares are of a full cache at the same lengths.</p>\n"
        "<h2>Accuracy and memory</h2>\n",
        out);
    plot_accuracy(out, s);
    fputs("<h2>Cache over time</h2>\n", out);
    const bool ok = plot_rows(out, s);
    fputs("<h2>Lengths</h2>\n", out);
    plot_lengths(out, s);
    write_settings(out, about);
    fputs("</body>\n</html>\n", out);
    return ok && fflush(out) == 0 && !ferror(out);
}
