// For tests that call the library: a call that fails fails the test, with the library's own line.
#ifndef PITH_TESTS_CALLS_H
#define PITH_TESTS_CALLS_H

#include "t.h"

#include "pith.h"

static pith_error err; // of the latest call

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != PITH_OK) fail_msg("%s: %s", #call, err.msg);                                                     \
    } while (0)

// Steps until no sequence has work.
static inline void run_out(pith_engine *engine) {
    for (uint32_t n_active = 1; n_active > 0;) OK(pith_engine_step(engine, &n_active, &err));
}

static inline pith_sequence_info info_of(const pith_sequence *seq) {
    pith_sequence_info info;
    pith_sequence_describe(seq, &info);
    return info;
}

#endif
