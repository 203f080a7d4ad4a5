#include "eval/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eval/fail.h"

enum { SAMPLE_BITS = 20 }; // of a stream: the rest is the problem's number

// A sequence that generates a sample, and what was seen of it so far.
typedef struct seat {
    pith_sequence *seq;
    eval_sample sample;
    double rows, rows_full, bytes, bytes_full; // sums over generated tokens
    uint32_t stride;                           // tokens between points
} seat;

typedef struct state {
    const eval_schedule *plan;
    seat *seats; // (batch), the first n_seats are taken
    uint32_t n_seats;
    pith_sequence *reader;                   // NULL: none
    enum { READING, WAITING, WAKING } stage; // of the reader; WAKING: reads its last tokens again, forks come next
    size_t next, end; // jobs of the problem at hand that have not begun: the last is the reader's
    size_t after;     // the next problem's first job
    bool starved;     // the cache refused a sequence: wait until one ends
    eval_progress *progress;
} state;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static pith_sequence_params params_of(const state *s, const eval_job *job) {
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = s->plan->policy, p.max_new = s->plan->max_new, p.sampling = s->plan->sampling;
    p.sampling.stream = ((uint64_t)job->problem << SAMPLE_BITS) + job->sample;
    return p;
}

// ------------------------------------------------------------------------------------------------ one sample

static void sit_down(state *s, pith_sequence *seq, const eval_job *job) {
    s->seats[s->n_seats++] =
        (seat){.seq = seq, .stride = 1, .sample = {.problem = job->problem, .sample = job->sample}};
}

// Points lie at multiples of the stride; when there is no room for another, every second goes and the stride doubles.
static void add_point(seat *p, uint32_t generated, uint32_t rows) {
    eval_sample *s = &p->sample;
    if (generated % p->stride != 0) return;
    if (s->n_points == EVAL_POINTS) {
        s->n_points = 0;
        for (uint32_t i = 1; i < EVAL_POINTS; i += 2) s->points[s->n_points++] = s->points[i];
        p->stride *= 2;
        if (generated % p->stride != 0) return;
    }
    s->points[s->n_points++] = (eval_point){generated, rows};
}

// Notes what a step did. True: the sample has ended.
static bool look(state *s, seat *p) {
    pith_sequence_info now_is;
    pith_sequence_describe(p->seq, &now_is);
    eval_sample *sample = &p->sample;
    if (now_is.n_generated > sample->completion_tokens) {
        sample->completion_tokens = now_is.n_generated;
        p->rows += now_is.rows, p->rows_full += now_is.rows_full;
        p->bytes += (double)now_is.bytes, p->bytes_full += (double)now_is.bytes_full;
        add_point(p, now_is.n_generated, now_is.rows);
        s->progress->n_tokens++;
    }
    if (now_is.phase != PITH_STOPPED && now_is.phase != PITH_LENGTH) return false;
    sample->prompt_tokens = now_is.n_prompt;
    sample->finished = now_is.phase == PITH_STOPPED;
    sample->compressions = now_is.n_compressions;
    sample->rows_peak = now_is.rows_peak, sample->rows_full = now_is.rows_full;
    sample->bytes_peak = now_is.bytes_peak, sample->bytes_full = now_is.bytes_full;
    const double n = now_is.n_generated;
    sample->rows_mean = p->rows / n, sample->rows_full_mean = p->rows_full / n;
    sample->bytes_mean = p->bytes / n, sample->bytes_full_mean = p->bytes_full / n;
    return true;
}

// The generated text, to be freed by the caller. The end-of-generation token is no text; other control tokens give
// their names, since in some vocabularies </think> is one.
static char *text_of(const state *s, const pith_sequence *seq, uint32_t n_prompt, size_t *bytes) {
    size_t n;
    const pith_token *tokens = pith_sequence_tokens(seq, &n);
    char *text = NULL;
    FILE *f = open_memstream(&text, bytes);
    if (!f) return NULL;
    for (size_t i = n_prompt; i < n; i++) {
        if (pith_token_ends(s->plan->model, tokens[i])) continue;
        char brief[64], *piece = brief;
        size_t length = pith_token_text(s->plan->model, tokens[i], true, brief, sizeof brief);
        if (length > sizeof brief) { // nothing was written: once more with room for it
            if (!(piece = malloc(length))) break;
            length = pith_token_text(s->plan->model, tokens[i], true, piece, length);
        }
        fwrite(piece, 1, length, f);
        if (piece != brief) free(piece);
    }
    const bool failed = ferror(f);
    if (fclose(f) == 0 && !failed) return text;
    free(text);
    return NULL;
}

// Hands over what has ended and frees its seat.
static pith_status stand_up(state *s, uint32_t at, pith_error *err) {
    seat *p = &s->seats[at];
    size_t bytes;
    char *text = text_of(s, p->seq, p->sample.prompt_tokens, &bytes);
    pith_status status = text ? s->plan->done(s->plan->ctx, &p->sample, text, bytes, err) : eval_no_memory(err);
    free(text);
    s->progress->n_done++;
    s->progress->n_done_tokens += p->sample.completion_tokens;
    pith_sequence_free(p->seq);
    *p = s->seats[--s->n_seats];
    s->starved = false;
    return status;
}

// ------------------------------------------------------------------------------------------------ the reader

// A refusal for lack of memory is a reason to wait, as long as there is something to wait for.
static pith_status wait_or_fail(state *s, pith_status status, const char *problem, pith_error *err) {
    if (status == PITH_E_MEMORY && s->n_seats > 0) {
        s->starved = true;
        return PITH_OK;
    }
    char why[sizeof err->msg];
    snprintf(why, sizeof why, "%s", err->msg);
    return eval_fail(err, status, "%.100s: %.250s", problem, why);
}

// Opens the reader of the next problem that has jobs.
static pith_status open_reader(state *s, pith_error *err) {
    const eval_schedule *plan = s->plan;
    if (s->next == s->end) {
        s->next = s->end = s->after;
        while (s->after < plan->n_jobs && plan->jobs[s->after].problem == plan->jobs[s->next].problem) s->after++;
        s->end = s->after;
    }
    if (s->next == s->end) return PITH_OK;
    const eval_job *job = &plan->jobs[s->end - 1];
    const eval_prompt *prompt = &plan->prompts[job->problem];
    pith_sequence_params params = params_of(s, job);
    pith_status status = pith_sequence_new(plan->engine, &params, &s->reader, err);
    if (status == PITH_OK) status = pith_sequence_prompt(s->reader, prompt->tokens, prompt->n, err);
    if (status != PITH_OK) {
        pith_sequence_free(s->reader);
        s->reader = NULL;
        return wait_or_fail(s, status, prompt->name, err);
    }
    s->stage = READING;
    return PITH_OK;
}

static void hold_reader(state *s) {
    pith_sequence_stop(s->reader);
    s->stage = WAITING;
}

// The waiting reader reads its prompt's last tokens again: all others are still in its cache.
static pith_status wake_reader(state *s, pith_error *err) {
    const eval_prompt *prompt = &s->plan->prompts[s->plan->jobs[s->end - 1].problem];
    size_t kept;
    pith_status status = pith_sequence_rewind(s->reader, prompt->tokens, prompt->n, &kept, err);
    if (status == PITH_OK) status = pith_sequence_prompt(s->reader, prompt->tokens + kept, prompt->n - kept, err);
    s->stage = WAKING;
    return status;
}

// The reader has read and the next step would let it generate: forks for the free seats, as long as there is memory.
static pith_status seat_samples(state *s, pith_error *err) {
    const eval_schedule *plan = s->plan;
    while (s->n_seats < plan->batch && s->next + 1 < s->end) {
        pith_sequence_params params = params_of(s, &plan->jobs[s->next]);
        pith_sequence *fork;
        pith_status status = pith_sequence_fork(s->reader, &params, &fork, err);
        if (status == PITH_E_MEMORY) break; // the reader, which has its memory, goes on itself
        if (status != PITH_OK) return status;
        sit_down(s, fork, &plan->jobs[s->next++]);
    }
    if (s->n_seats == plan->batch) return hold_reader(s), PITH_OK;
    sit_down(s, s->reader, &plan->jobs[--s->end]);
    s->reader = NULL;
    return PITH_OK;
}

// Between two steps: what has been read is seated, what can be read is opened or woken.
static pith_status fill_seats(state *s, pith_error *err) {
    pith_status status = PITH_OK;
    if (s->reader && s->stage != WAITING) {
        pith_sequence_info info;
        pith_sequence_describe(s->reader, &info);
        if (info.phase != PITH_READY) return PITH_OK;
        s->progress->prefill_seconds += 1e-3 * info.prefill_ms;
        if (s->stage == WAKING) status = seat_samples(s, err);
        else hold_reader(s);
    }
    if (status != PITH_OK) return status;
    if (!s->reader) return s->starved ? PITH_OK : open_reader(s, err);
    return s->n_seats < s->plan->batch ? wake_reader(s, err) : PITH_OK;
}

// ------------------------------------------------------------------------------------------------- the loop

static pith_status run(state *s, pith_error *err) {
    for (;;) {
        pith_status status = fill_seats(s, err);
        if (status != PITH_OK) return status;
        if (s->n_seats == 0 && !s->reader) return PITH_OK;

        const double start = now();
        uint32_t n_active;
        status = pith_engine_step(s->plan->engine, &n_active, err);
        s->progress->step_seconds += now() - start;
        for (uint32_t i = s->n_seats; status == PITH_OK && i-- > 0;) // from the end: the last takes a freed seat
            if (look(s, &s->seats[i])) status = stand_up(s, i, err);
        if (status != PITH_OK || !s->plan->go_on(s->plan->ctx, s->progress)) return status;
    }
}

pith_status eval_schedule_run(const eval_schedule *plan, eval_progress *progress, pith_error *err) {
    *progress = (eval_progress){0};
    state s = {.plan = plan, .progress = progress, .seats = calloc(plan->batch, sizeof *s.seats)};
    if (!s.seats) return eval_no_memory(err);
    pith_status status = run(&s, err);
    for (uint32_t i = 0; i < s.n_seats; i++) pith_sequence_free(s.seats[i].seq);
    pith_sequence_free(s.reader);
    free(s.seats);
    return status;
}
