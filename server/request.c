#include "server/request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool request_refuse(refusal *no, const char *param, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    *no = (refusal){.status = 400, .type = "invalid_request_error"};
    snprintf(no->param, sizeof no->param, "%s", param);
    vsnprintf(no->message, sizeof no->message, fmt, args);
    va_end(args);
    for (char *c = no->message; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?'; // a message is cut off anywhere and must stay UTF-8
    for (char *c = no->param; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
    return false;
}

// ------------------------------------------------------------------------------------------------- fields
//
// A reader goes down the body; its first refusal sticks, so that nothing has to be asked in between. A field that is
// missing or null leaves the default.

typedef struct reader {
    json_t *object;
    refusal *no;
    bool ok;
} reader;

static const char *kind_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    case JSON_NULL: break;
    }
    return "null";
}

static json_t *field(const reader *r, const char *name) {
    json_t *value = r->ok ? json_object_get(r->object, name) : NULL;
    return value && !json_is_null(value) ? value : NULL;
}

#define REFUSE(r, param, ...) ((void)((r)->ok = request_refuse((r)->no, param, __VA_ARGS__)))

static void read_flag(reader *r, const char *name, bool *out) {
    json_t *value = field(r, name);
    if (!value) return;
    if (json_is_boolean(value)) *out = json_is_true(value);
    else REFUSE(r, name, "%s: expected a boolean, found %s", name, kind_of(value));
}

static void read_real(reader *r, const char *name, double least, double most, float *out) {
    json_t *value = field(r, name);
    if (!value) return;
    if (!json_is_number(value)) {
        REFUSE(r, name, "%s: expected a number, found %s", name, kind_of(value));
        return;
    }
    const double x = json_number_value(value);
    if (x >= least && x <= most) *out = (float)x;
    else REFUSE(r, name, "%s: expected a number from %g to %g, found %g", name, least, most, x);
}

static void read_count(reader *r, const char *name, uint32_t least, uint32_t most, uint32_t *out) {
    json_t *value = field(r, name);
    if (!value) return;
    if (!json_is_integer(value)) {
        REFUSE(r, name, "%s: expected a whole number, found %s", name, kind_of(value));
        return;
    }
    const json_int_t x = json_integer_value(value);
    if (x >= least && x <= most) *out = (uint32_t)x;
    else REFUSE(r, name, "%s: expected %u to %u, found %" JSON_INTEGER_FORMAT, name, least, most, x);
}

static const char *read_text(reader *r, const char *name) {
    json_t *value = field(r, name);
    if (!value) return NULL;
    if (json_is_string(value)) return json_string_value(value);
    REFUSE(r, name, "%s: expected a string, found %s", name, kind_of(value));
    return NULL;
}

json_t *request_object(const char *text, size_t bytes, refusal *no) {
    json_error_t error;
    json_t *body = json_loadb(text, bytes, JSON_DECODE_ANY, &error);
    if (!body) {
        request_refuse(no, "", "the body is not JSON: %s (line %d, column %d)", error.text, error.line, error.column);
        return NULL;
    }
    if (json_is_object(body)) return body;
    request_refuse(no, "", "the body: expected an object, found %s", kind_of(body));
    json_decref(body);
    return NULL;
}

pith_token *request_tokens(json_t *array, const char *name, uint32_t n_vocab, size_t *n, refusal *no) {
    *n = 0;
    if (!json_is_array(array)) return request_refuse(no, name, "%s: expected an array of token ids", name), NULL;
    const size_t count = json_array_size(array);
    pith_token *tokens = malloc((count + 1) * sizeof *tokens);
    if (!tokens) return request_refuse(no, name, "%s: no memory for %zu tokens", name, count), NULL;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(array, i);
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= n_vocab) {
            free(tokens);
            return request_refuse(no, name, "%s: entry %zu: expected a token id below %u", name, i, n_vocab), NULL;
        }
        tokens[i] = (pith_token)id;
    }
    *n = count;
    return tokens;
}

// ------------------------------------------------------------------------------------------------- prompts

// A message's content: a string, or parts of type "text", which are joined. The result belongs to the message.
static const char *read_content(reader *r, json_t *message, size_t index) {
    json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) return json_string_value(content);
    if ((!content || json_is_null(content)) && json_object_get(message, "role") &&
        !strcmp(json_string_value(json_object_get(message, "role")), "assistant"))
        return "";
    if (!json_is_array(content)) {
        REFUSE(r, "messages", "messages[%zu].content: expected a string or an array of text parts", index);
        return NULL;
    }
    size_t bytes = 0, i;
    json_t *part;
    json_array_foreach(content, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        json_t *text = json_object_get(part, "text");
        if (!type || strcmp(type, "text") || !json_is_string(text)) {
            REFUSE(r, "messages",
                   "messages[%zu].content[%zu]: expected a part of type text; this model reads nothing else", index, i);
            return NULL;
        }
        bytes += json_string_length(text);
    }
    char *joined = malloc(bytes + 1);
    size_t at = 0;
    if (joined) json_array_foreach(content, i, part) {
            const json_t *text = json_object_get(part, "text");
            memcpy(joined + at, json_string_value(text), json_string_length(text));
            at += json_string_length(text);
        }
    json_t *whole = joined ? json_stringn(joined, bytes) : NULL;
    free(joined);
    if (!whole || json_object_set_new(message, "content", whole) != 0) {
        REFUSE(r, "messages", "no memory for a message");
        return NULL;
    }
    return json_string_value(whole);
}

// The role as templates know it; NULL when nobody does.
static const char *known_role(const char *role) {
    if (!strcmp(role, "system") || !strcmp(role, "developer")) return "system";
    if (!strcmp(role, "user")) return "user";
    return !strcmp(role, "assistant") ? "assistant" : NULL;
}

static void read_messages(reader *r, request *to) {
    json_t *array = field(r, "messages"), *message;
    const size_t n = json_array_size(array);
    if (!r->ok) return;
    if (!json_is_array(array) || n == 0 || n > REQUEST_MESSAGES) {
        REFUSE(r, "messages", "messages: expected an array of 1 to %d messages", REQUEST_MESSAGES);
        return;
    }
    to->messages = calloc(n, sizeof *to->messages);
    if (!to->messages) {
        REFUSE(r, "messages", "no memory for %zu messages", n);
        return;
    }
    size_t i;
    json_array_foreach(array, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *known = role ? known_role(role) : NULL;
        if (!role) REFUSE(r, "messages", "messages[%zu]: expected an object with a role and a content", i);
        else if (!known)
            REFUSE(r, "messages", "messages[%zu].role: expected system, developer, user or assistant, found \"%.40s\"",
                   i, role);
        if (!r->ok) return;
        const char *content = read_content(r, message, i);
        if (!r->ok) return;
        to->messages[to->n_messages++] = (pith_message){known, content};
    }
}

static void read_prompt(reader *r, request *to, const request_defaults *defaults) {
    json_t *prompt = field(r, "prompt");
    if (!r->ok) return;
    if (json_is_array(prompt) && json_array_size(prompt) == 1 && json_is_string(json_array_get(prompt, 0)))
        prompt = json_array_get(prompt, 0);
    if (json_is_string(prompt)) {
        to->prompt = json_string_value(prompt), to->prompt_bytes = json_string_length(prompt);
        if (to->prompt_bytes == 0) REFUSE(r, "prompt", "prompt: expected at least one character");
    } else if (json_is_array(prompt) && json_is_integer(json_array_get(prompt, 0))) {
        to->tokens = request_tokens(prompt, "prompt", defaults->n_vocab, &to->n_tokens, r->no);
        r->ok = to->tokens != NULL;
    } else {
        REFUSE(r, "prompt", "prompt: expected one string, or one array of token ids");
    }
}

// ------------------------------------------------------------------------------------------------- answers

static void read_stops(reader *r, request *to) {
    json_t *stop = field(r, "stop");
    if (!stop) return;
    const size_t n = json_is_string(stop) ? 1 : json_array_size(stop);
    if ((!json_is_string(stop) && !json_is_array(stop)) || n > SPEECH_STOPS) {
        REFUSE(r, "stop", "stop: expected a string or an array of at most %d", SPEECH_STOPS);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_string(stop) ? stop : json_array_get(stop, i);
        const size_t bytes = json_string_length(one);
        if (!json_is_string(one) || bytes == 0 || bytes > SPEECH_STOP_BYTES) {
            REFUSE(r, "stop", "stop: expected strings of 1 to %d bytes", SPEECH_STOP_BYTES);
            return;
        }
        to->stops[to->n_stops++] = json_string_value(one);
    }
}

// Chat has a switch and a number, text completions one number.
static void read_logprobs(reader *r, request *to) {
    if (to->chat) {
        read_flag(r, "logprobs", &to->logprobs);
        read_count(r, "top_logprobs", 0, REQUEST_TOP_LOGPROBS, &to->top_logprobs);
        if (r->ok && to->top_logprobs > 0 && !to->logprobs)
            REFUSE(r, "top_logprobs", "top_logprobs: expected logprobs to be true");
    } else if (field(r, "logprobs")) {
        read_count(r, "logprobs", 0, REQUEST_TOP_LOGPROBS, &to->top_logprobs);
        to->logprobs = true;
    }
}

static void read_biases(reader *r, request *to, const request_defaults *defaults) {
    json_t *object = field(r, "logit_bias"), *value;
    if (!object) return;
    const size_t n = json_object_size(object);
    if (!json_is_object(object) || n > REQUEST_BIASES) {
        REFUSE(r, "logit_bias", "logit_bias: expected an object of at most %d token ids", REQUEST_BIASES);
        return;
    }
    to->biases = calloc(n + 1, sizeof *to->biases);
    if (!to->biases) REFUSE(r, "logit_bias", "no memory for logit_bias");
    const char *key;
    if (r->ok) json_object_foreach(object, key, value) {
            char *end;
            const unsigned long id = strtoul(key, &end, 10);
            if (*key < '0' || *key > '9' || *end || id >= defaults->n_vocab) {
                REFUSE(r, "logit_bias", "logit_bias: expected token ids below %u as keys, found \"%.40s\"",
                       defaults->n_vocab, key);
                return;
            }
            const double bias = json_is_number(value) ? json_number_value(value) : NAN;
            if (!(bias >= -100 && bias <= 100)) {
                REFUSE(r, "logit_bias", "logit_bias: %s: expected a number from -100 to 100", key);
                return;
            }
            to->biases[to->n_biases++] = (request_bias){(pith_token)id, (float)bias};
        }
}

static void read_policy(reader *r, request *to) {
    const char *spec = read_text(r, "cache_policy");
    pith_error err;
    if (!spec || pith_policy_check(spec, to->policy, sizeof to->policy, &err) == PITH_OK) return;
    REFUSE(r, "cache_policy", "cache_policy: %s", err.msg);
}

// How long the model may think, by word or by number. The words' numbers are what a reasoning model of today needs for
// an easy, a middling and a hard question; a number in thinking_budget has the last word.
static void read_thinking(reader *r, request *to) {
    static const struct {
        const char *word;
        uint32_t budget;
    } efforts[] = {{"none", 0},      {"minimal", 256}, {"low", 1024},
                   {"medium", 4096}, {"high", 16384},  {"xhigh", REQUEST_UNBOUNDED}};
    const char *effort = read_text(r, "reasoning_effort");
    if (effort) {
        size_t i = 0;
        while (i < sizeof efforts / sizeof *efforts && strcmp(efforts[i].word, effort)) i++;
        if (i < sizeof efforts / sizeof *efforts) to->thinking_budget = efforts[i].budget;
        else
            REFUSE(r, "reasoning_effort",
                   "reasoning_effort: expected none, minimal, low, medium, high or xhigh, found \"%.40s\"", effort);
    }
    read_count(r, "thinking_budget", 0, 1u << 24, &to->thinking_budget);
}

// `name`, `description` and `strict` change nothing here: an answer keeps to its schema in any case.
static void read_schema(reader *r, request *to, const json_t *format) {
    json_t *name = json_object_get(format, "name"), *strict = json_object_get(format, "strict");
    json_t *schema = json_object_get(format, "schema");
    if (!json_is_object(format))
        REFUSE(r, "response_format", "response_format.json_schema: expected an object with a name and a schema");
    else if (name && !json_is_string(name))
        REFUSE(r, "response_format", "response_format.json_schema.name: expected a string, found %s", kind_of(name));
    else if (strict && !json_is_boolean(strict) && !json_is_null(strict))
        REFUSE(r, "response_format", "response_format.json_schema.strict: expected a boolean, found %s",
               kind_of(strict));
    else if (!json_is_object(schema))
        REFUSE(r, "response_format", "response_format.json_schema.schema: expected an object");
    if (!r->ok) return;
    to->format = REQUEST_JSON_SCHEMA, to->schema = json_dumps(schema, JSON_COMPACT);
    if (!to->schema) REFUSE(r, "response_format", "no memory for a schema");
}

static void read_format(reader *r, request *to) {
    json_t *format = field(r, "response_format");
    if (!format) return;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type && !strcmp(type, "text")) return;
    if (type && !strcmp(type, "json_object")) to->format = REQUEST_JSON_OBJECT;
    else if (type && !strcmp(type, "json_schema")) read_schema(r, to, json_object_get(format, "json_schema"));
    else REFUSE(r, "response_format", "response_format.type: expected text, json_object or json_schema");
}

// Fields that would change the answer and that this server cannot follow.
static void refuse_others(reader *r, const request *to) {
    static const char *const chat[] = {"tools", "functions", "audio"}, *const plain[] = {"suffix", "echo"};
    const char *const *names = to->chat ? chat : plain;
    for (size_t i = 0; i < (to->chat ? 3 : 2); i++) {
        const json_t *value = field(r, names[i]);
        if (!value || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0)) continue;
        REFUSE(r, names[i], "%s: not supported by this server", names[i]);
    }
    uint32_t best_of = to->n;
    read_count(r, "best_of", 1, REQUEST_CHOICES, &best_of);
    if (r->ok && best_of != to->n) REFUSE(r, "best_of", "best_of: expected the value of n");
}

static void read_all(reader *r, request *to, const request_defaults *defaults) {
    to->model = read_text(r, "model");
    if (to->chat) read_messages(r, to);
    else read_prompt(r, to, defaults);
    read_flag(r, "stream", &to->stream);
    read_flag(r, "ignore_eos", &to->ignore_end);
    read_flag(r, "cache_events", &to->cache_events);
    if (r->ok && to->cache_events && !to->stream) REFUSE(r, "cache_events", "cache_events: expected stream to be true");
    json_t *options = field(r, "stream_options");
    if (options && !json_is_object(options)) REFUSE(r, "stream_options", "stream_options: expected an object");
    reader inner = {options, r->no, r->ok && options};
    read_flag(&inner, "include_usage", &to->include_usage);
    if (options && r->ok) r->ok = inner.ok;

    read_count(r, "n", 1, defaults->most_choices, &to->n);
    read_count(r, "max_tokens", 1, 1u << 24, &to->max_new);
    read_count(r, "max_completion_tokens", 1, 1u << 24, &to->max_new);
    read_real(r, "temperature", 0, 2, &to->temperature);
    read_real(r, "top_p", 0, 1, &to->top_p);
    if (to->top_p < 1e-6f) to->top_p = 1e-6f; // nothing but the likeliest token
    read_real(r, "min_p", 0, 1, &to->min_p);
    json_t *top_k = field(r, "top_k");
    if (!top_k || json_integer_value(top_k) != -1) read_count(r, "top_k", 0, 1u << 24, &to->top_k); // -1: off elsewhere
    json_t *seed = field(r, "seed");
    if (seed && !json_is_integer(seed)) REFUSE(r, "seed", "seed: expected a whole number, found %s", kind_of(seed));
    to->seeded = seed != NULL, to->seed = (uint64_t)json_integer_value(seed);
    read_stops(r, to);
    read_logprobs(r, to);
    read_real(r, "frequency_penalty", -2, 2, &to->frequency_penalty);
    read_real(r, "presence_penalty", -2, 2, &to->presence_penalty);
    read_biases(r, to, defaults);
    read_policy(r, to);
    read_thinking(r, to);
    read_format(r, to);
    refuse_others(r, to);
}

bool request_parse(request *to, bool chat, const char *text, size_t bytes, const request_defaults *defaults,
                   refusal *no) {
    *to = (request){.chat = chat,
                    .n = 1,
                    .temperature = defaults->temperature,
                    .top_p = defaults->top_p,
                    .thinking_budget = REQUEST_UNBOUNDED};
    to->body = request_object(text, bytes, no);
    if (!to->body) return false;
    reader r = {to->body, no, true};
    read_all(&r, to, defaults);
    if (!r.ok) request_free(to);
    return r.ok;
}

void request_free(request *r) {
    free(r->messages);
    free(r->tokens);
    free(r->biases);
    free(r->schema);
    json_decref(r->body);
    *r = (request){0};
}
