#include "server/speech.h"

#include <string.h>

#include "base/utf8.h"

static const char OPEN[] = "<think>", CLOSE[] = "</think>", REPLACEMENT[] = "\xef\xbf\xbd";
enum { MOST_SPACE = 16 }; // white space held in front of a mark that may come

// Released text of one part, handed on in pieces that are as long as may be.
typedef struct flow {
    speech_fn out;
    void *ctx;
    speech_part part;
    char text[512];
    size_t n;
} flow;

static void flush(flow *f) {
    if (f->n > 0) f->out(f->ctx, f->part, f->text, f->n);
    f->n = 0;
}

static void release(flow *f, speech_part part, const char *text, size_t n) {
    if (part != f->part || f->n + n > sizeof f->text) flush(f);
    f->part = part;
    memcpy(f->text + f->n, text, n);
    f->n += n;
}

static size_t character_bytes(const char *s) {
    const unsigned char lead = (unsigned char)*s;
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static void release_first(speech *s, flow *f, speech_part part) {
    const size_t n = character_bytes(s->held);
    release(f, part, s->held, n);
    memmove(s->held, s->held + n, s->n_held -= n);
}

static bool ends_with(const speech *s, const char *text) {
    const size_t n = strlen(text);
    return s->n_held >= n && !memcmp(s->held + s->n_held - n, text, n);
}

// Is what is held some of `spaces` (at most MOST_SPACE) and then the beginning of `mark`?
static bool may_become(const speech *s, const char *spaces, const char *mark) {
    size_t n = 0;
    while (n < s->n_held && strchr(spaces, s->held[n])) n++;
    return n <= MOST_SPACE && s->n_held - n <= strlen(mark) && !memcmp(s->held + n, mark, s->n_held - n);
}

static bool may_stop(const speech *s) {
    for (size_t i = 0; i < s->n_stops; i++)
        if (s->n_held <= strlen(s->stops[i]) && !memcmp(s->held, s->stops[i], s->n_held)) return true;
    return false;
}

// Decides about what is held, of which the last character is new.
static void decide(speech *s, flow *f) {
    if (s->state == SPEECH_OPENED || s->state == SPEECH_CLOSED) {
        if (s->held[0] == '\n') {
            s->n_held = 0;
            return;
        }
        s->state = s->state == SPEECH_OPENED ? SPEECH_THINKING : SPEECH_ANSWER;
    }
    if (s->state == SPEECH_THINKING) {
        if (ends_with(s, CLOSE)) s->state = SPEECH_CLOSED, s->n_held = 0;
        while (s->n_held > 0 && !may_become(s, "\n", CLOSE)) release_first(s, f, SPEECH_REASONING);
    }
    if (s->state == SPEECH_ANSWER) {
        for (size_t i = 0; i < s->n_stops; i++) {
            if (!ends_with(s, s->stops[i])) continue;
            release(f, SPEECH_CONTENT, s->held, s->n_held - strlen(s->stops[i]));
            s->state = SPEECH_STOPPED, s->n_held = 0;
            return;
        }
        while (s->n_held > 0 && !may_stop(s)) release_first(s, f, SPEECH_CONTENT);
    }
}

static void add_character(speech *s, const char *text, size_t n, flow *f) {
    if (s->state == SPEECH_STOPPED) return;
    memcpy(s->held + s->n_held, text, n);
    s->n_held += n;
    if (s->state != SPEECH_START) {
        decide(s, f);
    } else if (ends_with(s, OPEN)) {
        s->state = SPEECH_OPENED, s->n_held = 0;
    } else if (!may_become(s, " \n\r\t",
                           OPEN)) { // content, to be looked at from its first character: it may hold a stop
        char first[sizeof s->held];
        const size_t n_first = s->n_held;
        memcpy(first, s->held, n_first);
        s->state = SPEECH_ANSWER, s->n_held = 0;
        for (size_t i = 0; i < n_first; i += character_bytes(first + i))
            add_character(s, first + i, character_bytes(first + i), f);
    }
}

// Can the n bytes begin a character that is not complete yet?
static bool may_grow(const char *bytes, size_t n) {
    const unsigned char lead = (unsigned char)bytes[0];
    const size_t length = lead >= 0xc2 && lead <= 0xf4 ? character_bytes(bytes) : 1;
    if (n >= length) return false;
    char whole[4] = {bytes[0], (char)(lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80), (char)0x80, (char)0x80};
    memcpy(whole, bytes, n);
    return pith_utf8_valid(whole, length) == length;
}

static void add_byte(speech *s, char byte, flow *f) {
    s->character[s->n_character++] = byte;
    if (pith_utf8_valid(s->character, s->n_character) == s->n_character) {
        const size_t n = s->n_character;
        s->n_character = 0;
        add_character(s, s->character, n, f);
        return;
    }
    if (may_grow(s->character, s->n_character)) return;
    const bool alone = s->n_character == 1;
    s->n_character = 0;
    add_character(s, REPLACEMENT, sizeof REPLACEMENT - 1, f);
    if (!alone) add_byte(s, byte, f); // what broke the character off may begin the next one
}

void speech_begin(speech *s, speech_state state, const char *const *stops, size_t n_stops) {
    *s = (speech){.state = state, .stops = stops, .n_stops = n_stops};
}

void speech_add(speech *s, const char *bytes, size_t n, speech_fn out, void *ctx) {
    flow f = {.out = out, .ctx = ctx};
    for (size_t i = 0; i < n; i++) add_byte(s, bytes[i], &f);
    flush(&f);
}

void speech_end(speech *s, speech_fn out, void *ctx) {
    flow f = {.out = out, .ctx = ctx};
    if (s->n_character > 0) {
        s->n_character = 0;
        add_character(s, REPLACEMENT, sizeof REPLACEMENT - 1, &f);
    }
    if (s->state != SPEECH_STOPPED)
        release(&f, speech_thinks(s) ? SPEECH_REASONING : SPEECH_CONTENT, s->held, s->n_held);
    s->n_held = 0;
    flush(&f);
}
