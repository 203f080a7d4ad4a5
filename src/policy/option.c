#include "policy/option.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// Reads decimal digits at *s and moves *s past them; false when there are none. Stops growing at UINT32_MAX + 1, which
// is past every limit.
static bool digits(const char **s, uint64_t *out) {
    const char *p = *s;
    uint64_t n = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (n <= UINT32_MAX) n = n * 10 + (uint64_t)(*p - '0');
    bool any = p != *s;
    *s = p;
    *out = n > UINT32_MAX ? (uint64_t)UINT32_MAX + 1 : n;
    return any;
}

pith_status pith_option_u32(const char *policy, const char *key, const char *value, uint32_t lo, uint32_t hi,
                            uint32_t *out, pith_error *err) {
    const char *s = value;
    uint64_t n;
    if (!digits(&s, &n) || *s || n < lo || n > hi)
        return pith_fail(err, PITH_E_ARG, "policy '%s': %s=%s: expected a whole number from %" PRIu32 " to %" PRIu32,
                         policy, key, value, lo, hi);
    *out = (uint32_t)n;
    return PITH_OK;
}

pith_status pith_option_micro(const char *policy, const char *key, const char *value, uint32_t lo, uint32_t hi,
                              uint64_t *out, pith_error *err) {
    const char *s = value;
    uint64_t whole, part = 0;
    bool good = digits(&s, &whole);
    if (good && *s == '.') {
        const char *point = s++;
        good = digits(&s, &part) && s - point <= 7;
        for (ptrdiff_t n = s - point; n < 7; n++) part *= 10;
    }
    uint64_t micro = whole * PITH_OPTION_MICRO + part;
    if (!good || *s || micro < (uint64_t)lo * PITH_OPTION_MICRO || micro > (uint64_t)hi * PITH_OPTION_MICRO)
        return pith_fail(err, PITH_E_ARG,
                         "policy '%s': %s=%s: expected a number from %" PRIu32 " to %" PRIu32
                         " with at most 6 decimals",
                         policy, key, value, lo, hi);
    *out = micro;
    return PITH_OK;
}

void pith_option_micro_print(uint64_t micro, char out[PITH_OPTION_MICRO_TEXT]) {
    int n = snprintf(out, PITH_OPTION_MICRO_TEXT, "%" PRIu64 ".%06" PRIu64, micro / PITH_OPTION_MICRO,
                     micro % PITH_OPTION_MICRO);
    while (out[n - 1] == '0') out[--n] = 0;
    if (out[n - 1] == '.') out[n - 1] = 0;
}

pith_status pith_option_choice(const char *policy, const char *key, const char *value, const char *const *names,
                               uint32_t *out, pith_error *err) {
    char list[128] = "";
    for (uint32_t i = 0; names[i]; i++) {
        if (!strcmp(value, names[i])) {
            *out = i;
            return PITH_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    return pith_fail(err, PITH_E_ARG, "policy '%s': %s=%s: expected one of: %s", policy, key, value, list);
}

pith_status pith_option_unknown(const char *policy, const char *key, const char *keys, pith_error *err) {
    if (!*keys) return pith_fail(err, PITH_E_ARG, "policy '%s': %s: expected no options, it has none", policy, key);
    return pith_fail(err, PITH_E_ARG, "policy '%s': %s: unknown option, expected one of: %s", policy, key, keys);
}
