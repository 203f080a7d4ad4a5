// The body of a request, checked. OpenAI's fields for chat and text completions, and Pith's own: `cache_policy`,
// `thinking_budget`, `cache_events`, `ignore_eos`, `top_k`, `min_p`.
//
// Fields that nobody knows are ignored, as clients send many; fields that are known and cannot be followed are refused.
#ifndef PITH_SERVER_REQUEST_H
#define PITH_SERVER_REQUEST_H

#include <jansson.h>

#include "pith.h"
#include "server/speech.h"

enum {
    REQUEST_CHOICES = 16,    // most answers of one request
    REQUEST_MESSAGES = 4096, // most messages of a chat
    REQUEST_TOP_LOGPROBS = 20,
    REQUEST_BIASES = 1024, // most entries of logit_bias
    REQUEST_POLICY = 256,  // bytes of a canonical policy spec, terminator included
};
#define REQUEST_UNBOUNDED UINT32_MAX

// What is wrong with a request, as an answer in OpenAI's shape says it.
typedef struct refusal {
    int status;       // of HTTP
    const char *type; // "invalid_request_error", ...
    const char *code; // machine readable, or NULL
    char param[48];   // the field at fault, or ""
    char message[400];
} refusal;

typedef enum request_format { REQUEST_TEXT, REQUEST_JSON_OBJECT, REQUEST_JSON_SCHEMA } request_format;

typedef struct request_bias {
    pith_token token;
    float bias;
} request_bias;

typedef struct request {
    bool chat;
    const char *model; // as asked for, or NULL

    pith_message *messages; // (n_messages), chat: at least one
    size_t n_messages;
    const char *prompt; // text completion: this, or else tokens
    size_t prompt_bytes;
    pith_token *tokens; // (n_tokens)
    size_t n_tokens;

    bool stream, include_usage, cache_events;
    bool ignore_end;  // go on past end-of-generation tokens
    uint32_t n;       // 1 to REQUEST_CHOICES
    uint32_t max_new; // 0: the server's default
    float temperature, top_p, min_p;
    uint32_t top_k;
    bool seeded;
    uint64_t seed;
    const char *stops[SPEECH_STOPS]; // (n_stops)
    size_t n_stops;
    bool logprobs;
    uint32_t top_logprobs;
    float frequency_penalty, presence_penalty;
    request_bias *biases; // (n_biases)
    size_t n_biases;
    char policy[REQUEST_POLICY]; // canonical, "" for the server's default
    uint32_t thinking_budget;    // tokens, or REQUEST_UNBOUNDED
    request_format format;
    char *schema; // JSON text of REQUEST_JSON_SCHEMA; owned

    json_t *body; // owns what the fields above point to
} request;

typedef struct request_defaults {
    float temperature, top_p;
    uint32_t n_vocab;
    uint32_t most_choices; // at most REQUEST_CHOICES
} request_defaults;

// Reads `bytes` bytes of JSON. False: `no` says why, and nothing is to be freed.
bool request_parse(request *r, bool chat, const char *text, size_t bytes, const request_defaults *defaults,
                   refusal *no);
void request_free(request *r);

// An object from the body of another request; NULL after a refusal.
json_t *request_object(const char *text, size_t bytes, refusal *no);
// An array of token ids below n_vocab, owned by the caller: C's malloc. NULL after a refusal.
pith_token *request_tokens(json_t *array, const char *field, uint32_t n_vocab, size_t *n, refusal *no);

// Fills `no` with a 400; returns false.
bool request_refuse(refusal *no, const char *param, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
