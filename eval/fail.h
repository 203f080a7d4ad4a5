// Errors of the evaluation: values with one line for people, as in pith.h.
#ifndef PITH_EVAL_FAIL_H
#define PITH_EVAL_FAIL_H

#include "pith.h"

// Fills `err` (may be NULL) and returns `status`. PITH_E_ARG stands for wrong use, the rest for input and machine.
__attribute__((format(printf, 3, 4))) pith_status eval_fail(pith_error *err, pith_status status, const char *fmt, ...);

static inline pith_status eval_no_memory(pith_error *err) { return eval_fail(err, PITH_E_MEMORY, "out of memory"); }

#endif
