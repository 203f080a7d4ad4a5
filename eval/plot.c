#include "eval/plot.h"

#include <math.h>

const char eval_plot_style[] =
    ":root{color-scheme:light dark;--page:#fff;--ink:#1c1c1c;--soft:#595959;--line:#d5d5d5;"
    "--c0:#1c1c1c;--c1:#0072b2;--c2:#b84a00;--c3:#00795a;--c4:#a3467e;--c5:#8a6d00;--c6:#2a7fb8}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#161616;--ink:#ececec;--soft:#a8a8a8;--line:#3a3a3a;"
    "--c0:#ececec;--c1:#56b4e9;--c2:#f28e4b;--c3:#2fc79b;--c4:#dd93bd;--c5:#e6cf3a;--c6:#8fc7ee}}\n"
    "svg text{fill:var(--soft)}.grid{stroke:var(--line);fill:none}.axis{stroke:var(--soft);fill:none}\n"
    ".mark{fill:var(--c);stroke:none}.curve{stroke:var(--c);fill:none;stroke-width:2}.band{fill:var(--c);opacity:.15}"
    "svg text.name{fill:var(--c);font-weight:600}\n"
    ".s0{--c:var(--c0)}.s1{--c:var(--c1)}.s2{--c:var(--c2)}.s3{--c:var(--c3)}.s4{--c:var(--c4)}.s5{--c:var(--c5)}"
    ".s6{--c:var(--c6)}\n";

enum { WIDTH = 760, HEIGHT = 360, LEFT = 76, RIGHT = 28, TOP = 14, BOTTOM = 50 };

// A step of 1, 2 or 5 times a power of ten that cuts `most` into at most six.
static double step_of(double most) {
    const double rough = most / 6, power = pow(10, floor(log10(rough)));
    const double by = rough / power;
    return power * (by <= 1 ? 1 : by <= 2 ? 2 : by <= 5 ? 5 : 10);
}

static double round_up(double most) {
    if (!(most > 0)) return 1;
    const double step = step_of(most);
    return step * ceil(most / step - 1e-9);
}

double eval_plot_x(const eval_plot *p, double x) { return LEFT + x / p->x_most * (WIDTH - LEFT - RIGHT); }
double eval_plot_y(const eval_plot *p, double y) { return HEIGHT - BOTTOM - y / p->y_most * (HEIGHT - TOP - BOTTOM); }

void eval_plot_text(FILE *out, const char *text) {
    for (const char *c = text; *c; c++) {
        if (*c == '&') fputs("&amp;", out);
        else if (*c == '<') fputs("&lt;", out);
        else if (*c == '>') fputs("&gt;", out);
        else if (*c == '"') fputs("&quot;", out);
        else if ((unsigned char)*c >= 0x20) fputc(*c, out);
    }
}

static void draw_ticks(const eval_plot *p) {
    const double x_step = step_of(p->x_most), y_step = step_of(p->y_most);
    for (int i = 0; i * x_step <= p->x_most * (1 + 1e-9); i++) {
        const double x = eval_plot_x(p, i * x_step);
        fprintf(p->out, "<path class=\"grid\" d=\"M%.1f %d V%d\"/>", x, TOP, HEIGHT - BOTTOM);
        fprintf(p->out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.10g</text>\n", x, HEIGHT - BOTTOM + 18,
                i * x_step);
    }
    for (int i = 0; i * y_step <= p->y_most * (1 + 1e-9); i++) {
        const double y = eval_plot_y(p, i * y_step);
        fprintf(p->out, "<path class=\"grid\" d=\"M%d %.1f H%d\"/>", LEFT, y, WIDTH - RIGHT);
        fprintf(p->out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.10g</text>\n", LEFT - 8, y + 4, i * y_step);
    }
}

eval_plot eval_plot_begin(FILE *out, const eval_plot_labels *l, double x_most, double y_most) {
    const eval_plot p = {out, round_up(x_most), round_up(y_most)};
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"%s-title %s-about\">\n", WIDTH, HEIGHT,
            l->id, l->id);
    fprintf(out, "<title id=\"%s-title\">%s</title>\n<desc id=\"%s-about\">%s</desc>\n", l->id, l->title, l->id,
            l->about);
    draw_ticks(&p);
    fprintf(out, "<path class=\"axis\" d=\"M%d %d V%d H%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT);
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10,
            l->x);
    const int middle = (TOP + HEIGHT - BOTTOM) / 2;
    fprintf(out, "<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">%s</text>\n", middle,
            middle, l->y);
    return p;
}

void eval_plot_end(const eval_plot *p) { fputs("</svg>\n", p->out); }
