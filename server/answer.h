// Answers in OpenAI's shapes, written into buffers and jobs.
#ifndef PITH_SERVER_ANSWER_H
#define PITH_SERVER_ANSWER_H

#include "server/job.h"

// {"error": {...}}
void answer_error(buffer *out, const refusal *why);

// Writes what `choice` index has gathered since the last time as one event of a stream; nothing when that is nothing.
// The first event of a chat names the role, the last one the reason for the end.
void answer_event(job *j, uint32_t index);

// The end of a stream: usage, where it was asked for, and the mark.
void answer_stream_end(job *j);

// The whole answer of a request that does not stream.
void answer_whole(job *j);

// One token's entry of log-probabilities, in the shape of the request's kind, is added to the choice. `tops` are the
// `n_tops` likeliest tokens, best first. Texts: any bytes.
typedef struct answer_logprob {
    const char *text;
    size_t bytes;
    double logprob;
} answer_logprob;
bool answer_add_logprob(job *j, choice *c, const answer_logprob *chosen, const answer_logprob *tops, size_t n_tops);

// Adds JSON text to a buffer, and drops `value`. False: no memory, or past the buffer's bound.
bool answer_json(buffer *out, json_t *value);

#endif
