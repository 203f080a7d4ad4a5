// The value of --policy where several may stand: SPEC;SPEC;...
#ifndef PITH_CLI_POLICIES_H
#define PITH_CLI_POLICIES_H

#include <stddef.h>

enum { MOST_POLICIES = 64 };

typedef struct policies {
    char *text;                         // owned: the specs lie in it, each terminated
    const char *spec[MOST_POLICIES];    // as they were given, without spaces around
    char canonical[MOST_POLICIES][256]; // with every default filled in
    size_t n;
} policies;

// EXIT_OK; or, after one line on stderr, EXIT_USAGE for an empty spec, one that the library refuses, two that mean the
// same, or too many, and EXIT_FAILED without memory. In any case to be freed.
int policies_read(policies *, const char *text);
void policies_free(policies *);

#endif
