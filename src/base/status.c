#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 4, 0))) static pith_status fill(pith_error *err, pith_status status, uint64_t offset,
                                                              const char *fmt, va_list args) {
    if (err) {
        err->status = status;
        err->offset = offset;
        vsnprintf(err->msg, sizeof err->msg, fmt, args);
        for (char *c = err->msg; *c; c++)
            if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' '; // names inside may come from a damaged file
    }
    return status;
}

pith_status pith_fail(pith_error *err, pith_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, status, 0, fmt, args);
    va_end(args);
    return status;
}

pith_status pith_fail_at(pith_error *err, pith_status status, uint64_t offset, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fill(err, status, offset, fmt, args);
    va_end(args);
    return status;
}

const char *pith_status_name(pith_status status) {
    switch (status) {
    case PITH_OK: return "ok";
    case PITH_E_IO: return "input or output error";
    case PITH_E_FORMAT: return "damaged input";
    case PITH_E_UNSUPPORTED: return "unsupported";
    case PITH_E_ARG: return "bad argument";
    case PITH_E_MEMORY: return "out of memory";
    case PITH_E_CONTEXT: return "context exceeded";
    case PITH_E_STATE: return "wrong state";
    case PITH_E_DEVICE: return "device error";
    }
    return "unknown status";
}
