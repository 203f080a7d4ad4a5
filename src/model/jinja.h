// Chat templates through llama.cpp's own Jinja engine (its common/jinja, C++). The only C++ of ours: everything that
// engine throws ends here.
#ifndef PITH_MODEL_JINJA_H
#define PITH_MODEL_JINJA_H

#include "pith.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bounds on a template. The engine parses and runs by recursion, so depth must be bounded before it starts: what is
// open at once (brackets, statements, elif branches), and the operators of one tag, which nest as well. The largest
// templates in use have 17 KiB, 13 levels and 600 tokens in a tag. A template can still loop for long or recurse
// through a macro without end; it comes with the weights, and is trusted as much.
#define PITH_JINJA_MAX_BYTES (256u << 10)
#define PITH_JINJA_MAX_DEPTH 64u
#define PITH_JINJA_MAX_TAG 1024u // tokens between {{ and }} or {% and %}

// What a template sees, as in Hugging Face's apply_chat_template: messages, bos_token, eos_token, add_generation_prompt
// (true), strftime_now, raise_exception; `tools` and the like are undefined. enable_thinking is true: where a template
// knows it, thinking must be asked for, or is the default.
typedef struct pith_jinja_input {
    const char *source; // the template, UTF-8
    size_t bytes;
    const char *bos, *eos; // "" where the model has none
    int64_t now;           // seconds since 1970, for strftime_now
    const pith_message *messages;
    size_t n_messages;
} pith_jinja_input;

typedef enum pith_jinja_result {
    PITH_JINJA_OK,
    PITH_JINJA_FAILED, // does not parse, is past a bound, or raised: `error` says what
    PITH_JINJA_NO_MEMORY,
} pith_jinja_result;

// Renders into *out, terminated, of C's malloc; *out is NULL on failure, and `error` (capacity bytes) holds one line.
pith_jinja_result pith_jinja_render(const pith_jinja_input *input, char **out, char *error, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
