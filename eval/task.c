#include "eval/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/fail.h"

static uint64_t fnv(uint64_t sum, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) sum = (sum ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return sum;
}

static bool is_blank(const char *line, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", line[i]) || line[i] == '\0') return false;
    return true;
}

// A string that is not empty, or an integer, as text of its own. NULL: neither (or no memory).
static char *as_text(const json_t *value) {
    if (json_is_string(value)) return json_string_length(value) > 0 ? strdup(json_string_value(value)) : NULL;
    if (!json_is_integer(value)) return NULL;
    char digits[32];
    snprintf(digits, sizeof digits, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return strdup(digits);
}

// Fills the problem from its line. Returns what was expected where that fails, NULL when all is well.
static const char *fill(eval_problem *p, size_t number) {
    const json_t *f = p->fields, *prompt = json_object_get(f, "prompt"), *answer = json_object_get(f, "answer");
    const json_t *system = json_object_get(f, "system"), *id = json_object_get(f, "id");
    const json_t *band = json_object_get(f, "band");
    if (!json_is_string(prompt) || json_string_length(prompt) == 0) return "\"prompt\", a string that is not empty";
    if (!(p->answer = as_text(answer))) return "\"answer\", a string or an integer";
    if (system && !json_is_string(system)) return "\"system\" to be a string";
    if (band && (!json_is_string(band) || json_string_length(band) == 0)) return "\"band\" to be a string";
    if (id && !(p->id = as_text(id))) return "\"id\" to be a string or an integer";
    char index[32];
    snprintf(index, sizeof index, "%zu", number);
    if (!id && !(p->id = strdup(index))) return "more memory";
    p->prompt = json_string_value(prompt);
    p->system = json_string_value(system);
    p->band = json_string_value(band);
    return NULL;
}

static pith_status add_line(eval_task *t, uint32_t file, uint32_t line, const char *text, size_t bytes,
                            pith_error *err) {
    const char *path = t->files->paths[file];
    if (t->n == t->capacity) {
        const size_t capacity = t->capacity ? 2 * t->capacity : 64;
        eval_problem *more = realloc(t->problems, capacity * sizeof *more);
        if (!more) return eval_no_memory(err);
        t->problems = more, t->capacity = capacity;
    }
    json_error_t at;
    json_t *fields = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &at);
    if (!json_is_object(fields)) {
        json_decref(fields);
        return eval_fail(err, PITH_E_FORMAT, "%.160s:%u: expected a JSON object (%.120s)", path, line,
                         fields ? "found another value" : at.text);
    }
    const size_t number = t->n++;
    eval_problem *p = &t->problems[number];
    *p = (eval_problem){.fields = fields, .file = file, .line = line};
    const char *expected = fill(p, number);
    if (expected) return eval_fail(err, PITH_E_FORMAT, "%.160s:%u: expected %s", path, line, expected);
    const int64_t same = eval_task_find(t, p->id);
    if (same >= 0)
        return eval_fail(err, PITH_E_FORMAT, "%.160s:%u: expected an id of its own, \"%.60s\" is that of %.100s:%u",
                         path, line, p->id, t->files->paths[t->problems[same].file], t->problems[same].line);
    if (json_object_set_new(t->by_id, p->id, json_integer((json_int_t)number))) return eval_no_memory(err);
    return PITH_OK;
}

static pith_status add_file(eval_task *t, uint32_t file, pith_error *err) {
    const char *path = t->files->paths[file];
    FILE *f = fopen(path, "rbe");
    if (!f) return eval_fail(err, PITH_E_IO, "%.200s: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    pith_status status = PITH_OK;
    uint32_t n_lines = 0;
    for (ssize_t n; status == PITH_OK && (n = getline(&line, &capacity, f)) >= 0;) {
        n_lines++;
        t->digest = fnv(t->digest, line, (size_t)n);
        if (!is_blank(line, (size_t)n)) status = add_line(t, file, n_lines, line, (size_t)n, err);
    }
    if (status == PITH_OK && ferror(f)) status = eval_fail(err, PITH_E_IO, "%.200s: %s", path, strerror(errno));
    free(line);
    fclose(f);
    return status;
}

pith_status eval_task_load(const eval_files *files, eval_task *out, pith_error *err) {
    *out = (eval_task){.files = files, .by_id = json_object(), .digest = 0xcbf29ce484222325u};
    pith_status status = out->by_id ? PITH_OK : eval_no_memory(err);
    for (uint32_t i = 0; status == PITH_OK && i < files->n; i++) status = add_file(out, i, err);
    if (status == PITH_OK && out->n == 0)
        status = eval_fail(err, PITH_E_FORMAT, "%.200s: expected problems, found none", files->paths[0]);
    if (status != PITH_OK) eval_task_free(out);
    return status;
}

void eval_task_free(eval_task *t) {
    for (size_t i = 0; i < t->n; i++) {
        free(t->problems[i].id);
        free(t->problems[i].answer);
        json_decref(t->problems[i].fields);
    }
    free(t->problems);
    json_decref(t->by_id);
    *t = (eval_task){.n = 0};
}

const char *eval_problem_text(const eval_problem *p, const char *field) {
    return json_string_value(json_object_get(p->fields, field));
}

int64_t eval_task_find(const eval_task *t, const char *id) {
    const json_t *number = json_object_get(t->by_id, id);
    return number ? (int64_t)json_integer_value(number) : -1;
}
