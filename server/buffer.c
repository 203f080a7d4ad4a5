#include "server/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool make_room(buffer *b, size_t n) {
    if (b->failed || n > b->most - b->n) return b->failed = true, false;
    if (b->n + n + 1 <= b->capacity) return true;
    const size_t capacity = 2 * (b->n + n) + 64;
    char *more = realloc(b->at, capacity);
    if (!more) return b->failed = true, false;
    b->at = more, b->capacity = capacity;
    return true;
}

bool buffer_add(buffer *b, const char *bytes, size_t n) {
    if (!make_room(b, n)) return false;
    if (n > 0) memcpy(b->at + b->n, bytes, n);
    b->n += n;
    b->at[b->n] = '\0';
    return true;
}

bool buffer_print(buffer *b, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    const bool fits = n >= 0 && make_room(b, (size_t)n);
    if (fits) {
        vsnprintf(b->at + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
    return fits;
}

// How a byte is written inside a string; NULL: as itself.
static const char *escape(unsigned char byte, char scratch[7]) {
    switch (byte) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\t': return "\\t";
    default: break;
    }
    if (byte >= 0x20) return NULL;
    snprintf(scratch, 7, "\\u%04x", byte);
    return scratch;
}

bool buffer_json(buffer *b, const char *text, size_t n) {
    char scratch[7];
    buffer_add(b, "\"", 1);
    for (size_t i = 0, from = 0; i <= n; i++) {
        const char *other = i < n ? escape((unsigned char)text[i], scratch) : "\"";
        if (!other) continue;
        buffer_add(b, text + from, i - from);
        buffer_add(b, other, strlen(other));
        from = i + 1;
    }
    return !b->failed;
}

// The rest moves to the front when it is the smaller half: a long backlog is moved a few times, not with every piece of
// it.
size_t buffer_take(buffer *b, char *to, size_t most) {
    const size_t left = b->n - b->taken, n = left < most ? left : most;
    if (n == 0) return 0;
    memcpy(to, b->at + b->taken, n);
    b->taken += n;
    if (b->taken > b->n / 2) {
        memmove(b->at, b->at + b->taken, b->n - b->taken);
        b->n -= b->taken, b->taken = 0;
    }
    return n;
}

void buffer_free(buffer *b) {
    free(b->at);
    *b = buffer_new(b->most);
}
