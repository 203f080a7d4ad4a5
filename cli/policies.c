#include "policies.h"

#include <stdlib.h>
#include <string.h>

#include "args.h"

static int add(policies *p, const char *spec) {
    if (!*spec) return complain(EXIT_USAGE, "--policy: expected SPEC or SPEC;SPEC;..., found an empty one");
    if (p->n == MOST_POLICIES) return complain(EXIT_USAGE, "--policy: expected at most %d", MOST_POLICIES);
    char *canonical = p->canonical[p->n];
    pith_error err;
    if (pith_policy_check(spec, canonical, sizeof p->canonical[0], &err) != PITH_OK)
        return complain(EXIT_USAGE, "--policy: %s", err.msg);
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->canonical[i], canonical)) return complain(EXIT_USAGE, "--policy: %s is given twice", spec);
    p->spec[p->n++] = spec;
    return EXIT_OK;
}

int policies_read(policies *p, const char *text) {
    *p = (policies){.text = strdup(text)};
    if (!p->text) return no_memory();
    int code = EXIT_OK;
    for (char *rest = p->text, *spec; code == EXIT_OK && (spec = strsep(&rest, ";"));) {
        spec += strspn(spec, " ");
        for (size_t n = strlen(spec); n > 0 && spec[n - 1] == ' ';) spec[--n] = '\0';
        code = add(p, spec);
    }
    return code;
}

void policies_free(policies *p) { free(p->text); }
