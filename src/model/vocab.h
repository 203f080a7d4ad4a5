// The vocabulary: text to tokens and back, by libllama. Immutable; any number of threads may use it.
#ifndef PITH_MODEL_VOCAB_H
#define PITH_MODEL_VOCAB_H

#include "model/gguf.h"

typedef struct pith_vocab pith_vocab;

// Loads the vocabulary of the file at `path`, whose checked contents are `gguf` (needed during the call only). Sets
// ggml's and libllama's log callback to one that drops everything. Errors: those of pith_vocab_check, and PITH_E_FORMAT
// when libllama refuses what the checks let pass.
pith_status pith_vocab_load(const char *path, const pith_gguf *gguf, const pith_allocator *alloc, pith_vocab **out,
                            pith_error *err);
void pith_vocab_free(pith_vocab *vocab); // NULL is allowed

uint32_t pith_vocab_size(const pith_vocab *vocab);

// These do what pith.h says of pith_tokenize, pith_token_text and pith_token_ends.
pith_status pith_vocab_tokenize(const pith_vocab *vocab, const char *text, size_t bytes, int flags, pith_token *out,
                                size_t capacity, size_t *n, pith_error *err);
size_t pith_vocab_text(const pith_vocab *vocab, pith_token token, bool special, char *out, size_t capacity);
bool pith_vocab_ends(const pith_vocab *vocab, pith_token token);

// Names of the begin- and end-of-sequence tokens, "" where there is none. Owned by the vocabulary.
const char *pith_vocab_bos_name(const pith_vocab *vocab);
const char *pith_vocab_eos_name(const pith_vocab *vocab);

#endif
