// How far a long job is, on stderr: a bar on a terminal, elsewhere a line now and then.
#ifndef PITH_CLI_METER_H
#define PITH_CLI_METER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct meter {
    bool silent, terminal;
    bool drawn;   // a bar stands on the terminal's line
    double shown; // when, on the clock of base/clock.h
} meter;

typedef struct meter_state {
    size_t done, total;
    const char *label;
    double per_second, seconds_left; // 0: not known
    const char *unit;                // of per_second
} meter_state;

void meter_begin(meter *m, bool silent);
void meter_show(meter *m, const meter_state *state); // as often as one likes: it shows something when it is time
void meter_end(meter *m);                            // removes the bar

#endif
