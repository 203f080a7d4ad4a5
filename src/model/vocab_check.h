// Checks of a file's vocabulary: everything that libllama would assert on, throw for, or silently repair.
#ifndef PITH_MODEL_VOCAB_CHECK_H
#define PITH_MODEL_VOCAB_CHECK_H

#include "model/gguf.h"

// What the checks learn on the way.
typedef struct pith_vocab_facts {
    uint32_t n_tokens;
    bool spm;         // SentencePiece with scores, else byte-level BPE with merges
    int32_t bos, eos; // -1 where the file names none
    uint32_t max_run; // longest stretch of bytes without (or all of) white space that libllama splits without
                      // exhausting the stack; UINT32_MAX: any
} pith_vocab_facts;

// PITH_E_FORMAT for a vocabulary that is missing, damaged or inconsistent, PITH_E_UNSUPPORTED for a tokenizer that is
// not known.
pith_status pith_vocab_check(const pith_gguf *gguf, pith_vocab_facts *out, pith_error *err);

#endif
