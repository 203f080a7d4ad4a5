// One SVG figure with two axes that begin at 0: its frame, ticks and labels, and where a value lies in it.
#ifndef PITH_EVAL_PLOT_H
#define PITH_EVAL_PLOT_H

#include <stdio.h>

typedef struct eval_plot {
    FILE *out;
    double x_most, y_most; // of the axes: round numbers, at least what was asked for
} eval_plot;

typedef struct eval_plot_labels {
    const char *id;            // of the figure, unique in the page
    const char *title, *about; // for those who do not see it
    const char *x, *y;         // with units
} eval_plot_labels;

eval_plot eval_plot_begin(FILE *out, const eval_plot_labels *labels, double x_most, double y_most);
void eval_plot_end(const eval_plot *p);

double eval_plot_x(const eval_plot *p, double x); // pixels
double eval_plot_y(const eval_plot *p, double y);

// Text with &, <, > and quotes escaped, and control characters left out: fit for contents and attributes.
void eval_plot_text(FILE *out, const char *text);

#endif
