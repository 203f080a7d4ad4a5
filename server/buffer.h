// Bytes that grow up to a bound. The first failure sticks: a writer adds without looking and asks once at the end.
#ifndef PITH_SERVER_BUFFER_H
#define PITH_SERVER_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct buffer {
    char *at; // (n), terminated once something was added; owned
    size_t n, capacity;
    size_t taken; // bytes at the front that buffer_take has given out: 0 where it is not used
    size_t most;  // n never passes it
    bool failed;  // no memory, or past `most`
} buffer;

static inline buffer buffer_new(size_t most) { return (buffer){.most = most}; }
bool buffer_add(buffer *b, const char *bytes, size_t n); // false: failed, now or before; nothing was added
bool buffer_print(buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buffer_json(buffer *b, const char *text, size_t n); // a string of JSON; text: UTF-8
size_t buffer_take(buffer *b, char *to, size_t most); // copies up to `most` bytes that have not been taken, in order
void buffer_free(buffer *b);                          // empty again, with the same bound

#endif
