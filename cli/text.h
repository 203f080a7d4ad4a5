// Text of the program: buffers that grow, whole files, and what a terminal shows of a thinking model.
#ifndef PITH_CLI_TEXT_H
#define PITH_CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "pith.h"

// A growing string, always terminated once something was added. text NULL: empty.
typedef struct text {
    char *text;
    size_t bytes, capacity;
} text;

bool text_add(text *t, const char *bytes, size_t n); // false: no memory
void text_free(text *t);

// The whole of a file, or of standard input for NULL or "-", at most `most` bytes. Returns an exit code after one line.
int text_read(text *t, const char *path, size_t most);

// Well-formed UTF-8 without zero bytes? *at gets the offset of the first byte that is not.
bool text_is_utf8(const char *bytes, size_t n, size_t *at);

// A copy in which every byte that is not (see text_is_utf8) has become U+FFFD. NULL: no memory.
char *text_clean(const char *bytes, size_t n);

// Writes pieces of an answer to stdout; on a terminal, what stands between <think> and </think> is dimmed.
typedef struct display {
    bool dims;      // stdout is a terminal
    bool thinking;
    char tail[16];  // the last bytes written: a mark may come in several pieces
    size_t n_tail;
} display;

void display_begin(display *d, bool thinking);
bool display_piece(display *d, const char *bytes, size_t n); // false: the reader has gone away
void display_end(display *d);

#endif
