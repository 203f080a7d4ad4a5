// JSON schemas. Whatever the bytes, a schema is refused with one line, or becomes a grammar that libllama takes, or
// says that it does not; and a walk of a few hundred characters through one that it takes never finds itself with
// nowhere to go.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/matcher.h"
#include "model/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

// What may come next, closing characters first so that the walk comes to an end; and longer texts, as tokens are.
static const char *text_at(void *ctx, size_t i, size_t *bytes) {
    static const char *const texts[] = {
        "\"", "}",  "]",        ":",        ",",    "0",         "1",          "2",      "-",   "T",     "Z",   ".",
        "a",  "b",  "t",        "r",        "u",    "e",         "f",          "l",      "s",   "n",     "{",   "[",
        " ",  "\\", "\xc3\xa4", "\xe2\x82", "\xac", "aaaaaaaab", "[[[[[[[[\"", "\"a\":", "}}]", "\",\"", "0000"};
    (void)ctx;
    *bytes = i < sizeof texts / sizeof *texts ? strlen(texts[i]) : 1;
    static char one[2];
    *one = (char)(i + 1);
    return i < sizeof texts / sizeof *texts ? texts[i] : one;
}

static void walk(pith_matcher *m, uint32_t turn) {
    enum { N = 127 };
    for (int k = 0; k < 300 && !pith_matcher_must_end(m); k++) {
        bool allowed[N];
        require(pith_matcher_check(m, N, text_at, NULL, allowed) == PITH_MATCHER_OK);
        size_t n = 0, i = 0;
        for (size_t c = 0; c < N; c++) n += allowed[c];
        if (n == 0) return; // characters beyond these
        turn = turn * 1664525u + 1013904223u;
        for (size_t which = (turn >> 16) % (turn >> 31 ? n : 1) + 1; which > 0; i++) which -= allowed[i];
        size_t bytes;
        const char *text = text_at(NULL, i - 1, &bytes);
        const pith_matcher_result taken = pith_matcher_take(m, text, bytes);
        require(taken == PITH_MATCHER_OK || taken == PITH_MATCHER_AMBIGUOUS);
        if (taken != PITH_MATCHER_OK) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *grammar, line[300] = "";
    const pith_schema_result got = pith_schema_grammar((const char *)data, size, &grammar, line, sizeof line);
    require((got == PITH_SCHEMA_OK) == (grammar != NULL) && (got == PITH_SCHEMA_REFUSED) == (line[0] != 0));
    if (!grammar) return 0;
    pith_matcher *m;
    const pith_matcher_result made = pith_matcher_new(grammar, &m);
    require((made == PITH_MATCHER_OK) == (m != NULL));
    if (m) walk(m, (uint32_t)size);
    pith_matcher_free(m);
    free(grammar);
    return 0;
}
