#include "report.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"

static double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

static double rate(uint32_t n, double ms) { return ms > 0 ? 1e3 * n / ms : 0; }

void report_summary(const pith_engine *engine, pith_sequence *const *seqs, const bool *stopped, uint32_t n) {
    pith_engine_info e;
    pith_engine_describe(engine, &e);
    uint32_t generated = 0;
    double slowest_ms = 0;
    for (uint32_t i = 0; i < n; i++) {
        pith_sequence_info s;
        pith_sequence_describe(seqs[i], &s);
        if (n > 1) fprintf(stderr, "sample %u\n", i);
        fprintf(stderr, "tokens  %u prompt, %u generated%s\n", s.n_prompt, s.n_generated,
                stopped[i]               ? " (interrupted)"
                : s.phase == PITH_LENGTH ? " (stopped at the limit)"
                                         : "");
        fprintf(stderr, "cache   rows: peak %u, without compression %u (%.0f %%)\n", s.rows_peak, s.rows_full,
                percent(s.rows_peak, s.rows_full));
        fprintf(stderr, "        bytes: peak %.1f MB, without compression %.1f MB (%.0f %%)\n",
                (double)s.bytes_peak / 1e6, (double)s.bytes_full / 1e6,
                percent((double)s.bytes_peak, (double)s.bytes_full));
        fprintf(stderr, "        %u compression%s, %.1f ms\n", s.n_compressions, s.n_compressions == 1 ? "" : "s",
                s.compress_ms);
        if (i == 0) fprintf(stderr, "prefill %.1f tokens/s\n", rate(s.n_turn_prompt, s.prefill_ms));
        generated += s.n_generated;
        if (s.decode_ms > slowest_ms) slowest_ms = s.decode_ms;
    }
    const double speed = rate(generated, slowest_ms);
    if (e.device_bytes_total > 0) // a GPU
        fprintf(stderr, "speed   %.1f tokens/s (%s, %s)\n", speed, e.device, e.isa);
    else
        fprintf(stderr, "speed   %.1f tokens/s (%u thread%s at most, %s)\n", speed, e.n_threads,
                e.n_threads == 1 ? "" : "s", e.isa);
    if (*e.note) fprintf(stderr, "note    %s\n", e.note);
}

static json_t *sequence_json(const pith_sequence *seq, const text *answer, bool stopped) {
    pith_sequence_info s;
    pith_sequence_describe(seq, &s);
    char *clean = text_clean(answer->text ? answer->text : "", answer->bytes);
    if (!clean) return NULL;
    const char *reason = stopped ? "interrupted" : s.phase == PITH_LENGTH ? "length" : "stop";
    json_t *j =
        json_pack("{s:s, s:s, s:i, s:i, s:{s:i, s:i, s:I, s:I, s:i}, s:{s:f, s:f, s:f, s:f}}", //
                  "text", clean, "finish_reason", reason, "prompt_tokens", (int)s.n_turn_prompt, "completion_tokens",
                  (int)s.n_generated, "kv", "rows_peak", (int)s.rows_peak, "rows_full", (int)s.rows_full, "bytes_peak",
                  (json_int_t)s.bytes_peak, "bytes_full", (json_int_t)s.bytes_full, "compressions",
                  (int)s.n_compressions, "timing", "prefill_ms", s.prefill_ms, "decode_ms", s.decode_ms, "compress_ms",
                  s.compress_ms, "tokens_per_second", rate(s.n_generated, s.decode_ms));
    free(clean);
    return j;
}

int report_json(const pith_model *model, const pith_engine *engine, const char *policy, pith_sequence *const *seqs,
                const bool *stopped, uint32_t n, const text *answers, bool many) {
    pith_model_info info;
    pith_engine_info e;
    pith_model_describe(model, &info);
    pith_engine_describe(engine, &e);
    char *name = text_clean(info.name, strlen(info.name));
    json_t *all = json_pack("{s:s, s:s}", "model", name ? name : "", "policy", policy);
    free(name);
    if (*e.note) json_object_set_new(all, "note", json_string(e.note));
    if (!many) {
        json_t *one = sequence_json(seqs[0], &answers[0], stopped[0]);
        json_object_update(all, one);
        json_decref(one);
    } else {
        json_t *samples = json_array();
        for (uint32_t i = 0; i < n; i++)
            json_array_append_new(samples, sequence_json(seqs[i], &answers[i], stopped[i]));
        json_object_set_new(all, "samples", samples);
    }
    const int bad = !all || json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) || putchar('\n') == EOF ||
                    fflush(stdout);
    json_decref(all);
    return bad ? complain(EXIT_FAILED, "standard output: %s", strerror(errno)) : EXIT_OK;
}

void report_trace(FILE *out, uint32_t seq, const pith_compress_event *event) {
    json_t *kept = json_array();
    for (uint32_t i = 0; i < event->rows_after; i++) json_array_append_new(kept, json_integer(event->kept[i]));
    json_t *head = event->head < 0 ? json_null() : json_integer(event->head);
    json_t *line = json_pack("{s:s, s:i, s:i, s:i, s:o, s:i, s:i, s:o}", "event", "compress", "seq", (int)seq, "step",
                             (int)event->step, "layer", (int)event->layer, "head", head, "rows_before",
                             (int)event->rows_before, "rows_after", (int)event->rows_after, "kept", kept);
    if (line) json_dumpf(line, out, JSON_COMPACT); // a failed write is told when the file is closed
    fputc('\n', out);
    json_decref(line);
}
