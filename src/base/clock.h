#ifndef PITH_BASE_CLOCK_H
#define PITH_BASE_CLOCK_H

#include <time.h>

// Seconds of a clock that only goes forward, for differences.
static inline double pith_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
