#include "eval/answer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------------------------------- finding

static const char BOX[] = "\\boxed", THOUGHT_ENDS[] = "</think>";

// Does \boxed stand in front of the brace at text[at], perhaps with spaces between?
static bool opens_box(const char *text, size_t at) {
    while (at > 0 && text[at - 1] == ' ') at--;
    const size_t n = sizeof BOX - 1;
    return at >= n && !memcmp(text + at - n, BOX, n);
}

// One pass with a stack of open braces, so that a generation of nothing but "\boxed{" costs no more than another. The
// balanced box that opens last: [*first, *end) are its contents. open: room for (bytes) offsets.
static bool find_box(const char *text, size_t bytes, size_t *open, size_t *first, size_t *end) {
    size_t depth = 0;
    bool found = false;
    for (size_t i = 0; i < bytes; i++) {
        const bool escaped = i > 0 && text[i - 1] == '\\'; // \{ and \} are written braces, not groups
        if (text[i] == '{' && !escaped) open[depth++] = i;
        if (text[i] != '}' || escaped || depth == 0) continue;
        const size_t brace = open[--depth];
        if (!opens_box(text, brace) || (found && brace < *first)) continue;
        found = true, *first = brace + 1, *end = i;
    }
    return found;
}

static size_t after_thought(const char *text, size_t bytes) {
    const size_t n = sizeof THOUGHT_ENDS - 1;
    for (size_t i = bytes; i >= n; i--)
        if (!memcmp(text + i - n, THOUGHT_ENDS, n)) return i;
    return 0;
}

bool eval_answer_read(const char *text, size_t bytes, bool *found, char **out) {
    *out = NULL, *found = false;
    size_t *open = malloc((bytes + 1) * sizeof *open), first, end;
    if (!open) return false;
    size_t from = after_thought(text, bytes);
    *found = find_box(text + from, bytes - from, open, &first, &end);
    if (!*found && from > 0) {
        from = 0;
        *found = find_box(text, bytes, open, &first, &end);
    }
    free(open);
    if (!*found) return true;
    *out = strndup(text + from + first, end - first);
    return *out != NULL;
}

// ------------------------------------------------------------------------------------------------- comparing

// Is the group that opens at s[at] closed by the last character of s?
static bool closes_last(const char *s, size_t at) {
    size_t depth = 0;
    for (size_t i = at; s[i]; i++) {
        if (s[i] == '{') depth++;
        if (s[i] == '}' && --depth == 0) return s[i + 1] == '\0';
    }
    return false;
}

static void trim(char *s) {
    size_t n = strlen(s), front = 0;
    while (n > 0 && isspace((unsigned char)s[n - 1])) n--;
    while (front < n && isspace((unsigned char)s[front])) front++;
    memmove(s, s + front, n - front);
    s[n - front] = '\0';
}

// Drops dollar signs and makes one space of every run of white space.
static void collapse(char *s) {
    char *to = s;
    for (const char *from = s; *from; from++) {
        if (*from == '$') continue;
        const bool space = isspace((unsigned char)*from);
        if (space && to > s && to[-1] == ' ') continue;
        *to++ = space ? ' ' : *from;
    }
    *to = '\0';
    trim(s);
}

// \text{...} around the whole, and full stops at the end, again and again.
static void unwrap(char *s) {
    static const char text[] = "\\text{";
    const size_t open = sizeof text - 1;
    for (bool changed = true; changed;) {
        changed = false;
        size_t n = strlen(s);
        if (n > 1 && s[n - 1] == '.') s[n - 1] = '\0', changed = true;
        else if (n > open && !memcmp(s, text, open) && closes_last(s, open - 1)) {
            memmove(s, s + open, n - open - 1);
            s[n - open - 1] = '\0', changed = true;
        }
        if (changed) trim(s);
    }
}

// Digits, alone or in threes set apart by commas or by spaces: "1,234" is a number, "1,2" is a list. Rewrites s.
static bool make_integer(char *s) {
    const bool negative = s[0] == '-';
    const char *from = s + (s[0] == '-' || s[0] == '+');
    while (*from == ' ') from++;
    const size_t lead = strspn(from, "0123456789");
    const char separator = from[lead];
    if (lead == 0 || (separator != '\0' && separator != ',' && separator != ' ')) return false;
    if (separator && lead > 3) return false;
    for (const char *group = from + lead; *group; group += 4)
        if (*group != separator || strspn(group + 1, "0123456789") != 3) return false;

    while (*from == '0' || (*from == separator && separator)) from++; // zeros in front
    char *to = s;
    if (negative && *from) *to++ = '-';
    if (!*from) *to++ = '0'; // nothing but zeros: from points to the end
    for (; *from; from++)
        if (*from != separator) *to++ = *from;
    *to = '\0';
    return true;
}

char *eval_answer_normal(const char *text) {
    char *s = strdup(text); // every step shortens it
    if (!s) return NULL;
    collapse(s);
    unwrap(s);
    make_integer(s);
    return s;
}

bool eval_answer_same(const char *a, const char *b) {
    char *x = eval_answer_normal(a), *y = eval_answer_normal(b);
    const bool same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}
