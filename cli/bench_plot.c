// The figure: throughput and peak memory against the length of the generation.
#include <math.h>

#include "bench_report.h"
#include "eval/plot.h"

enum { WIDTH = 760, HEIGHT = 360, HEAD = 34, LEGEND = 22 }; // of a panel, of its heading, of a line of the legend

typedef struct panel {
    bench_value value;
    double unit;
    const char *id, *title, *y;
} panel;

static const panel panels[] = {
    {BENCH_RATE, 1, "rate", "Throughput", "tokens per second"},
    {BENCH_MEMORY, 1e9, "memory", "Peak memory", "peak memory (GB)"},
};
enum { N_PANELS = sizeof panels / sizeof *panels };

static size_t colour(size_t policy) { return policy % EVAL_COLOURS; }

static const bench_row *row_at(const bench_grid *g, size_t block, size_t length, size_t policy) {
    return &g->rows[(block * g->n_lengths + length) * g->n_policies + policy];
}

// A line with its number at the end; a cross on the axis where memory did not suffice.
static void draw_policy(const eval_plot *p, const bench_grid *g, const panel *what, size_t block, size_t policy) {
    double x = 0, y = 0;
    bool any = false;
    fprintf(p->out, "<path class=\"curve s%zu\" d=\"", colour(policy));
    for (size_t l = 0; l < g->n_lengths; l++) {
        const bench_row *r = row_at(g, block, l, policy);
        if (isnan(r->value[what->value])) continue;
        x = eval_plot_x(p, r->length), y = eval_plot_y(p, r->value[what->value] / what->unit);
        fprintf(p->out, "%c%.1f %.1f", any ? 'L' : 'M', x, y);
        any = true;
    }
    fputs("\"/>\n", p->out);
    for (size_t l = 0; l < g->n_lengths; l++) {
        const bench_row *r = row_at(g, block, l, policy);
        if (r->outcome == BENCH_NO_MEMORY)
            fprintf(p->out,
                    "<text class=\"name s%zu\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%zu \xc3\x97</text>\n",
                    colour(policy), eval_plot_x(p, r->length), eval_plot_y(p, 0) - 6 - 14 * (double)policy, policy + 1);
        if (isnan(r->value[what->value])) continue;
        fprintf(p->out, "<circle class=\"mark s%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", colour(policy),
                eval_plot_x(p, r->length), eval_plot_y(p, r->value[what->value] / what->unit));
    }
    if (any)
        fprintf(p->out, "<text class=\"name s%zu\" x=\"%.1f\" y=\"%.1f\">%zu</text>\n", colour(policy),
                x + 7 + 10 * (double)policy, y + 4, policy + 1);
}

static void draw_panel(FILE *out, const bench_grid *g, size_t block, size_t which) {
    const panel *what = &panels[which];
    double x_most = 1, y_most = 0;
    for (size_t l = 0; l < g->n_lengths; l++)
        for (size_t i = 0; i < g->n_policies; i++) {
            const bench_row *r = row_at(g, block, l, i);
            x_most = fmax(x_most, r->length);
            y_most = fmax(y_most, r->value[what->value] / what->unit); // fmax leaves NaN out
        }
    char id[32], about[160];
    snprintf(id, sizeof id, "%s-%zu", what->id, block);
    const char *x_name = g->at_rows ? "cached rows" : "generated tokens";
    snprintf(about, sizeof about, "%s against the number of %s, a line for each policy, batch %u.", what->title, x_name,
             row_at(g, block, 0, 0)->batch);
    const eval_plot_labels labels = {id, what->title, about, x_name, what->y};
    const eval_plot p = eval_plot_begin(out, &labels, x_most, y_most);
    for (size_t i = 0; i < g->n_policies; i++) draw_policy(&p, g, what, block, i);
    eval_plot_end(&p);
}

static bool lacks_memory(const bench_grid *g, size_t block) {
    const bench_row *rows = row_at(g, block, 0, 0);
    for (size_t i = 0; i < g->n_lengths * g->n_policies; i++)
        if (rows[i].outcome == BENCH_NO_MEMORY) return true;
    return false;
}

bool bench_report_svg(FILE *out, const bench_grid *g) {
    const size_t n_blocks = g->n_batches * g->n_phases, legend = HEAD + LEGEND * g->n_policies + 10;
    const size_t width = N_PANELS * WIDTH, height = legend + n_blocks * (HEAD + HEIGHT);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %zu %zu\" width=\"%zu\" height=\"%zu\" "
            "font-family=\"system-ui,sans-serif\" font-size=\"13\">\n<style>\n%s"
            "svg text.head{fill:var(--ink);font-size:16px}.page{fill:var(--page)}\n</style>\n"
            "<rect class=\"page\" width=\"%zu\" height=\"%zu\"/>\n<text class=\"head\" x=\"16\" y=\"24\">",
            width, height, width, height, eval_plot_style, width, height);
    eval_plot_text(out, g->title);
    fputs("</text>\n", out);
    for (size_t i = 0; i < g->n_policies; i++) {
        fprintf(out, "<text class=\"name s%zu\" x=\"16\" y=\"%zu\">%zu ", colour(i), HEAD + LEGEND * i + 16, i + 1);
        eval_plot_text(out, g->rows[i].policy);
        fputs("</text>\n", out);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        const bench_row *first = row_at(g, b, 0, 0);
        const char *phase = g->n_phases == 1 ? "" : first->staggered ? ", out of phase" : ", in phase";
        const size_t y = legend + b * (HEAD + HEIGHT);
        fprintf(out, "<text class=\"head\" x=\"16\" y=\"%zu\">batch %u%s%s%s</text>\n", y + 22, first->batch, phase,
                first->extrapolated ? ", extrapolated" : "", lacks_memory(g, b) ? "; \xc3\x97: out of memory" : "");
        for (size_t p = 0; p < N_PANELS; p++) {
            fprintf(out, "<svg x=\"%zu\" y=\"%zu\" width=\"%d\" height=\"%d\">\n", p * WIDTH, y + HEAD, WIDTH, HEIGHT);
            draw_panel(out, g, b, p);
            fputs("</svg>\n", out);
        }
    }
    fputs("</svg>\n", out);
    return fflush(out) == 0 && !ferror(out);
}
