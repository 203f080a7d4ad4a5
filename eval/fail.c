#include "eval/fail.h"

#include <stdarg.h>
#include <stdio.h>

pith_status eval_fail(pith_error *err, pith_status status, const char *fmt, ...) {
    if (!err) return status;
    *err = (pith_error){.status = status};
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    return status;
}
