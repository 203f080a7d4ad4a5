// Is it UTF-8?
#ifndef PITH_BASE_UTF8_H
#define PITH_BASE_UTF8_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// The length of the longest valid UTF-8 prefix: `bytes` when all of it is valid, else the offset of the first character
// that is not (overlong, surrogate, beyond U+10FFFF, cut off).
size_t pith_utf8_valid(const char *text, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
