// Conversations to text, by the model's own template.
#ifndef PITH_MODEL_CHAT_H
#define PITH_MODEL_CHAT_H

#include "model/vocab.h"

#define PITH_CHAT_KEY "tokenizer.chat_template"

// Renders with the file's template; see pith_chat_render in pith.h.
pith_status pith_chat_apply(const pith_gguf *gguf, const pith_vocab *vocab, const pith_message *messages, size_t n,
                            char **out, pith_error *err);

// Renders with any template. `name` is for messages; `now` is what strftime_now formats, in seconds since 1970.
pith_status pith_chat_apply_template(const char *name, pith_text source, const char *bos, const char *eos, int64_t now,
                                     const pith_message *messages, size_t n, char **out, pith_error *err);

#endif
