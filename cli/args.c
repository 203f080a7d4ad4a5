#include "args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int complain(int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("pith: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

int failed(const pith_error *err) {
    return complain(err->status == PITH_E_ARG ? EXIT_USAGE : EXIT_FAILED, "%s", err->msg);
}

int no_memory(void) { return complain(EXIT_FAILED, "out of memory"); }

static bool parse_whole(const char *text, uint64_t *out, const char **rest) {
    if (*text < '0' || *text > '9') return false; // strtoull takes signs and spaces
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    *rest = end;
    return errno == 0;
}

static int parse_count(const arg *a, const char *text) {
    uint64_t n;
    const char *rest;
    if (!parse_whole(text, &n, &rest) || *rest || (double)n < a->min || (double)n > a->max)
        return complain(EXIT_USAGE, "%s: expected a whole number from %.0f to %.0f, found \"%s\"", a->name, a->min,
                        a->max, text);
    *(uint32_t *)a->to = (uint32_t)n;
    return EXIT_OK;
}

static int parse_seed(const arg *a, const char *text) {
    const char *rest;
    if (!parse_whole(text, a->to, &rest) || *rest)
        return complain(EXIT_USAGE, "%s: expected a whole number, found \"%s\"", a->name, text);
    return EXIT_OK;
}

static int parse_bytes(const arg *a, const char *text) {
    uint64_t n;
    const char *rest;
    if (parse_whole(text, &n, &rest)) {
        const char *units = "KMG", *unit = *rest ? strchr(units, *rest) : NULL;
        unsigned shift = unit ? 10u * (unsigned)(unit - units + 1) : 0;
        if (unit) rest++;
        if (!*rest && n > 0 && n <= UINT64_MAX >> shift) {
            *(uint64_t *)a->to = n << shift;
            return EXIT_OK;
        }
    }
    return complain(EXIT_USAGE, "%s: expected bytes such as 512M or 2G, found \"%s\"", a->name, text);
}

static int parse_real(const arg *a, const char *text) {
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= a->min && x <= a->max))
        return complain(EXIT_USAGE, "%s: expected a number from %g to %g, found \"%s\"", a->name, a->min, a->max, text);
    *(float *)a->to = (float)x;
    return EXIT_OK;
}

static int parse_value(const arg *a, const char *text) {
    switch (a->kind) {
    case ARG_TEXT: *(const char **)a->to = text; return EXIT_OK;
    case ARG_COUNT: return parse_count(a, text);
    case ARG_SEED: return parse_seed(a, text);
    case ARG_BYTES: return parse_bytes(a, text);
    case ARG_REAL: return parse_real(a, text);
    case ARG_FLAG:
    case ARG_GROUP: break;
    }
    return EXIT_USAGE;
}

// "--name=value" names the option in front of the sign.
static bool is_named(const arg *a, const char *word, size_t length) {
    if (a->kind == ARG_GROUP) return false;
    return (strlen(a->name) == length && strncmp(word, a->name, length) == 0) ||
           (a->brief && strcmp(word, a->brief) == 0);
}

int args_parse(arg *args, size_t n, int first, int argc, char **argv) {
    for (int i = first; i < argc; i++) {
        const char *word = argv[i];
        const char *sign = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
        const size_t length = sign ? (size_t)(sign - word) : strlen(word);
        arg *a = NULL;
        for (size_t j = 0; j < n && !a; j++)
            if (is_named(&args[j], word, length)) a = &args[j];
        if (!a) return complain(EXIT_USAGE, "%s: unknown option (pith help lists them)", word);
        if (a->given) return complain(EXIT_USAGE, "%s: given twice", a->name);
        a->given = true;
        if (a->kind == ARG_FLAG) {
            if (sign) return complain(EXIT_USAGE, "%s: takes no value", a->name);
            *(bool *)a->to = true;
            continue;
        }
        const char *text = sign ? sign + 1 : i + 1 < argc ? argv[++i] : NULL;
        if (!text) return complain(EXIT_USAGE, "%s: expected %s behind it", a->name, a->value);
        int code = parse_value(a, text);
        if (code != EXIT_OK) return code;
    }
    return EXIT_OK;
}

void args_help(const arg *args, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const arg *a = &args[i];
        if (a->kind == ARG_GROUP) {
            printf("\n%s\n", a->help);
            continue;
        }
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s%s", a->brief ? a->brief : "", a->brief ? ", " : "", a->name,
                 a->value ? " " : "", a->value ? a->value : "");
        printf("  %-26s %s\n", left, a->help);
    }
}

int args_kv_type(const char *text, pith_kv_type *out) {
    static const struct {
        const char *name;
        pith_kv_type type;
    } known[] = {{"auto", PITH_KV_AUTO}, {"f16", PITH_KV_F16}, {"f32", PITH_KV_F32}, {"bf16", PITH_KV_BF16}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(text, known[i].name)) return *out = known[i].type, EXIT_OK;
    return complain(EXIT_USAGE, "--kv: expected auto, f16, f32 or bf16, found \"%s\"", text);
}
