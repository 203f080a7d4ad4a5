// The routes: OpenAI's, tokens, health, metrics, the page.
#include <stdlib.h>
#include <string.h>

#include "server/answer.h"
#include "server/inside.h"
#include "server/piece.h"
#include "server/web.h"

// ------------------------------------------------------------------------------------------------- prompts

static bool refuse_error(refusal *no, const char *param, const pith_error *err) {
    if (err->status == PITH_E_ARG || err->status == PITH_E_FORMAT || err->status == PITH_E_UNSUPPORTED)
        return request_refuse(no, param, "%s", err->msg);
    request_refuse(no, "", "%s", err->msg);
    no->status = 500, no->type = "server_error";
    return false;
}

// Text to tokens, of C's malloc. NULL after a refusal.
static pith_token *tokens_of(const server *s, const char *text, size_t bytes, int flags, const char *param, size_t *n,
                             refusal *no) {
    const size_t capacity = bytes + 16; // no tokenizer makes more tokens than bytes, and a few at the ends
    pith_token *tokens = malloc(capacity * sizeof *tokens);
    pith_error err = {.status = PITH_E_MEMORY, .msg = "no memory for a prompt"};
    if (tokens && pith_tokenize(s->model, text, bytes, flags, tokens, capacity, n, &err) == PITH_OK) return tokens;
    free(tokens);
    refuse_error(no, param, &err);
    return NULL;
}

static bool ends_thinking(const char *text) {
    static const char mark[] = "<think>";
    size_t n = strlen(text);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
    return n >= sizeof mark - 1 && !memcmp(text + n - (sizeof mark - 1), mark, sizeof mark - 1);
}

static bool read_prompt(const server *s, job *j, refusal *no) {
    const int flags = PITH_TOKENS_SPECIAL | PITH_TOKENS_BEGIN;
    request *r = &j->request;
    if (r->chat) {
        char *text;
        pith_error err;
        if (pith_chat_render(s->model, r->messages, r->n_messages, &text, &err) != PITH_OK)
            return refuse_error(no, "messages", &err);
        j->opens_thought = ends_thinking(text);
        j->prompt = tokens_of(s, text, strlen(text), flags, "messages", &j->n_prompt, no);
        pith_text_free(text);
    } else if (r->tokens) {
        j->prompt = r->tokens, j->n_prompt = r->n_tokens;
        r->tokens = NULL;
    } else {
        j->prompt = tokens_of(s, r->prompt, r->prompt_bytes, flags, "prompt", &j->n_prompt, no);
    }
    if (!j->prompt) return false;
    if (j->n_prompt > 0 && j->n_prompt < s->engine_info.n_ctx) return true;
    request_refuse(no, r->chat ? "messages" : "prompt",
                   "the prompt has %zu tokens; expected 1 to %u, one less than the context holds", j->n_prompt,
                   s->engine_info.n_ctx - 1);
    no->code = "context_length_exceeded";
    return false;
}

static bool read_grammar(const server *s, job *j, refusal *no) {
    const request *r = &j->request;
    pith_error err;
    if (r->format == REQUEST_TEXT) return true;
    if (pith_grammar_new(s->model, r->schema, r->schema ? strlen(r->schema) : 0, &j->grammar, &err) == PITH_OK)
        return true;
    return refuse_error(no, "response_format", &err);
}

// ------------------------------------------------------------------------------------------------- completions

static bool accepts(const server *s, const request *r, refusal *no) {
    if (r->model && strcmp(r->model, s->name) != 0) {
        request_refuse(no, "model", "model: this server has %s, not \"%.80s\"", s->name, r->model);
        no->status = 404, no->code = "model_not_found";
        return false;
    }
    return true;
}

static void complete(server *s, exchange *e, bool chat) {
    size_t n;
    const char *body = http_body(e, &n);
    request r;
    refusal no;
    if (!request_parse(&r, chat, body, n, &s->defaults, &no)) return http_refuse(e, &no);
    if (!accepts(s, &r, &no)) {
        request_free(&r);
        return http_refuse(e, &no);
    }
    job *j = job_new(&r, s->name);
    if (!j) {
        no = (refusal){.status = 500, .type = "server_error", .message = "no memory for a request"};
        return http_refuse(e, &no);
    }
    if (read_grammar(s, j, &no) && read_prompt(s, j, &no)) {
        http_attach(e, j);
        if (loop_submit(s->loop, j, &no)) return http_follow(e, j);
    }
    job_drop(j);
    http_refuse(e, &no);
}

static void chat_completions(void *ctx, exchange *e) { complete(ctx, e, true); }
static void completions(void *ctx, exchange *e) { complete(ctx, e, false); }

// ------------------------------------------------------------------------------------------------- the rest

static json_t *model_object(const server *s) {
    return json_pack("{s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:b}", "id", s->name, "object", "model", "created",
                     (json_int_t)s->started, "owned_by", "pith", "context_length", (json_int_t)s->engine_info.n_ctx,
                     "max_tokens", (json_int_t)s->params.max_new, "cache_policy", s->params.policy, "chat",
                     (int)s->model_info.has_chat_template);
}

static void models(void *ctx, exchange *e) {
    http_reply_json(e, 200, json_pack("{s:s, s:[o]}", "object", "list", "data", model_object(ctx)));
}

static void one_model(void *ctx, exchange *e) {
    const server *s = ctx;
    if (!strcmp(http_path(e) + strlen("/v1/models/"), s->name)) return http_reply_json(e, 200, model_object(s));
    refusal no;
    request_refuse(&no, "model", "this server has %s only", s->name);
    no.status = 404, no.code = "model_not_found";
    http_refuse(e, &no);
}

static void health(void *ctx, exchange *e) {
    server *s = ctx;
    const char *status = atomic_load(&s->closing) ? "closing" : loop_is_broken(s->loop) ? "broken" : "ok";
    http_reply_json(e, strcmp(status, "ok") ? 503 : 200, json_pack("{s:s}", "status", status));
}

static void show_metrics(void *ctx, exchange *e) {
    buffer text = buffer_new(1 << 20);
    metrics_write(&((server *)ctx)->counts, &text);
    http_reply(e, 200, "text/plain; version=0.0.4", text.at, text.n);
    buffer_free(&text);
}

static void tokenize(void *ctx, exchange *e) {
    size_t n;
    const char *text = http_body(e, &n);
    refusal no;
    json_t *body = request_object(text, n, &no), *content = json_object_get(body, "content");
    pith_token *tokens = NULL;
    if (body && !json_is_string(content)) request_refuse(&no, "content", "content: expected a string");
    if (json_is_string(content)) {
        const json_t *special = json_object_get(body, "parse_special");
        const int flags = (json_is_true(json_object_get(body, "add_special")) ? PITH_TOKENS_BEGIN : 0) |
                          (json_is_false(special) ? 0 : PITH_TOKENS_SPECIAL);
        tokens = tokens_of(ctx, json_string_value(content), json_string_length(content), flags, "content", &n, &no);
    }
    json_decref(body);
    if (!tokens) return http_refuse(e, &no);
    json_t *ids = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(ids, json_integer(tokens[i]));
    free(tokens);
    http_reply_json(e, 200, json_pack("{s:o}", "tokens", ids));
}

static void keep(void *ctx, speech_part part, const char *text, size_t bytes) {
    (void)part;
    buffer_add(ctx, text, bytes);
}

static void detokenize(void *ctx, exchange *e) {
    const server *s = ctx;
    size_t n;
    const char *text = http_body(e, &n);
    refusal no;
    json_t *body = request_object(text, n, &no);
    pith_token *tokens =
        body ? request_tokens(json_object_get(body, "tokens"), "tokens", s->defaults.n_vocab, &n, &no) : NULL;
    json_decref(body);
    if (!tokens) return http_refuse(e, &no);
    buffer content = buffer_new(64 << 20);
    speech whole; // makes text of whatever the bytes are
    speech_begin(&whole, SPEECH_ANSWER, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        piece p;
        piece_read(&p, s->model, tokens[i], true);
        speech_add(&whole, p.bytes, p.n, keep, &content);
        piece_free(&p);
    }
    speech_end(&whole, keep, &content);
    free(tokens);
    http_reply_json(e, 200, json_pack("{s:o}", "content", json_stringn(content.at ? content.at : "", content.n)));
    buffer_free(&content);
}

static void page(void *ctx, exchange *e) {
    (void)ctx;
    const web_file *file = web_find(http_path(e));
    http_reply(e, 200, file->type, file->begin, (size_t)(file->end - file->begin));
}

const http_route api_routes[] = {
    {"POST", "/v1/chat/completions", false, chat_completions},
    {"POST", "/v1/completions", false, completions},
    {"GET", "/v1/models", false, models},
    {"GET", "/v1/models/*", false, one_model},
    {"POST", "/tokenize", false, tokenize},
    {"POST", "/detokenize", false, detokenize},
    {"GET", "/metrics", false, show_metrics},
    {"GET", "/health", true, health},
    {"GET", "/", true, page},
    {"GET", "/page.css", true, page},
    {"GET", "/page.js", true, page},
};
const size_t api_n_routes = sizeof api_routes / sizeof *api_routes;
