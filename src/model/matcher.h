// Which text a grammar lets follow, by automaton.h. The border in C to matcher.cpp: everything that is thrown
// there ends here.
//
// Text is UTF-8 and may be cut anywhere; what is not UTF-8 never fits. A grammar that is ambiguous over long stretches
// of text makes the matcher follow many readings at once: past a bound it gives up.
//
// Matchers of one origin share its rules: they belong to one thread at a time, all together.
#ifndef PITH_MODEL_MATCHER_H
#define PITH_MODEL_MATCHER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pith_matcher pith_matcher;

typedef enum pith_matcher_result {
    PITH_MATCHER_OK,
    PITH_MATCHER_REFUSED,   // new: libllama does not take the grammar; take: the text does not fit
    PITH_MATCHER_AMBIGUOUS, // too many readings
    PITH_MATCHER_NO_MEMORY,
} pith_matcher_result;

// `grammar` is of schema.h: one that libllama cannot parse would make it write to stderr.
pith_matcher_result pith_matcher_new(const char *grammar, pith_matcher **out);
pith_matcher_result pith_matcher_clone(const pith_matcher *m, pith_matcher **out); // from where it stands
void pith_matcher_free(pith_matcher *m);                                           // NULL is allowed

// allowed[i]: text i, of n, may follow. text(ctx, i, &bytes) gives it, valid until the next call. Empty text may not
// follow.
typedef const char *(*pith_matcher_text)(void *ctx, size_t i, size_t *bytes);
pith_matcher_result pith_matcher_check(const pith_matcher *m, size_t n, pith_matcher_text text, void *ctx,
                                       bool *allowed);

// Text follows. After a failure nothing may follow any more, nor may it end.
pith_matcher_result pith_matcher_take(pith_matcher *m, const char *text, size_t bytes);

bool pith_matcher_may_end(const pith_matcher *m);  // what was taken is all that the grammar asks for
bool pith_matcher_must_end(const pith_matcher *m); // and nothing may follow

#ifdef __cplusplus
}
#endif
#endif
