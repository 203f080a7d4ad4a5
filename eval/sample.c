#include "eval/sample.h"

#include <string.h>

#include "eval/fail.h"

static json_t *pack_points(const eval_sample *s) {
    json_t *all = json_array();
    for (uint32_t i = 0; i < s->n_points; i++)
        json_array_append_new(all,
                              json_pack("[I, I]", (json_int_t)s->points[i].generated, (json_int_t)s->points[i].rows));
    return all;
}

// The problem's fields that no other part of the line tells. NULL: none.
static json_t *other_fields(const eval_problem *p) {
    static const char *const told[] = {"prompt", "answer", "system", "id", "band"};
    json_t *others = json_copy(p->fields);
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) json_object_del(others, told[i]);
    if (json_object_size(others) > 0) return others;
    json_decref(others);
    return NULL;
}

json_t *eval_sample_pack(const eval_task *task, const eval_sample *s, const eval_text *text) {
    const eval_problem *p = &task->problems[s->problem];
    return json_pack("{s:s, s:s, s:s*, s:I, s:s, s:s, s:s, s:I, s:I, s:s, s:s?, s:s, s:b,"
                     " s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:o, s:o*}",
                     "task", task->files->name, "problem", p->id, "band", p->band, "sample", (json_int_t)s->sample,
                     "policy", text->policy, "prompt", text->prompt, "generation", text->generation, "prompt_tokens",
                     (json_int_t)s->prompt_tokens, "completion_tokens", (json_int_t)s->completion_tokens,
                     "finish_reason", s->finished ? "stop" : "length", "answer", text->answer, "expected", p->answer,
                     "correct", s->correct, "rows_peak", (json_int_t)s->rows_peak, "rows_full",
                     (json_int_t)s->rows_full, "bytes_peak", (json_int_t)s->bytes_peak, "bytes_full",
                     (json_int_t)s->bytes_full, "rows_mean", s->rows_mean, "rows_full_mean", s->rows_full_mean,
                     "bytes_mean", s->bytes_mean, "bytes_full_mean", s->bytes_full_mean, "compressions",
                     (json_int_t)s->compressions, "rows_over_time", pack_points(s), "fields", other_fields(p));
}

// --------------------------------------------------------------------------------------------- reading back

// Reads fields until one is not what it must be; its name is remembered.
typedef struct reader {
    const json_t *line;
    const char *wrong; // NULL: all good so far
} reader;

static uint64_t read_count(reader *r, const char *name, uint64_t most) {
    const json_t *value = json_object_get(r->line, name);
    const bool good =
        json_is_integer(value) && json_integer_value(value) >= 0 && (uint64_t)json_integer_value(value) <= most;
    if (!good && !r->wrong) r->wrong = name;
    return good ? (uint64_t)json_integer_value(value) : 0;
}

static double read_number(reader *r, const char *name) {
    const json_t *value = json_object_get(r->line, name);
    const bool good = json_is_number(value) && json_number_value(value) >= 0;
    if (!good && !r->wrong) r->wrong = name;
    return json_number_value(value);
}

static const char *read_string(reader *r, const char *name) {
    const char *value = json_string_value(json_object_get(r->line, name));
    if (!value && !r->wrong) r->wrong = name;
    return value ? value : "";
}

static bool read_flag(reader *r, const char *name) {
    const json_t *value = json_object_get(r->line, name);
    if (!json_is_boolean(value) && !r->wrong) r->wrong = name;
    return json_is_true(value);
}

static void read_points(reader *r, const char *name, eval_sample *s) {
    const json_t *list = json_object_get(r->line, name);
    bool good = json_is_array(list) && json_array_size(list) <= EVAL_POINTS;
    s->n_points = good ? (uint32_t)json_array_size(list) : 0;
    for (uint32_t i = 0; i < s->n_points; i++) {
        const json_t *point = json_array_get(list, i);
        const json_t *generated = json_array_get(point, 0), *rows = json_array_get(point, 1);
        good = good && json_is_integer(generated) && json_is_integer(rows);
        s->points[i] = (eval_point){(uint32_t)json_integer_value(generated), (uint32_t)json_integer_value(rows)};
        good = good && (i == 0 || s->points[i].generated > s->points[i - 1].generated);
    }
    if (!good && !r->wrong) r->wrong = name;
}

pith_status eval_sample_unpack(const eval_task *task, const char *policy, const json_t *line, const char *where,
                               eval_sample *out, pith_error *err) {
    reader r = {.line = line};
    const char *id = read_string(&r, "problem"), *reason = read_string(&r, "finish_reason");
    const char *from = read_string(&r, "policy");
    *out = (eval_sample){
        .sample = (uint32_t)read_count(&r, "sample", UINT32_MAX),
        .prompt_tokens = (uint32_t)read_count(&r, "prompt_tokens", UINT32_MAX),
        .completion_tokens = (uint32_t)read_count(&r, "completion_tokens", UINT32_MAX),
        .finished = !strcmp(reason, "stop"),
        .correct = read_flag(&r, "correct"),
        .compressions = (uint32_t)read_count(&r, "compressions", UINT32_MAX),
        .rows_peak = (uint32_t)read_count(&r, "rows_peak", UINT32_MAX),
        .rows_full = (uint32_t)read_count(&r, "rows_full", UINT32_MAX),
        .bytes_peak = read_count(&r, "bytes_peak", INT64_MAX),
        .bytes_full = read_count(&r, "bytes_full", INT64_MAX),
        .rows_mean = read_number(&r, "rows_mean"),
        .rows_full_mean = read_number(&r, "rows_full_mean"),
        .bytes_mean = read_number(&r, "bytes_mean"),
        .bytes_full_mean = read_number(&r, "bytes_full_mean"),
    };
    read_points(&r, "rows_over_time", out);
    if (r.wrong) return eval_fail(err, PITH_E_FORMAT, "%.200s: expected a sample with \"%s\"", where, r.wrong);
    const int64_t problem = eval_task_find(task, id);
    if (problem < 0)
        return eval_fail(err, PITH_E_FORMAT, "%.200s: expected a problem of %s, found \"%.60s\"", where,
                         task->files->name, id);
    if (strcmp(from, policy) != 0)
        return eval_fail(err, PITH_E_FORMAT, "%.160s: expected policy %.90s, found %.90s", where, policy, from);
    out->problem = (uint32_t)problem;
    return PITH_OK;
}
