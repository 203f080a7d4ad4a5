#include "meter.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR = 24, LABEL = 40 };
static const double TERMINAL_S = 0.2, LINE_S = 30; // between two showings

void meter_begin(meter *m, bool silent) {
    const bool terminal = isatty(STDERR_FILENO);
    *m = (meter){.silent = silent, .terminal = terminal, .shown = terminal ? 0 : pith_seconds()}; // a bar comes at once
}

// "3 h 05 min", "12 min", "40 s"
static void write_duration(double seconds) {
    const unsigned long s = (unsigned long)seconds;
    if (s >= 3600) fprintf(stderr, "%lu h %02lu min", s / 3600, s / 60 % 60);
    else if (s >= 60) fprintf(stderr, "%lu min", s / 60);
    else fprintf(stderr, "%lu s", s);
}

void meter_show(meter *m, const meter_state *state) {
    const double now = pith_seconds();
    if (m->silent || now - m->shown < (m->terminal ? TERMINAL_S : LINE_S)) return;
    m->shown = now;
    if (m->terminal) {
        const size_t full = state->total > 0 ? BAR * state->done / state->total : BAR;
        fputs("\r[", stderr);
        for (size_t i = 0; i < BAR; i++) fputc(i < full ? '#' : '.', stderr);
        fputs("] ", stderr);
        m->drawn = true;
    }
    fprintf(stderr, "%zu of %zu", state->done, state->total);
    if (state->label) // one line of a terminal has to hold it all
        fprintf(stderr, "  %.*s%s", LABEL, state->label, strlen(state->label) > LABEL ? "..." : "");
    if (state->per_second > 0) fprintf(stderr, "  %.1f %s", state->per_second, state->unit);
    if (state->seconds_left > 0) {
        fputs("  ", stderr);
        write_duration(state->seconds_left);
        fputs(" left", stderr);
    }
    fputs(m->terminal ? "\033[K" : "\n", stderr);
}

void meter_end(meter *m) {
    if (m->drawn) fputs("\r\033[K", stderr);
    m->drawn = false;
}
