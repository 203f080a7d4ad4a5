#include "server/answer.h"

#include <string.h>

#include "base/utf8.h"

// Thirteen significant digits are more than an f32 log-probability has, and keep 0.1 from becoming 0.10000000000000001.
#define STYLE (JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(13))

static int add(const char *bytes, size_t n, void *out) { return buffer_add(out, bytes, n) ? 0 : -1; }

bool answer_json(buffer *out, json_t *value) {
    const bool ok = value && json_dump_callback(value, add, out, STYLE) == 0;
    if (!ok) out->failed = true;
    json_decref(value);
    return ok;
}

void answer_error(buffer *out, const refusal *why) {
    answer_json(out, json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", why->message, "type", why->type,
                               "param", why->param[0] ? why->param : NULL, "code", why->code));
}

static json_t *text_of(const buffer *b) { return json_stringn(b->at ? b->at : "", b->n); }

// The texts of answers are UTF-8 by then (speech.h); they are written as they come, since a tree of JSON for every
// token takes longer than all else that the server does for it.
static void add_text(buffer *out, const buffer *text) { buffer_json(out, text->at ? text->at : "", text->n); }

// ------------------------------------------------------------------------------------------------- usage

// Rows are those of the longest lane of the choice with the most; bytes are summed over the choices.
static json_t *usage(const job *j) {
    uint64_t generated = 0, thought = 0, bytes = 0, bytes_full = 0;
    uint32_t rows = 0, rows_full = 0, compressions = 0;
    for (uint32_t i = 0; i < j->request.n; i++) {
        const choice *c = &j->choices[i];
        generated += c->n_generated, thought += c->n_thought;
        bytes += c->info.bytes_peak, bytes_full += c->info.bytes_full;
        compressions += c->info.n_compressions;
        if (c->info.rows_peak > rows) rows = c->info.rows_peak;
        if (c->info.rows_full > rows_full) rows_full = c->info.rows_full;
    }
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}, s:{s:s, s:I, s:I, s:I, s:I, s:I}}", "prompt_tokens",
                     (json_int_t)j->n_prompt, "completion_tokens", (json_int_t)generated, "total_tokens",
                     (json_int_t)(j->n_prompt + generated), "prompt_tokens_details", "cached_tokens",
                     (json_int_t)j->choices[0].info.n_shared, "completion_tokens_details", "reasoning_tokens",
                     (json_int_t)thought, "cache", "policy", j->policy, "rows_peak", (json_int_t)rows, "rows_full",
                     (json_int_t)rows_full, "bytes_peak", (json_int_t)bytes, "bytes_full", (json_int_t)bytes_full,
                     "compressions", (json_int_t)compressions);
}

// What every answer and every event begins with, up to its choices.
static void open_frame(buffer *out, const job *j) {
    const char *object = !j->request.chat    ? "text_completion"
                         : j->request.stream ? "chat.completion.chunk"
                                             : "chat.completion";
    buffer_print(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", j->id, object,
                 (long long)j->created);
    buffer_json(out, j->model, strlen(j->model));
    buffer_print(out, ",\"choices\":[");
}

// ------------------------------------------------------------------------------------------------- log-probabilities

static json_t *bytes_of(const char *text, size_t n) {
    json_t *bytes = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(bytes, json_integer((unsigned char)text[i]));
    return bytes;
}

// A token may be part of a character; its bytes say it exactly, its text as well as text can.
static json_t *token_text(const char *text, size_t n) {
    if (pith_utf8_valid(text, n) == n) return json_stringn(text, n);
    buffer clean = buffer_new(4 * n + 4);
    for (size_t i = 0; i < n;) {
        const size_t valid = pith_utf8_valid(text + i, n - i);
        buffer_add(&clean, text + i, valid);
        i += valid;
        if (i < n) buffer_add(&clean, "\xef\xbf\xbd", 3), i++;
    }
    json_t *value = json_stringn(clean.at, clean.n);
    buffer_free(&clean);
    return value;
}

static json_t *entry(const answer_logprob *p) {
    return json_pack("{s:o, s:f, s:o}", "token", token_text(p->text, p->bytes), "logprob", p->logprob, "bytes",
                     bytes_of(p->text, p->bytes));
}

// Chat: an array of entries. Text completions: parallel arrays, of which the offsets are added when they are sent.
bool answer_add_logprob(job *j, choice *c, const answer_logprob *chosen, const answer_logprob *tops, size_t n_tops) {
    if (j->request.chat) {
        if (!c->logprobs) c->logprobs = json_array();
        json_t *one = entry(chosen), *all = json_array();
        for (size_t i = 0; i < n_tops; i++) json_array_append_new(all, entry(&tops[i]));
        json_object_set_new(one, "top_logprobs", all);
        return json_array_append_new(c->logprobs, one) == 0;
    }
    if (!c->logprobs)
        c->logprobs = json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs", "text_offset");
    json_t *all = json_object(), *text = token_text(chosen->text, chosen->bytes);
    for (size_t i = 0; i < n_tops; i++) {
        json_t *key = token_text(tops[i].text, tops[i].bytes);
        json_object_setn_new(all, json_string_value(key), json_string_length(key), json_real(tops[i].logprob));
        json_decref(key);
    }
    json_array_append_new(json_object_get(c->logprobs, "tokens"), text);
    json_array_append_new(json_object_get(c->logprobs, "token_logprobs"), json_real(chosen->logprob));
    json_array_append_new(json_object_get(c->logprobs, "top_logprobs"), all);
    return json_array_append_new(json_object_get(c->logprobs, "text_offset"),
                                 json_integer((json_int_t)c->n_characters)) == 0;
}

static json_t *logprobs_of(const job *j, choice *c) {
    json_t *got = c->logprobs;
    c->logprobs = NULL;
    if (!got && j->request.chat && j->request.logprobs && !j->request.stream)
        got = json_array(); // of content there is none
    if (!got) return json_null();
    return j->request.chat ? json_pack("{s:o}", "content", got) : got;
}

// The end of a choice's object.
static void close_choice(buffer *out, const job *j, choice *c) {
    buffer_print(out, ",\"logprobs\":");
    if (j->request.logprobs) answer_json(out, logprobs_of(j, c));
    else buffer_print(out, "null");
    if (c->finish) buffer_print(out, ",\"finish_reason\":\"%s\"}", c->finish);
    else buffer_print(out, ",\"finish_reason\":null}");
}

// ------------------------------------------------------------------------------------------------- streams

static buffer open_event(const job *j) {
    buffer line = buffer_new(j->out.most);
    buffer_print(&line, "data: ");
    open_frame(&line, j);
    return line;
}

static void send_event(job *j, buffer *line) {
    buffer_print(line, "}\n\n");
    if (!line->failed) job_write(j, line->at, line->n);
    buffer_free(line);
}

// What compression has left of a choice's generated tokens: a digit each, 9 where all layers and heads still have it, 0
// where none has.
static json_t *kept_digits(const choice *c) {
    buffer digits = buffer_new(c->n_kept + 1);
    for (uint32_t i = 0; i < c->n_kept; i++) {
        const uint32_t share = c->n_sets ? 9u * c->kept[i] / c->n_sets : 0;
        buffer_print(&digits, "%u", c->kept[i] > 0 && share == 0 ? 1u : share);
    }
    json_t *value = text_of(&digits);
    buffer_free(&digits);
    return value;
}

static json_t *cache_state(choice *c) {
    json_t *cache = json_pack("{s:I, s:I, s:I}", "tokens", (json_int_t)c->n_generated, "rows", (json_int_t)c->info.rows,
                              "rows_full", (json_int_t)c->info.rows_full);
    if (c->rows_before > 0) {
        json_object_set_new(cache, "rows_before", json_integer(c->rows_before));
        json_object_set_new(cache, "rows_after", json_integer(c->rows_after));
        json_object_set_new(cache, "kept", kept_digits(c));
        c->rows_before = c->rows_after = 0;
    }
    return cache;
}

static void add_delta(buffer *out, const choice *c) {
    const bool reasons = c->reasoning.n > 0, speaks = c->content.n > 0;
    buffer_print(out, "{");
    if (!c->announced) buffer_print(out, "\"role\":\"assistant\"%s", reasons || speaks ? "," : ",\"content\":\"\"");
    if (reasons) buffer_print(out, "\"reasoning_content\":"), add_text(out, &c->reasoning);
    if (reasons && speaks) buffer_print(out, ",");
    if (speaks) buffer_print(out, "\"content\":"), add_text(out, &c->content);
    buffer_print(out, "}");
}

void answer_event(job *j, uint32_t index) {
    choice *c = &j->choices[index];
    const bool opens = j->request.chat && !c->announced;
    const bool has_news = c->reasoning.n + c->content.n > 0 || c->logprobs || c->finish || c->rows_before > 0;
    if (!has_news && !opens) return;
    buffer line = open_event(j);
    buffer_print(&line, "{\"index\":%u,\"%s\":", index, j->request.chat ? "delta" : "text");
    if (j->request.chat) add_delta(&line, c);
    else add_text(&line, &c->content);
    close_choice(&line, j, c);
    buffer_print(&line, "]%s", j->request.include_usage ? ",\"usage\":null" : "");
    if (j->request.cache_events) buffer_print(&line, ",\"cache\":"), answer_json(&line, cache_state(c));
    send_event(j, &line);
    c->announced = true;
    c->reasoning.n = c->content.n = 0;
}

void answer_stream_end(job *j) {
    if (j->request.include_usage) {
        buffer line = open_event(j);
        buffer_print(&line, "],\"usage\":");
        answer_json(&line, usage(j));
        send_event(j, &line);
    }
    static const char done[] = "data: [DONE]\n\n";
    job_write(j, done, sizeof done - 1);
}

// ------------------------------------------------------------------------------------------------- whole answers

static void add_message(buffer *out, const choice *c) {
    buffer_print(out, "{\"role\":\"assistant\",\"content\":");
    add_text(out, &c->content);
    if (c->reasoning.n > 0) buffer_print(out, ",\"reasoning_content\":"), add_text(out, &c->reasoning);
    buffer_print(out, "}");
}

void answer_whole(job *j) {
    buffer body = buffer_new(j->out.most);
    open_frame(&body, j);
    for (uint32_t i = 0; i < j->request.n; i++) {
        choice *c = &j->choices[i];
        buffer_print(&body, "%s{\"index\":%u,\"%s\":", i > 0 ? "," : "", i, j->request.chat ? "message" : "text");
        if (j->request.chat) add_message(&body, c);
        else add_text(&body, &c->content);
        close_choice(&body, j, c);
    }
    buffer_print(&body, "],\"usage\":");
    answer_json(&body, usage(j));
    buffer_print(&body, "}");
    if (body.failed) {
        refusal no = {.status = 500, .type = "server_error", .message = "no memory for the answer"};
        job_fail(j, &no);
    } else {
        job_write(j, body.at, body.n);
    }
    buffer_free(&body);
}
