// Errors are values: a status and, for people, one line. Nothing here prints.
#ifndef PITH_BASE_STATUS_H
#define PITH_BASE_STATUS_H

#include "pith.h"

// Fills `err` (when not NULL) with `status` and a formatted line, control characters turned into spaces, and returns
// `status`.
__attribute__((format(printf, 3, 4), cold)) pith_status pith_fail(pith_error *err, pith_status status, const char *fmt,
                                                                 ...);

// The same, with the byte offset into the input that is at fault.
__attribute__((format(printf, 4, 5), cold)) pith_status pith_fail_at(pith_error *err, pith_status status,
                                                                    uint64_t offset, const char *fmt, ...);

#endif
