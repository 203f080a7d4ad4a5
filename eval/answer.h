// What a generation answers, and whether that is right.
#ifndef PITH_EVAL_ANSWER_H
#define PITH_EVAL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

// Reads the contents of the last \boxed{...} whose braces balance: of what follows the last </think> when there is one,
// else (or when there is none in it) of the whole text. Of nested ones the innermost counts. `*found` is false and the
// result NULL when there is none; a result is owned by the caller. False: no memory.
bool eval_answer_read(const char *text, size_t bytes, bool *found, char **out);

// Are two answers the same? As integers where both are (signs, zeros in front, thousands set apart), else as normalised
// text. False too when there is no memory to tell.
bool eval_answer_same(const char *a, const char *b);

// The normal form that texts are compared in, owned by the caller: dollar signs and \text{} around are dropped, white
// space is collapsed and trimmed, full stops at the end go; an integer is its sign and digits. NULL: no memory.
char *eval_answer_normal(const char *text);

#endif
