// What the bytes of an answer mean: whole characters, thinking or content, and where a stop string ends it.
//
//   start:  white space, then "<think>" opens a thought; anything else is content
//   thought "</think>" closes it; newlines beside the two marks belong to neither part
//   content ends in front of the first stop string
//
// Tokens cut text anywhere, also inside a character. What might still become part of a character, a mark or a stop
// string is held back until that is decided, so parts can be sent on as they come. Bytes that are no UTF-8 become
// U+FFFD.
#ifndef PITH_SERVER_SPEECH_H
#define PITH_SERVER_SPEECH_H

#include <stdbool.h>
#include <stddef.h>

enum { SPEECH_STOPS = 16, SPEECH_STOP_BYTES = 256 };

typedef enum speech_part { SPEECH_REASONING, SPEECH_CONTENT } speech_part;

// Gets whole characters, in order.
typedef void (*speech_fn)(void *ctx, speech_part part, const char *text, size_t bytes);

typedef enum speech_state {
    SPEECH_START,    // a thought may begin
    SPEECH_OPENED,   // behind "<think>"
    SPEECH_THINKING, // inside
    SPEECH_CLOSED,   // behind "</think>"
    SPEECH_ANSWER,
    SPEECH_STOPPED, // a stop string came; what follows is dropped
} speech_state;

typedef struct speech {
    speech_state state;
    const char *const *stops; // (n_stops), terminated, 1 to SPEECH_STOP_BYTES bytes of UTF-8 each; borrowed
    size_t n_stops;
    char character[4]; // its first bytes
    size_t n_character;
    char held[SPEECH_STOP_BYTES + 4]; // may become a mark or a stop string
    size_t n_held;
} speech;

// `state` is SPEECH_START, SPEECH_OPENED (the prompt ends with "<think>"), or SPEECH_ANSWER (no thoughts are told
// apart).
void speech_begin(speech *s, speech_state state, const char *const *stops, size_t n_stops);
void speech_add(speech *s, const char *bytes, size_t n, speech_fn out, void *ctx);
void speech_end(speech *s, speech_fn out, void *ctx); // releases what is held back

static inline bool speech_thinks(const speech *s) { return s->state == SPEECH_OPENED || s->state == SPEECH_THINKING; }

#endif
