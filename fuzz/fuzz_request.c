// Bodies of requests. The first byte chooses chat or text. Whatever the bytes, a body is refused with one printable
// line, or accepted such that every field is in its range and every text is UTF-8.
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "server/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void require_text(const char *text, size_t n) { require(pith_utf8_valid(text, n) == n); }

static void check_refusal(const refusal *no) {
    require(no->status == 400 && no->message[0] && strlen(no->message) < sizeof no->message);
    for (const char *c = no->message; *c; c++) require(*c >= ' ' && *c <= '~');
    for (const char *c = no->param; *c; c++) require(*c >= ' ' && *c <= '~');
}

static void check_request(const request *r, const request_defaults *d) {
    require(r->chat ? r->n_messages >= 1 : (r->prompt != NULL) != (r->n_tokens > 0));
    for (size_t i = 0; i < r->n_messages; i++) {
        require(r->messages[i].role && r->messages[i].content);
        require_text(r->messages[i].content, strlen(r->messages[i].content));
    }
    if (r->prompt) require(r->prompt_bytes > 0 && strlen(r->prompt) == r->prompt_bytes);
    for (size_t i = 0; i < r->n_tokens; i++) require(r->tokens[i] >= 0 && (uint32_t)r->tokens[i] < d->n_vocab);
    require(r->n >= 1 && r->n <= d->most_choices);
    require(r->temperature >= 0 && r->temperature <= 2 && r->top_p > 0 && r->top_p <= 1 && r->min_p >= 0 &&
            r->min_p <= 1);
    require(r->n_stops <= SPEECH_STOPS);
    for (size_t i = 0; i < r->n_stops; i++) {
        const size_t n = strlen(r->stops[i]);
        require(n >= 1 && n <= SPEECH_STOP_BYTES);
        require_text(r->stops[i], n);
    }
    require(r->top_logprobs <= REQUEST_TOP_LOGPROBS && (r->logprobs || r->top_logprobs == 0));
    for (size_t i = 0; i < r->n_biases; i++)
        require((uint32_t)r->biases[i].token < d->n_vocab && r->biases[i].bias >= -100 && r->biases[i].bias <= 100);
    require(!r->policy[0] || pith_policy_check(r->policy, NULL, 0, NULL) == PITH_OK);
    require((r->format == REQUEST_JSON_SCHEMA) == (r->schema != NULL));
    require(!r->cache_events || r->stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const request_defaults defaults = {.temperature = 0.6f, .top_p = 0.95f, .n_vocab = 1000, .most_choices = 4};
    request r;
    refusal no = {0};
    if (request_parse(&r, data[0] != 't', (const char *)data + 1, size - 1, &defaults, &no)) {
        check_request(&r, &defaults);
        request_free(&r);
    } else {
        check_refusal(&no);
    }
    return 0;
}
