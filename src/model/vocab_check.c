#include "model/vocab_check.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_TOKENS = 1 << 24,
    MAX_TOKEN_BYTES = 1 << 16,
    // std::regex recurses once per character, some 400 bytes of stack each: 4096 take less than 2 MiB.
    REGEX_RUN = 4096,
};

// Token types of the file.
enum { TYPE_BYTE = 6 };

typedef struct checker {
    const pith_gguf *gguf;
    pith_vocab_facts *facts;
    pith_nameset names; // of tokens
    pith_status status;
    pith_error *err;
} checker;

static bool ok(const checker *c) { return c->status == PITH_OK; }

__attribute__((format(printf, 3, 4))) static void refuse(checker *c, pith_status status, const char *fmt, ...) {
    if (!ok(c)) return;
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    c->status = pith_fail(c->err, status, "%s: %s", c->gguf->path, line);
}

static int shown(pith_text text) { return text.length > 60 ? 60 : (int)text.length; }

// -------------------------------------------------------------------------------------------- tokenizers

// The pre-tokenizers of the models that we run, by libllama's names. Most are split by its hand-written loops; the
// others by std::regex, which recurses.
static const struct {
    const char *name;
    bool regex;
} splitters[] = {
    {"qwen2", false},       {"deepseek-r1-qwen", false},
    {"qwen35", false},      {"megrez", false},
    {"llama-bpe", false},   {"llama3", false},
    {"llama-v3", false},    {"falcon3", false},
    {"pixtral", false},     {"smaug-bpe", false},
    {"dbrx", false},        {"gpt-2", false},
    {"mellum", false},      {"smollm", false},
    {"starcoder", false},   {"refact", false},
    {"command-r", false},   {"minerva-7b", false},
    {"trillion", false},    {"default", true},
    {"deepseek-llm", true}, {"deepseek-coder", true},
    {"deepseek-v3", true},  {"tekken", true},
    {"seed-coder", true},   {"falcon", true},
    {"viking", true},       {"poro-chat", true},
};

static void check_tokenizer(checker *c) {
    pith_text model, pre;
    c->status = pith_gguf_text(c->gguf, "tokenizer.ggml.model", true, &model, c->err);
    if (ok(c)) c->status = pith_gguf_text(c->gguf, "tokenizer.ggml.pre", false, &pre, c->err);
    if (!ok(c)) return;
    c->facts->spm = pith_text_is(model, "llama");
    c->facts->max_run = UINT32_MAX;
    if (c->facts->spm) return;
    if (!pith_text_is(model, "gpt2")) {
        refuse(c, PITH_E_UNSUPPORTED, "tokenizer.ggml.model: expected one of gpt2, llama, found '%.*s'", shown(model),
               model.at);
        return;
    }
    if (pre.length == 0) pre = (pith_text){"default", 7};
    for (size_t i = 0; i < sizeof splitters / sizeof *splitters; i++)
        if (pith_text_is(pre, splitters[i].name)) {
            if (splitters[i].regex) c->facts->max_run = REGEX_RUN;
            return;
        }
    refuse(c, PITH_E_UNSUPPORTED, "tokenizer.ggml.pre: the pre-tokenizer '%.*s' is not known", shown(pre), pre.at);
}

// ------------------------------------------------------------------------------------------------ tokens

// An array of that kind of elements, or NULL when it is missing or refused. n 0: any length.
static const pith_gguf_value *array(checker *c, const char *key, pith_gguf_type item, bool required, uint64_t n) {
    const pith_gguf_value *v = ok(c) ? pith_gguf_find(c->gguf, key) : NULL;
    if (!v && required) refuse(c, PITH_E_FORMAT, "%s: the key is missing", key);
    if (!v) return NULL;
    if (v->type != PITH_GGUF_ARRAY || v->item != item) {
        refuse(c, PITH_E_FORMAT, "%s: expected an array of %s, found %s%s", key, pith_gguf_type_name(item),
               v->type == PITH_GGUF_ARRAY ? "one of " : "", pith_gguf_type_name(v->item));
        return NULL;
    }
    if (n && v->n != n) {
        refuse(c, PITH_E_FORMAT, "%s: expected one for each of %" PRIu64 " tokens, found %" PRIu64, key, n, v->n);
        return NULL;
    }
    return v;
}

// Texts must be UTF-8 (libllama cuts a prompt at the texts of control tokens, and throws where that splits a character)
// and must differ (it asserts that).
static void check_tokens(checker *c) {
    const char *key = "tokenizer.ggml.tokens";
    const pith_gguf_value *tokens = array(c, key, PITH_GGUF_STRING, true, 0);
    if (!tokens) return;
    if (tokens->n == 0 || tokens->n > MAX_TOKENS) {
        refuse(c, PITH_E_FORMAT, "%s: expected 1 to %d tokens, found %" PRIu64, key, MAX_TOKENS, tokens->n);
        return;
    }
    c->facts->n_tokens = (uint32_t)tokens->n;
    if (!pith_nameset_init(&c->names, c->gguf->alloc, c->facts->n_tokens))
        refuse(c, PITH_E_MEMORY, "no memory to check its vocabulary");
    bool empty = false, like_empty = false;
    const uint8_t *at = tokens->data;
    for (uint32_t i = 0; ok(c) && i < c->facts->n_tokens; i++) {
        pith_text t = pith_gguf_next_text(&at);
        if (t.length > MAX_TOKEN_BYTES) refuse(c, PITH_E_FORMAT, "%s: token %u is %u bytes long", key, i, t.length);
        else if (memchr(t.at, 0, t.length)) refuse(c, PITH_E_FORMAT, "%s: token %u has a zero byte inside", key, i);
        else if (pith_utf8_valid(t.at, t.length) != t.length)
            refuse(c, PITH_E_FORMAT, "%s: token %u is not UTF-8", key, i);
        if (!ok(c)) return;
        empty = empty || t.length == 0;
        like_empty = like_empty || (t.length > 7 && memcmp(t.at, "[EMPTY_", 7) == 0);
        uint32_t other = t.length ? pith_nameset_add(&c->names, t.at, t.length, i) : PITH_NAME_NONE;
        if (other != PITH_NAME_NONE)
            refuse(c, PITH_E_FORMAT, "%s: tokens %u and %u are the same, '%.*s'", key, other, i, shown(t), t.at);
    }
    // libllama calls an empty token number i "[EMPTY_i]", which may then exist twice.
    if (empty && like_empty) refuse(c, PITH_E_FORMAT, "%s: empty tokens beside one called [EMPTY_...", key);
}

// A byte token's text is <0xXX>: libllama takes its digits from fixed places.
static bool names_byte(pith_text t) { return t.length == 6 && memcmp(t.at, "<0x", 3) == 0 && t.at[5] == '>'; }

static void check_types(checker *c) {
    const char *key = "tokenizer.ggml.token_type";
    const pith_gguf_value *types = array(c, key, PITH_GGUF_I32, false, c->facts->n_tokens);
    if (!types) return;
    const uint8_t *at = pith_gguf_find(c->gguf, "tokenizer.ggml.tokens")->data;
    for (uint32_t i = 0; ok(c) && i < c->facts->n_tokens; i++) {
        pith_text t = pith_gguf_next_text(&at);
        uint32_t type = pith_gguf_u32_at(types, i);
        if (type > TYPE_BYTE)
            refuse(c, PITH_E_FORMAT, "%s: token %u: expected a type from 0 to 6, found %d", key, i, (int)type);
        if (type == TYPE_BYTE && !names_byte(t))
            refuse(c, PITH_E_FORMAT, "%s: token %u: expected a byte token's text <0xXX>, found '%.*s'", key, i,
                   shown(t), t.at);
    }
}

static void check_scores(checker *c) {
    const char *key = "tokenizer.ggml.scores";
    const pith_gguf_value *v = pith_gguf_find(c->gguf, key);
    bool integers = v && v->type == PITH_GGUF_ARRAY && v->item == PITH_GGUF_I32; // allowed as well
    array(c, key, integers ? PITH_GGUF_I32 : PITH_GGUF_F32, c->facts->spm, c->facts->n_tokens);
}

// SentencePiece falls back to a token per byte; without it libllama throws in the middle of a prompt.
static void check_bytes(checker *c) {
    for (unsigned byte = 0; ok(c) && c->facts->spm && byte < 256; byte++) {
        char name[8], self = (char)byte;
        snprintf(name, sizeof name, "<0x%02X>", byte);
        bool there = pith_nameset_find(&c->names, name, 6) != PITH_NAME_NONE ||
                     (byte < 0x80 && pith_nameset_find(&c->names, &self, 1) != PITH_NAME_NONE);
        if (!there) refuse(c, PITH_E_FORMAT, "tokenizer.ggml.tokens: expected a token %s, found none", name);
    }
}

// "left right": libllama cuts at the first space after the first byte, and takes what it cannot cut for two empty
// parts.
static void check_merges(checker *c) {
    if (c->facts->spm) return;
    const char *key = "tokenizer.ggml.merges";
    const pith_gguf_value *merges = array(c, key, PITH_GGUF_STRING, true, 0);
    if (!merges) return;
    if (merges->n > MAX_TOKENS) refuse(c, PITH_E_FORMAT, "%s: %" PRIu64 " merges are not possible", key, merges->n);
    const uint8_t *at = merges->data;
    for (uint64_t i = 0; ok(c) && i < merges->n; i++) {
        pith_text m = pith_gguf_next_text(&at);
        const char *space = m.length > 2 ? memchr(m.at + 1, ' ', m.length - 2) : NULL;
        if (!space || memchr(m.at, 0, m.length))
            refuse(c, PITH_E_FORMAT, "%s: merge %" PRIu64 ": expected two parts with a space between, found '%.*s'",
                   key, i, shown(m), m.at);
    }
}

// ----------------------------------------------------------------------------------------- special tokens

// Every key tokenizer.ggml.*_token_id is a u32 inside the vocabulary.
static void check_special_ids(checker *c) {
    static const char prefix[] = "tokenizer.ggml.", suffix[] = "_token_id";
    const uint32_t before = sizeof prefix - 1, after = sizeof suffix - 1;
    for (uint32_t i = 0; ok(c) && i < c->gguf->n_values; i++) {
        const pith_gguf_value *v = &c->gguf->values[i];
        if (v->key_length < before + after || memcmp(v->key, prefix, before) != 0 ||
            memcmp(v->key + v->key_length - after, suffix, after) != 0)
            continue;
        int length = (int)v->key_length;
        if (v->type != PITH_GGUF_U32)
            refuse(c, PITH_E_FORMAT, "%.*s: expected u32, found %s", length, v->key, pith_gguf_type_name(v->type));
        else if (pith_gguf_u32_at(v, 0) >= c->facts->n_tokens)
            refuse(c, PITH_E_FORMAT, "%.*s: expected a token below %u, found %u", length, v->key, c->facts->n_tokens,
                   pith_gguf_u32_at(v, 0));
    }
}

static int32_t special_id(checker *c, const char *key, int32_t otherwise) {
    uint32_t id = UINT32_MAX;
    if (ok(c)) c->status = pith_gguf_u32(c->gguf, key, false, &id, c->err);
    if (id != UINT32_MAX) return (int32_t)id;
    return otherwise < (int32_t)c->facts->n_tokens ? otherwise : -1;
}

pith_status pith_vocab_check(const pith_gguf *gguf, pith_vocab_facts *out, pith_error *err) {
    *out = (pith_vocab_facts){0};
    checker c = {.gguf = gguf, .facts = out, .err = err};
    check_tokenizer(&c);
    check_tokens(&c);
    if (ok(&c)) check_types(&c);
    if (ok(&c)) check_scores(&c);
    check_bytes(&c);
    check_merges(&c);
    check_special_ids(&c);
    // SentencePiece models have these two by convention; others only where the file says so.
    out->bos = special_id(&c, "tokenizer.ggml.bos_token_id", out->spm ? 1 : -1);
    out->eos = special_id(&c, "tokenizer.ggml.eos_token_id", out->spm ? 2 : -1);
    pith_nameset_free(&c.names);
    return c.status;
}
