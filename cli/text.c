#include "text.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"

bool text_add(text *t, const char *bytes, size_t n) {
    if (t->bytes + n + 1 > t->capacity) {
        size_t capacity = 2 * (t->bytes + n + 1);
        char *more = realloc(t->text, capacity);
        if (!more) return false;
        t->text = more, t->capacity = capacity;
    }
    if (n > 0) memcpy(t->text + t->bytes, bytes, n);
    t->bytes += n;
    t->text[t->bytes] = '\0';
    return true;
}

void text_free(text *t) {
    free(t->text);
    *t = (text){0};
}

int text_read(text *t, const char *path, size_t most) {
    const bool standard = !path || !strcmp(path, "-");
    FILE *f = standard ? stdin : fopen(path, "rbe");
    if (!f) return complain(EXIT_FAILED, "%s: %s", path, strerror(errno));
    char block[4096];
    int code = text_add(t, "", 0) ? EXIT_OK : complain(EXIT_FAILED, "out of memory");
    for (size_t n; code == EXIT_OK && (n = fread(block, 1, sizeof block, f)) > 0;) {
        if (t->bytes + n > most)
            code = complain(EXIT_FAILED, "%s: expected at most %zu bytes of prompt", standard ? "standard input" : path,
                            most);
        else if (!text_add(t, block, n)) code = complain(EXIT_FAILED, "out of memory");
    }
    if (code == EXIT_OK && ferror(f))
        code = complain(EXIT_FAILED, "%s: %s", standard ? "standard input" : path, strerror(errno));
    if (!standard) fclose(f);
    return code;
}

// Length of the well-formed UTF-8 character at s, 0 when there is none (RFC 3629: no overlong forms, no surrogates).
static size_t character(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return s[0] != 0; // JSON strings of C cannot hold a zero
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

bool text_is_utf8(const char *bytes, size_t n, size_t *at) {
    for (*at = 0; *at < n;) {
        size_t length = character((const unsigned char *)bytes + *at, n - *at);
        if (!length) return false;
        *at += length;
    }
    return true;
}

char *text_clean(const char *bytes, size_t n) {
    text out = {0};
    bool ok = text_add(&out, "", 0);
    for (size_t i = 0; ok && i < n;) {
        size_t length = character((const unsigned char *)bytes + i, n - i);
        ok = length ? text_add(&out, bytes + i, length) : text_add(&out, "\xef\xbf\xbd", 3);
        i += length ? length : 1;
    }
    if (ok) return out.text;
    text_free(&out);
    return NULL;
}

// ------------------------------------------------------------------------------------------------- display

static const char DIM[] = "\033[2m", PLAIN[] = "\033[0m", OPEN[] = "<think>", CLOSE[] = "</think>";

void display_begin(display *d, bool thinking) {
    *d = (display){.dims = isatty(STDOUT_FILENO), .thinking = thinking};
    if (d->dims && thinking) fputs(DIM, stdout);
}

bool display_piece(display *d, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (d->n_tail == sizeof d->tail - 1) memmove(d->tail, d->tail + 1, --d->n_tail);
        d->tail[d->n_tail++] = bytes[i];
        d->tail[d->n_tail] = '\0';
        const char *mark = d->thinking ? CLOSE : OPEN;
        const size_t length = strlen(mark);
        const bool turns = d->n_tail >= length && !strcmp(d->tail + d->n_tail - length, mark);
        if (turns && !d->thinking && d->dims) fputs(DIM, stdout);
        fputc(bytes[i], stdout);
        if (turns && d->thinking && d->dims) fputs(PLAIN, stdout);
        if (turns) d->thinking = !d->thinking, d->n_tail = 0;
    }
    return fflush(stdout) == 0;
}

void display_end(display *d) {
    if (d->dims && d->thinking) fputs(PLAIN, stdout);
    fputc('\n', stdout);
    fflush(stdout);
}
