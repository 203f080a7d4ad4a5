#include "server/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/rng.h"
#include "server/answer.h"
#include "server/draw.h"
#include "server/guide.h"
#include "server/piece.h"

enum { MOST_CLOSING = 32 };
// So often clients are looked after, where steps are shorter: what streams have to say is sent, and who has hung up is
// noticed. A picture on a screen lasts as long.
#define CARE_SECONDS 0.016

typedef struct queue {
    job *first, *last;
    uint32_t n;
} queue;

struct loop {
    const pith_model *model;
    pith_engine *engine;
    loop_params params;
    metrics *counts;
    uint32_t n_vocab;
    pthread_t thread;

    // The thread's own.
    queue waiting; // admitted in this order
    queue running;
    double flushed, looked;  // when streams were last sent, clients last looked at
    uint32_t n_choices;      // running, begun or promised a place
    uint64_t promised_bytes; // worst case of these
    uint64_t pool_bytes;
    pith_token think, end_think;      // control tokens whose names are marks, -1: none
    pith_token closing[MOST_CLOSING]; // (n_closing): what ends a thought by force
    size_t n_closing;
    float *logits;       // (V): scratch of draws that change logits
    draw_ranked *ranked; // (V)
    guide guide;

    pthread_mutex_t lock;
    pthread_cond_t arrival, idle;
    queue arrived;     // not seen by the thread yet
    uint32_t n_queued; // arrived and waiting
    uint32_t n_jobs;   // all of them
    bool closed, stopping;
    atomic_bool broken; // what loop_is_broken says
};

static void push(queue *q, job *j) {
    j->next = NULL;
    if (q->last) q->last->next = j;
    else q->first = j;
    q->last = j, q->n++;
}

static job *pop(queue *q) {
    job *j = q->first;
    if (!j) return NULL;
    q->first = j->next, q->n--;
    if (!q->first) q->last = NULL;
    return j;
}

// ------------------------------------------------------------------------------------------------- jobs end

static void count_queue(loop *l, int queued, int jobs) {
    pthread_mutex_lock(&l->lock);
    l->n_queued = (uint32_t)((int)l->n_queued + queued);
    l->n_jobs = (uint32_t)((int)l->n_jobs + jobs);
    if (l->n_jobs == 0) pthread_cond_broadcast(&l->idle);
    pthread_mutex_unlock(&l->lock);
}

// The choice's pages are in the pool when this returns, its place and its promise free for the next job.
static void end_choice(loop *l, job *j, choice *c) {
    if (c->seq) pith_sequence_describe(c->seq, &c->info);
    pith_sequence_free(c->seq);
    c->seq = NULL;
    l->n_choices--, l->promised_bytes -= j->peak_bytes;
    j->n_ended++;
}

static void end_choices(loop *l, job *j) {
    for (uint32_t i = 0; i < j->request.n; i++)
        if (!j->choices[i].finish) end_choice(l, j, &j->choices[i]), j->choices[i].finish = "length";
}

static void fail(loop *l, job *j, const refusal *no) {
    end_choices(l, j);
    job_fail(j, no);
    j->failed = true;
}

static const refusal shutting_down = {
    .status = 503, .type = "server_error", .code = "shutting_down", .message = "the server is shutting down"};

static const refusal stuck = {
    .status = 500,
    .type = "server_error",
    .code = "no_token_fits",
    .message = "response_format: the vocabulary has no token that may come next, or the schema is too ambiguous"};

static const refusal no_memory = {.status = 500, .type = "server_error", .message = "no memory for the answer"};

static refusal refusal_of(const pith_error *err) {
    refusal no = {.status = err->status == PITH_E_MEMORY ? 503 : 500, .type = "server_error"};
    memcpy(no.message, err->msg, sizeof no.message); // the same size, terminated
    return no;
}

// ------------------------------------------------------------------------------------------------- admission

static void begin_speech(job *j, choice *c) {
    const speech_state state = !j->request.chat ? SPEECH_ANSWER : j->opens_thought ? SPEECH_OPENED : SPEECH_START;
    speech_begin(&c->speech, state, j->request.stops, j->request.n_stops);
}

static pith_sequence_params params_of(const loop *l, const job *j, uint32_t index) {
    const request *r = &j->request;
    pith_sequence_params p;
    pith_sequence_params_init(&p);
    p.policy = j->policy, p.max_new = r->max_new ? r->max_new : l->params.max_new;
    p.ignore_end = r->ignore_end || j->grammar; // where an answer with a grammar ends is seen here
    p.sampling = (pith_sampling){.temperature = r->temperature,
                                 .top_k = r->top_k,
                                 .top_p = r->top_p,
                                 .min_p = r->min_p,
                                 .seed = r->seed,
                                 .stream = index};
    return p;
}

static bool changes_logits(const request *r) {
    return r->n_biases > 0 || r->frequency_penalty != 0 || r->presence_penalty != 0;
}

static bool reserve_choice(const loop *l, const job *j, choice *c) {
    const request *r = &j->request;
    if (j->grammar && pith_grammar_clone(j->grammar, &c->grammar, NULL) != PITH_OK) return false;
    if (r->logprobs && !(c->logits = malloc(l->n_vocab * sizeof *c->logits))) return false;
    const bool counts = r->frequency_penalty != 0 || r->presence_penalty != 0;
    return !counts || (c->counts = calloc(l->n_vocab, sizeof *c->counts));
}

// A job's first sequence. The others are forked from it when it has read the prompt.
static bool begin(loop *l, job *j) {
    pith_error err = {.status = PITH_E_MEMORY, .msg = "no memory for a request"};
    bool ok = true;
    for (uint32_t i = 0; i < j->request.n && ok; i++) {
        begin_speech(j, &j->choices[i]);
        j->choices[i].n_seen = j->n_prompt;
        ok = reserve_choice(l, j, &j->choices[i]);
    }
    const pith_sequence_params params = params_of(l, j, 0);
    choice *first = &j->choices[0];
    ok = ok && pith_sequence_new(l->engine, &params, &first->seq, &err) == PITH_OK &&
         pith_sequence_prompt(first->seq, j->prompt, j->n_prompt, &err) == PITH_OK;
    j->n_begun = 1;
    if (ok) return true;
    const refusal no = refusal_of(&err);
    fail(l, j, &no);
    return false;
}

// What a job needs at most; false, and the job failed, when that is more than there will ever be.
static bool weigh(loop *l, job *j) {
    j->policy = j->request.policy[0] ? j->request.policy : l->params.policy;
    const uint32_t max_new = j->request.max_new ? j->request.max_new : l->params.max_new;
    pith_error err;
    refusal no;
    if (pith_peak_bytes(l->engine, j->policy, (uint32_t)j->n_prompt, max_new, &j->peak_bytes, &err) != PITH_OK) {
        no = refusal_of(&err);
    } else if (j->peak_bytes * j->request.n > l->pool_bytes) {
        request_refuse(
            &no, "max_tokens",
            "the answer may need %llu bytes of cache and the server has %llu: ask for fewer tokens or choices, or "
            "for a cache_policy that keeps less",
            (unsigned long long)(j->peak_bytes * j->request.n), (unsigned long long)l->pool_bytes);
    } else {
        return true;
    }
    job_fail(j, &no);
    return false;
}

static void take_arrivals(loop *l) {
    pthread_mutex_lock(&l->lock);
    while (l->n_jobs == 0 && !l->stopping) pthread_cond_wait(&l->arrival, &l->lock);
    queue arrived = l->arrived;
    l->arrived = (queue){0};
    pthread_mutex_unlock(&l->lock);
    for (job *j; (j = pop(&arrived));) {
        if (weigh(l, j)) push(&l->waiting, j);
        else count_queue(l, -1, -1), job_drop(j);
    }
}

static void note_cancelled(loop *l) {
    metrics_hold(l->counts)->cancelled++;
    metrics_release(l->counts);
}

static void drop_gone(loop *l) {
    queue still = {0};
    for (job *j; (j = pop(&l->waiting));) {
        if (!job_is_gone(j)) {
            push(&still, j);
            continue;
        }
        note_cancelled(l);
        job_finish(j);
        count_queue(l, -1, -1);
        job_drop(j);
    }
    l->waiting = still;
}

static void admit(loop *l) {
    for (job *j; (j = l->waiting.first);) {
        const uint32_t n = j->request.n;
        if (l->n_choices + n > l->params.max_sequences || l->promised_bytes + n * j->peak_bytes > l->pool_bytes) return;
        pop(&l->waiting);
        l->n_choices += n, l->promised_bytes += n * j->peak_bytes;
        const bool began = begin(l, j);
        count_queue(l, -1, began ? 0 : -1);
        if (!began) {
            job_drop(j);
            continue;
        }
        push(&l->running, j);
        metrics_hold(l->counts)->prompt_tokens += j->n_prompt;
        metrics_release(l->counts);
        for (uint32_t i = 0; i < n && j->request.stream; i++) answer_event(j, i);
        job_accept(j);
    }
}

// ------------------------------------------------------------------------------------------------- compressions

static choice *choice_of(const loop *l, const pith_sequence *seq, job **owner) {
    for (job *j = l->running.first; j; j = j->next)
        for (uint32_t i = 0; i < j->n_begun; i++)
            if (j->choices[i].seq == seq) return *owner = j, &j->choices[i];
    return NULL;
}

// Called for each layer, or for each of its heads: counts how many still have each generated token.
static void on_compress(void *ctx, const pith_compress_event *event) {
    loop *l = ctx;
    job *j = NULL;
    choice *c = choice_of(l, event->seq, &j);
    if (!c || !j->request.cache_events) return;
    if (event->layer == 0 && event->head <= 0) {
        c->n_kept = 0, c->n_sets = 0, c->rows_before = c->rows_after = 0;
        if (event->step > c->kept_capacity) {
            uint16_t *more = realloc(c->kept, 2 * event->step * sizeof *more);
            if (!more) return;
            c->kept = more, c->kept_capacity = 2 * event->step;
        }
        c->n_kept = event->step;
        memset(c->kept, 0, c->n_kept * sizeof *c->kept);
    }
    c->n_sets++;
    if (event->rows_before > c->rows_before) c->rows_before = event->rows_before;
    if (event->rows_after > c->rows_after) c->rows_after = event->rows_after;
    for (uint32_t i = 0; i < event->rows_after; i++) {
        const size_t pos = (size_t)event->kept[i];
        if (pos >= j->n_prompt && pos - j->n_prompt < c->n_kept) c->kept[pos - j->n_prompt]++;
    }
}

// ------------------------------------------------------------------------------------------------- before a step

// Penalties as OpenAI defines them, over the tokens generated so far; then the bias.
static void change_logits(const loop *l, const request *r, const choice *c, const float *logits) {
    memcpy(l->logits, logits, l->n_vocab * sizeof *logits);
    for (uint32_t i = 0; c->counts && i < l->n_vocab; i++)
        if (c->counts[i] > 0) l->logits[i] -= r->presence_penalty + r->frequency_penalty * (float)c->counts[i];
    for (size_t i = 0; i < r->n_biases; i++) l->logits[r->biases[i].token] += r->biases[i].bias;
}

// Thinking past its budget is closed by the tokens that a model would have closed it with.
static bool force_close(loop *l, const job *j, choice *c) {
    if (!c->forcing && speech_thinks(&c->speech) && c->n_thought >= j->request.thinking_budget) c->forcing = true;
    if (!c->forcing || c->n_forced == l->n_closing) return false;
    if (pith_sequence_force(c->seq, l->closing[c->n_forced], NULL) != PITH_OK) return false; // it does not generate now
    c->n_forced++;
    return true;
}

static void prepare_choice(loop *l, job *j, choice *c) {
    const request *r = &j->request;
    const bool forced = force_close(l, j, c), changes = changes_logits(r) && !forced;
    const bool watches = guide_watches(c) && !forced;
    const float *logits = c->logits || changes || watches ? pith_sequence_logits(c->seq) : NULL;
    if (!logits) return;
    if (c->logits) memcpy(c->logits, logits, l->n_vocab * sizeof *logits);
    if (!changes && !watches) return;
    if (changes) change_logits(l, r, c, logits), logits = l->logits;
    const pith_sequence_params params = params_of(l, j, (uint32_t)(c - j->choices));
    const pith_sampling *how = &params.sampling;
    pith_token token = draw_token(logits, l->n_vocab, how, pith_uniform(how->seed, how->stream, c->n_seen), l->ranked);
    const guide_verdict verdict = watches ? guide_choose(&l->guide, c, logits, how, c->n_seen, &token) : GUIDE_FITS;
    if (verdict == GUIDE_FITS) pith_sequence_force(c->seq, token, NULL);
    else if (verdict == GUIDE_STUCK) fail(l, j, &stuck);
    else c->forcing = true, force_close(l, j, c);
}

static void fork_choices(loop *l, job *j) {
    pith_error err;
    for (; j->n_begun < j->request.n; j->n_begun++) {
        const pith_sequence_params params = params_of(l, j, j->n_begun);
        choice *c = &j->choices[j->n_begun];
        if (pith_sequence_fork(j->choices[0].seq, &params, &c->seq, &err) == PITH_OK) continue;
        const refusal no = refusal_of(&err);
        fail(l, j, &no);
        return;
    }
}

static void prepare(loop *l) {
    bool shows_cache = false;
    for (job *j = l->running.first; j; j = j->next) {
        pith_sequence_info first;
        shows_cache |= j->request.cache_events;
        if (j->n_begun < j->request.n) {
            pith_sequence_describe(j->choices[0].seq, &first);
            if (first.phase == PITH_READY) fork_choices(l, j);
        }
        for (uint32_t i = 0; i < j->n_begun; i++)
            if (j->choices[i].seq) prepare_choice(l, j, &j->choices[i]);
    }
    pith_engine_on_compress(l->engine, shows_cache ? on_compress : NULL, l);
}

// ------------------------------------------------------------------------------------------------- after a step

static void say(void *ctx, speech_part part, const char *text, size_t bytes) {
    choice *c = ctx;
    buffer_add(part == SPEECH_REASONING ? &c->reasoning : &c->content, text, bytes);
    for (size_t i = 0; part == SPEECH_CONTENT && i < bytes; i++) c->n_characters += (text[i] & 0xc0) != 0x80;
}

// The marks of a thought are text for speech.h, also where they are control tokens.
static void read_piece(const loop *l, pith_token token, piece *p) {
    piece_read(p, l->model, token, token == l->think || token == l->end_think);
}

static void add_logprobs(const loop *l, job *j, choice *c, pith_token token) {
    const double total = draw_log_total(c->logits, l->n_vocab);
    draw_ranked tops[REQUEST_TOP_LOGPROBS];
    const uint32_t n = draw_tops(c->logits, l->n_vocab, j->request.top_logprobs, tops);
    answer_logprob said[REQUEST_TOP_LOGPROBS + 1];
    piece pieces[REQUEST_TOP_LOGPROBS + 1];
    for (uint32_t i = 0; i <= n; i++) {
        const pith_token id = i == 0 ? token : (pith_token)tops[i - 1].id;
        read_piece(l, id, &pieces[i]);
        // JSON has no infinity: what cannot happen gets the number that OpenAI gives it.
        const double logprob = (double)c->logits[id] - total;
        said[i] =
            (answer_logprob){pieces[i].bytes ? pieces[i].bytes : "", pieces[i].n, logprob > -9999 ? logprob : -9999};
    }
    answer_add_logprob(j, c, &said[0], said + 1, n);
    for (uint32_t i = 0; i <= n; i++) piece_free(&pieces[i]);
}

// False: the token does not fit the choice's grammar.
static bool hear_token(loop *l, job *j, choice *c, pith_token token) {
    const speech_state before = c->speech.state;
    c->n_generated++;
    if (speech_thinks(&c->speech)) c->n_thought++;
    if (c->counts) c->counts[token]++;
    if (pith_token_ends(l->model, token)) { // no text
        if (speech_thinks(&c->speech)) c->forcing |= c->grammar != NULL;
        else c->ended = c->grammar != NULL;
        return true;
    }
    if (c->logits && !speech_thinks(&c->speech)) add_logprobs(l, j, c, token);
    piece p;
    read_piece(l, token, &p);
    speech_add(&c->speech, p.bytes, p.n, say, c);
    piece_free(&p);
    return !c->grammar || guide_hear(&l->guide, c, before, token);
}

static void note_times(loop *l, job *j, choice *c, double now) {
    metrics *m = metrics_hold(l->counts);
    m->generated_tokens++;
    if (c->last > 0) histogram_add(&m->next_token, now - c->last);
    if (j->first == 0) {
        histogram_add(&m->first_token, now - j->arrived);
        m->shared_tokens += c->info.n_shared;
    }
    metrics_release(m);
    c->last = now;
    if (j->first == 0) j->first = now;
}

// Takes in what the step has done to a choice.
static void hear_choice(loop *l, job *j, choice *c, double now) {
    const uint32_t compressions = c->info.n_compressions;
    pith_sequence_describe(c->seq, &c->info);
    size_t n;
    const pith_token *tokens = pith_sequence_tokens(c->seq, &n);
    if (n > c->n_seen) note_times(l, j, c, now);
    while (c->n_seen < n && c->speech.state != SPEECH_STOPPED)
        if (!hear_token(l, j, c, tokens[c->n_seen++])) {
            fail(l, j, &stuck);
            return;
        }

    const bool complete = c->ended || (c->grammar && pith_grammar_done(c->grammar));
    if (complete || c->speech.state == SPEECH_STOPPED || c->info.phase == PITH_STOPPED) c->finish = "stop";
    else if (c->info.phase == PITH_LENGTH) c->finish = "length";
    if (c->finish) speech_end(&c->speech, say, c);
    if (c->info.n_compressions > compressions) {
        metrics_hold(l->counts)->compressions += c->info.n_compressions - compressions;
        metrics_release(l->counts);
    }
    if (c->finish) end_choice(l, j, c);
    if (j->request.stream) answer_event(j, (uint32_t)(c - j->choices));
}

static void hear(loop *l) {
    const double now = pith_seconds();
    const bool looks = now - l->looked >= CARE_SECONDS;
    if (looks) l->looked = now;
    queue still = {0};
    for (job *j; (j = pop(&l->running));) {
        bool short_of_memory = false;
        for (uint32_t i = 0; i < j->n_begun; i++) {
            choice *c = &j->choices[i];
            if (c->seq) hear_choice(l, j, c, now);
            short_of_memory |= c->content.failed || c->reasoning.failed;
        }
        const bool gone = looks && job_is_gone(j);
        if (gone) note_cancelled(l), end_choices(l, j);
        else if (short_of_memory && !j->failed) fail(l, j, &no_memory);
        if (j->n_ended < j->request.n) {
            push(&still, j);
            continue;
        }
        if (!gone && !j->failed && j->request.stream) answer_stream_end(j);
        if (!gone && !j->failed && !j->request.stream) answer_whole(j);
        job_finish(j);
        count_queue(l, 0, -1);
        job_drop(j);
    }
    l->running = still;
}

// Sending takes CPUs from the next step: where steps are short, what several of them have brought goes out together,
// and all streams' at once. A first token does not wait, and nothing waits for a step that reads a prompt too.
static void flush_streams(loop *l) {
    const double now = pith_seconds();
    bool due = now - l->flushed >= CARE_SECONDS;
    for (job *j = l->running.first; j && !due; j = j->next)
        due = j->first > l->flushed || j->choices[0].info.phase == PITH_PREFILL;
    if (!due) return;
    for (job *j = l->running.first; j; j = j->next) job_flush(j);
    l->flushed = now;
}

// ------------------------------------------------------------------------------------------------- the thread

static void fail_all(loop *l, queue *q, bool queued, const refusal *no) {
    for (job *j; (j = pop(q));) {
        if (queued) job_fail(j, no); // it has no place yet
        else fail(l, j, no);
        count_queue(l, queued ? -1 : 0, -1);
        job_drop(j);
    }
}

static void publish(loop *l) {
    pith_engine_info info;
    pith_engine_describe(l->engine, &info);
    metrics *m = metrics_hold(l->counts);
    m->steps++;
    m->running = l->n_choices, m->waiting = l->waiting.n;
    m->pool_bytes = info.pool_bytes, m->prefix_bytes = info.prefix_bytes,
    m->pool_used_bytes = info.pool_used_bytes - info.prefix_bytes, m->pool_promised_bytes = l->promised_bytes;
    metrics_release(m);
}

static void *run(void *ctx) {
    loop *l = ctx;
    publish(l);
    for (;;) {
        take_arrivals(l);
        pthread_mutex_lock(&l->lock);
        const bool stopping = l->stopping;
        pthread_mutex_unlock(&l->lock);
        if (stopping) break;
        drop_gone(l);
        admit(l);
        prepare(l);
        flush_streams(l);
        pith_error err;
        uint32_t n_active;
        if (l->running.first && pith_engine_step(l->engine, &n_active, &err) != PITH_OK) {
            const refusal no = refusal_of(&err);
            fail_all(l, &l->running, false, &no);
            if (err.status == PITH_E_DEVICE) atomic_store(&l->broken, true);
        }
        hear(l);
        publish(l);
    }
    pthread_mutex_lock(&l->lock);
    queue arrived = l->arrived;
    l->arrived = (queue){0};
    pthread_mutex_unlock(&l->lock);
    fail_all(l, &arrived, true, &shutting_down);
    fail_all(l, &l->waiting, true, &shutting_down);
    fail_all(l, &l->running, false, &shutting_down);
    publish(l);
    return NULL;
}

// ------------------------------------------------------------------------------------------------- outside

// The token that stands for a mark, -1 when the mark has several.
static pith_token token_of(const pith_model *model, const char *mark) {
    pith_token tokens[8];
    size_t n;
    if (pith_tokenize(model, mark, strlen(mark), PITH_TOKENS_SPECIAL, tokens, 8, &n, NULL) != PITH_OK || n != 1)
        return -1;
    return tokens[0];
}

static pith_status prepare_loop(loop *l, pith_error *err) {
    pith_model_info model;
    pith_model_describe(l->model, &model);
    pith_engine_info engine;
    pith_engine_describe(l->engine, &engine);
    l->n_vocab = model.n_vocab, l->pool_bytes = engine.pool_bytes;
    l->think = token_of(l->model, "<think>"), l->end_think = token_of(l->model, "</think>");
    static const char closing[] = "\n</think>\n\n";
    pith_status status = pith_tokenize(l->model, closing, sizeof closing - 1, PITH_TOKENS_SPECIAL, l->closing,
                                       MOST_CLOSING, &l->n_closing, err);
    if (status != PITH_OK) return status;
    l->logits = malloc(l->n_vocab * sizeof *l->logits);
    l->ranked = malloc(l->n_vocab * sizeof *l->ranked);
    l->guide = (guide){l->model, l->n_vocab, l->think, l->logits, l->ranked};
    if (l->logits && l->ranked) return PITH_OK;
    if (err) *err = (pith_error){.status = PITH_E_MEMORY, .msg = "no memory for the server's loop"};
    return PITH_E_MEMORY;
}

static void free_loop(loop *l) {
    pthread_cond_destroy(&l->arrival);
    pthread_cond_destroy(&l->idle);
    pthread_mutex_destroy(&l->lock);
    free(l->logits);
    free(l->ranked);
    free(l);
}

pith_status loop_start(const pith_model *model, pith_engine *engine, const loop_params *params, metrics *counts,
                       loop **out, pith_error *err) {
    *out = NULL;
    loop *l = calloc(1, sizeof *l);
    if (!l) return PITH_E_MEMORY;
    l->model = model, l->engine = engine, l->params = *params, l->counts = counts;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->arrival, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pith_status status = prepare_loop(l, err);
    if (status == PITH_OK && pthread_create(&l->thread, NULL, run, l) != 0) {
        if (err) *err = (pith_error){.status = PITH_E_MEMORY, .msg = "no thread for the server's loop"};
        status = PITH_E_MEMORY;
    }
    if (status == PITH_OK) *out = l;
    else free_loop(l);
    return status;
}

bool loop_submit(loop *l, job *j, refusal *no) {
    pthread_mutex_lock(&l->lock);
    const bool closed = l->closed, full = l->n_queued >= l->params.max_waiting;
    if (!closed && !full) {
        job_hold(j);
        push(&l->arrived, j);
        l->n_queued++, l->n_jobs++;
        pthread_cond_signal(&l->arrival);
    }
    pthread_mutex_unlock(&l->lock);
    if (closed) *no = shutting_down;
    else if (full)
        *no = (refusal){.status = 429,
                        .type = "rate_limit_error",
                        .code = "queue_full",
                        .message = "too many requests are waiting; try again later"};
    return !closed && !full;
}

void loop_close(loop *l) {
    pthread_mutex_lock(&l->lock);
    l->closed = true;
    pthread_mutex_unlock(&l->lock);
}

bool loop_is_broken(loop *l) { return atomic_load(&l->broken); }

bool loop_wait_idle(loop *l, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&l->lock);
    int code = 0;
    while (l->n_jobs > 0 && code != ETIMEDOUT) code = pthread_cond_timedwait(&l->idle, &l->lock, &until);
    const bool idle = l->n_jobs == 0;
    pthread_mutex_unlock(&l->lock);
    return idle;
}

void loop_stop(loop *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->closed = l->stopping = true;
    pthread_cond_signal(&l->arrival);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    free_loop(l);
}
