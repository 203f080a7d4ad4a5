// A request on its way: what the HTTP side and the loop share.
//
// The HTTP side makes a job, hands it to the loop and then only reads what it says; the loop alone touches the choices.
// Both hold a reference. What passes between them lies under `lock`: the status of the answer, its bytes, and whether
// the client is still there.
#ifndef PITH_SERVER_JOB_H
#define PITH_SERVER_JOB_H

#include <pthread.h>

#include "server/buffer.h"
#include "server/request.h"
#include "server/speech.h"

// One answer of a request. Only the loop's thread touches it.
typedef struct choice {
    pith_sequence *seq; // NULL: not begun, or ended
    speech speech;
    size_t n_seen;        // tokens of the timeline that have been looked at
    uint32_t n_generated; // tokens of the answer, the end-of-generation token included
    uint32_t n_thought;   // of these, inside <think>
    uint32_t n_forced;    // tokens of the forced end of the thought that were given
    bool forcing;
    const char *finish; // "stop" or "length", NULL while it runs
    bool announced;     // a stream has named its role

    buffer reasoning, content; // not sent yet; all of it where the answer does not stream
    json_t *logprobs;          // array of entries not sent yet, or NULL
    size_t n_characters;       // of content so far, sent or not

    pith_grammar *grammar; // what the content keeps to, NULL: nothing
    bool ended;            // an end-of-generation token came behind it

    float *logits;    // (V): a copy from before the step, where log-probabilities are wanted
    uint32_t *counts; // (V): how often each token was generated, where penalties want it
    double last;      // when the last token came

    uint16_t
        *kept; // (n_kept): for how many layers and heads a generated token is still cached; where events are wanted
    uint32_t n_kept, kept_capacity, n_sets;
    uint32_t rows_before, rows_after; // of the last compression, 0: none in this step

    pith_sequence_info info; // when it ended
} choice;

typedef struct job {
    // Set before the job is handed over; read only from then on.
    request request;
    char id[40];
    int64_t created;    // seconds since 1970
    double arrived;     // on the monotonic clock
    const char *model;  // the name the server answers to; borrowed
    pith_token *prompt; // (n_prompt)
    size_t n_prompt;
    pith_grammar *grammar;   // what each answer begins with, or NULL
    bool opens_thought;      // the prompt ends with "<think>"
    int socket;              // of the client, to see whether it is still there; -1: no longer known. Under `lock`.
    void (*wake)(void *ctx); // called under `lock` when `sleeping` and there is news
    void *wake_ctx;

    // The loop's.
    choice choices[REQUEST_CHOICES]; // (request.n)
    const char *policy;              // canonical, the request's or the server's
    uint64_t peak_bytes;             // of one choice
    uint32_t n_begun;                // choices that have a sequence or had one
    uint32_t n_ended;
    bool failed;      // an error has been answered
    double first;     // when the first token came, 0: not yet
    struct job *next; // in a queue

    // Under `lock`.
    pthread_mutex_t lock;
    unsigned references;
    int status;    // of HTTP; 0: not known yet
    buffer out;    // bytes of the answer that have not been taken
    bool finished; // nothing more will be added
    bool gone;     // the client went away: nobody reads
    bool sleeping; // the reader wants to be woken
} job;

// A job for a parsed request, which it owns from now on, with one reference. NULL: no memory (the request is freed).
job *job_new(request *r, const char *model);
void job_hold(job *j);
void job_drop(job *j); // frees it with the last reference

// The loop's side. All but job_write wake a sleeping reader.
void job_accept(job *j);                             // the answer begins: status 200
void job_write(job *j, const char *bytes, size_t n); // to be sent with the next flush
void job_flush(job *j);
void job_finish(job *j);                   // nothing more comes
void job_fail(job *j, const refusal *why); // an error answer, or an error event in a stream that has begun; finishes
bool job_is_gone(job *j);                  // the client hung up, or does not read what it asked for

// The reader's side.
void job_leave(job *j); // nobody reads any more

#endif
