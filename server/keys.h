// API keys: one a line in a file, empty lines and lines that begin with # apart.
#ifndef PITH_SERVER_KEYS_H
#define PITH_SERVER_KEYS_H

#include "pith.h"

enum { KEYS_MOST = 256, KEYS_BYTES = 256 };

typedef struct keys {
    char key[KEYS_MOST][KEYS_BYTES]; // zero-filled behind each key
    size_t n;                        // 0: everybody may ask
} keys;

pith_status keys_read(keys *k, const char *path, pith_error *err);

// Is the value of an Authorization header "Bearer KEY" with one of the keys? Takes the same time whatever the keys are,
// so that nobody can guess one letter by letter. `header` may be NULL.
bool keys_allow(const keys *k, const char *header);

#endif
