#include "model/vocab.h"

#include "base/utf8.h"
#include "model/vocab_check.h"

#include "llama.h"

#include <string.h>

struct pith_vocab {
    const pith_allocator *alloc;
    struct llama_model *model; // vocabulary only; owned
    const struct llama_vocab *vocab;
    pith_vocab_facts facts;
    bool wants_bos;
};

static void drop_log(enum ggml_log_level level, const char *text, void *user) {
    (void)level;
    (void)text;
    (void)user;
}

static bool load_model(pith_vocab *v, const char *path) {
    llama_log_set(drop_log, NULL); // ggml's as well
    struct llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    v->model = llama_model_load_from_file(path, params); // catches its own exceptions
    if (!v->model) return false;
    v->vocab = llama_model_get_vocab(v->model);
    v->wants_bos = v->facts.bos >= 0 && llama_vocab_get_add_bos(v->vocab);
    return llama_vocab_n_tokens(v->vocab) == (int32_t)v->facts.n_tokens;
}

pith_status pith_vocab_load(const char *path, const pith_gguf *gguf, const pith_allocator *alloc, pith_vocab **out,
                            pith_error *err) {
    *out = NULL;
    pith_vocab *v = pith_new(alloc, 1, sizeof *v);
    if (!v) return pith_fail(err, PITH_E_MEMORY, "%s: no memory for its vocabulary", gguf->path);
    v->alloc = alloc;
    pith_status status = pith_vocab_check(gguf, &v->facts, err);
    if (status == PITH_OK && !load_model(v, path))
        status = pith_fail(err, PITH_E_FORMAT, "%s: libllama refuses its vocabulary", gguf->path);
    if (status == PITH_OK) *out = v;
    else pith_vocab_free(v);
    return status;
}

void pith_vocab_free(pith_vocab *v) {
    if (!v) return;
    if (v->model) llama_model_free(v->model);
    pith_delete(v->alloc, v, 1, sizeof *v);
}

uint32_t pith_vocab_size(const pith_vocab *v) { return v->facts.n_tokens; }

static const char *name_of(const pith_vocab *v, int32_t id) { return id < 0 ? "" : llama_vocab_get_text(v->vocab, id); }
const char *pith_vocab_bos_name(const pith_vocab *v) { return name_of(v, v->facts.bos); }
const char *pith_vocab_eos_name(const pith_vocab *v) { return name_of(v, v->facts.eos); }

// ------------------------------------------------------------------------------------------ text to tokens

// The longest stretch that is all white space or has none: no match of a splitter's expressions is longer.
static size_t longest_run(const char *text, size_t bytes) {
    size_t longest = 0, start = 0;
    bool was_space = false;
    for (size_t i = 0; i < bytes; i++) {
        bool space = text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r');
        if (space != was_space) start = i;
        was_space = space;
        if (i + 1 - start > longest) longest = i + 1 - start;
    }
    return longest;
}

static pith_status check_text(const pith_vocab *v, const char *text, size_t bytes, pith_error *err) {
    if (bytes > INT32_MAX / 2)
        return pith_fail(err, PITH_E_ARG, "text: expected at most %d bytes, found %zu", INT32_MAX / 2, bytes);
    size_t valid = pith_utf8_valid(text, bytes);
    if (valid != bytes)
        return pith_fail_at(err, PITH_E_FORMAT, valid, "text: not UTF-8: byte 0x%02x at %zu", (uint8_t)text[valid],
                            valid);
    size_t run = v->facts.max_run == UINT32_MAX ? 0 : longest_run(text, bytes);
    if (run > v->facts.max_run)
        return pith_fail(err, PITH_E_ARG, "text: this vocabulary can split words of at most %u bytes, found one of %zu",
                         v->facts.max_run, run);
    return PITH_OK;
}

pith_status pith_vocab_tokenize(const pith_vocab *v, const char *text, size_t bytes, int flags, pith_token *out,
                                size_t capacity, size_t *n, pith_error *err) {
    *n = 0;
    pith_status status = check_text(v, text, bytes, err);
    if (status != PITH_OK) return status;

    const char *bos = pith_vocab_bos_name(v);
    size_t bos_bytes = strlen(bos);
    bool special = flags & PITH_TOKENS_SPECIAL;
    bool has_bos = special && bytes >= bos_bytes && memcmp(text, bos, bos_bytes) == 0; // else its name is mere text
    size_t first = (flags & PITH_TOKENS_BEGIN) && v->wants_bos && !has_bos;
    // libllama is asked for the text's tokens only: it would add a begin-of-sequence token to one that is there.
    size_t room = capacity > first ? capacity - first : 0;
    if (room > INT32_MAX) room = INT32_MAX;
    int32_t found =
        llama_tokenize(v->vocab, text, (int32_t)bytes, out ? out + first : NULL, (int32_t)room, false, special);
    size_t needed = first + (size_t)(found < 0 ? -(int64_t)found : found);
    *n = needed;
    if (first && capacity > 0) out[0] = v->facts.bos;
    if (needed > capacity)
        return pith_fail(err, PITH_E_ARG, "text: it has %zu tokens, room for %zu was given", needed, capacity);
    return PITH_OK;
}

// ------------------------------------------------------------------------------------------ tokens to text

static bool inside(const pith_vocab *v, pith_token token) { return token >= 0 && (uint32_t)token < v->facts.n_tokens; }

size_t pith_vocab_text(const pith_vocab *v, pith_token token, bool special, char *out, size_t capacity) {
    if (!inside(v, token)) return 0;
    int32_t room = capacity > INT32_MAX ? INT32_MAX : (int32_t)capacity;
    int32_t n = llama_token_to_piece(v->vocab, token, out, room, 0, special);
    return (size_t)(n < 0 ? -n : n);
}

bool pith_vocab_ends(const pith_vocab *v, pith_token token) {
    return inside(v, token) && llama_vocab_is_eog(v->vocab, token);
}
