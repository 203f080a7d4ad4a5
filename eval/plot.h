// One SVG figure with two axes that begin at 0: its frame, ticks and labels, and where a value lies in it.
#ifndef PITH_EVAL_PLOT_H
#define PITH_EVAL_PLOT_H

#include <stdio.h>

// Style sheet of all figures: colours of a light and a dark page as variables, classes of what is drawn, and s0, s1, ...
// which give their elements the variable --c. Those are colours of Okabe and Ito (2008), which the colour-blind tell
// apart, darkened or lightened to stand out from the page. Numbers or names stand beside every mark, so that colour is no
// only cue.
extern const char eval_plot_style[];
enum { EVAL_COLOURS = 7 }; // s0 to s6

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
