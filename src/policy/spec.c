// The grammar of a policy spec:
//
//     spec    = name [ ":" option *( "," option ) ]
//     option  = key "=" value
//
// in printable ASCII without spaces. Values are the policy's business (policy/option.h); what holds for every policy
// is checked here: known name, well-formed options, no key twice.
#include <stdio.h>
#include <string.h>

#include "policy/policy.h"

enum {
    NAME_MAX = 16,  // bytes of a policy's name and the colon
    KEY_MAX = 16,   // bytes with terminator; no policy has keys near this
    VALUE_MAX = 64, // likewise
    SHOWN = 60,     // bytes of a long input that a message repeats
};

typedef struct slice {
    const char *at;
    size_t n;
} slice;

static slice until(const char *s, const char *stops) { return (slice){s, strcspn(s, stops)}; }
static bool same(slice a, slice b) { return a.n == b.n && !memcmp(a.at, b.at, a.n); }
static int shown(slice s) { return s.n < SHOWN ? (int)s.n : SHOWN; } // the precision for "%.*s"

static const pith_policy *find(slice name) {
    for (size_t i = 0; pith_policies[i]; i++)
        if (same(name, (slice){pith_policies[i]->name, strlen(pith_policies[i]->name)})) return pith_policies[i];
    return NULL;
}

static pith_status fail_unknown(slice name, pith_error *err) {
    char known[160] = "";
    for (size_t i = 0, used = 0; pith_policies[i] && used < sizeof known; i++, used = strlen(known))
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", pith_policies[i]->name);
    return pith_fail(err, PITH_E_ARG, "policy '%.*s': unknown policy, expected one of: %s", shown(name), name.at,
                     known);
}

// Is the option that starts at `option` preceded by one of the same key? `first` is the first option of the spec.
static bool repeated(const char *first, const char *option, slice key) {
    for (const char *s = first; s < option;) {
        if (same(until(s, "="), key)) return true;
        s += until(s, ",").n + 1;
    }
    return false;
}

static pith_status parse_option(const char *text, const char *first, slice option, pith_spec *spec, pith_error *err) {
    const char *policy = spec->policy->name;
    const uint64_t at = (uint64_t)(option.at - text);
    slice key = until(option.at, "=,");
    if (key.n == 0 || key.n == option.n)
        return pith_fail_at(err, PITH_E_ARG, at, "policy '%s': option '%.*s': expected key=value", policy,
                            shown(option), option.at);
    slice value = {key.at + key.n + 1, option.n - key.n - 1};
    char key_text[KEY_MAX], value_text[VALUE_MAX];
    if (key.n >= sizeof key_text || value.n >= sizeof value_text)
        return pith_fail_at(err, PITH_E_ARG, at,
                            "policy '%s': option '%.*s...': expected at most %d bytes before and %d after the '='",
                            policy, shown(option), option.at, KEY_MAX - 1, VALUE_MAX - 1);
    if (repeated(first, option.at, key))
        return pith_fail_at(err, PITH_E_ARG, at, "policy '%s': %.*s: '%.*s' is given twice, expected once", policy,
                            shown(option), option.at, (int)key.n, key.at);
    memcpy(key_text, key.at, key.n);
    key_text[key.n] = 0;
    memcpy(value_text, value.at, value.n);
    value_text[value.n] = 0;
    pith_status status = spec->policy->set(&spec->params, key_text, value_text, err);
    if (status && err) err->offset = at;
    return status;
}

static pith_status check_bytes(const char *text, pith_error *err) {
    for (const char *s = text; *s; s++)
        if (*s <= ' ' || *s > '~')
            return pith_fail_at(err, PITH_E_ARG, (uint64_t)(s - text),
                                "policy spec: byte 0x%02x at offset %zu: expected printable ASCII without spaces",
                                (unsigned)(unsigned char)*s, (size_t)(s - text));
    return PITH_OK;
}

pith_status pith_spec_parse(const char *text, pith_spec *out, pith_error *err) {
    if (!text) text = "full";
    pith_status status = check_bytes(text, err);
    if (status) return status;

    slice name = until(text, ":");
    pith_spec spec = {.policy = find(name)};
    if (!spec.policy) return fail_unknown(name, err);
    spec.policy->defaults(&spec.params);

    if (text[name.n] == ':') {
        const char *first = text + name.n + 1;
        for (const char *s = first;; s++) {
            slice option = until(s, ",");
            if ((status = parse_option(text, first, option, &spec, err))) return status;
            s += option.n;
            if (!*s) break;
        }
    }
    if ((status = spec.policy->check(&spec.params, err))) return status;

    char options[PITH_SPEC_MAX - NAME_MAX];
    spec.policy->print(&spec.params, options, sizeof options);
    snprintf(spec.text, sizeof spec.text, "%s%s%s", spec.policy->name, *options ? ":" : "", options);
    *out = spec;
    return PITH_OK;
}
