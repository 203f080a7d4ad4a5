#include "rpc_cases.h"

#include "t.h"

static FILE *create(const char *dir, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    return f;
}

void rpc_cases_open(rpc_cases *c) {
    *c = (rpc_cases){.dir = "/tmp/pith-rpc-XXXXXX"};
    assert_non_null(mkdtemp(c->dir));
    c->json = create(c->dir, "cases.json"), c->data = create(c->dir, "data.f32"), c->trace = tmpfile();
    assert_non_null(c->trace);
    fprintf(c->json, "{\"cases\":[");
}

void rpc_cases_add(rpc_cases *c, const rpc_case *it) {
    fprintf(c->json, "%s{\"spec\":\"%s\",\"n_layers\":%u,\"n_heads\":%u,\"n_kv_heads\":%u,\"head_dim\":%u,\"turns\":[",
            c->n ? ",\n" : "", it->spec, it->n_layers, it->n_heads, it->n_kv_heads, it->head_dim);
    for (uint32_t t = 0; t < it->n_turns && it->turns[t][0]; t++)
        fprintf(c->json, "%s[%u,%u]", t ? "," : "", it->turns[t][0], it->turns[t][1]);
    fprintf(c->json, "],\"exact\":%s,\"exact_dots\":%s", it->exact ? "true" : "false", it->exact_dots ? "true" : "false");
    fprintf(c->json, ",\"queries\":{\"f32\":\"data.f32\",\"offset\":%zu}", c->offset);
    fprintf(c->json, ",\"keys\":{\"f32\":\"data.f32\",\"offset\":%zu}}", c->offset + it->n_q);
    c->offset += it->n_q + it->n_k;
    c->n++;
}

// Reads on while the lines belong to case `seq`.
static void skip_case(FILE *ours, uint32_t seq) {
    static char line[1 << 14];
    uint32_t found;
    for (long at = ftell(ours);; at = ftell(ours))
        if (!fgets(line, sizeof line, ours) || sscanf(line, "{\"event\":\"compress\",\"seq\":%u", &found) != 1 ||
            found != seq) {
            fseek(ours, at, SEEK_SET);
            return;
        }
}

// Both are lines in the form of a trace, ours complete, the oracle's with "ambiguous" in place of the rest of a case.
// Returns the events that were compared; *n_open counts the cases that were cut short.
static uint32_t compare(FILE *ours, FILE *oracle, uint32_t *n_open) {
    static char a[1 << 14], b[1 << 14];
    uint32_t n = 0, seq;
    *n_open = 0;
    while (fgets(b, sizeof b, oracle)) {
        if (sscanf(b, "{\"event\":\"ambiguous\",\"seq\":%u}", &seq) == 1) {
            skip_case(ours, seq);
            ++*n_open;
            continue;
        }
        assert_non_null(fgets(a, sizeof a, ours));
        assert_string_equal(a, b);
        n++;
    }
    assert_null(fgets(a, sizeof a, ours));
    return n;
}

static void discard(const rpc_cases *c) {
    char path[64];
    const char *names[] = {"cases.json", "data.f32", ""};
    for (size_t i = 0; i < T_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", c->dir, names[i]);
        remove(path);
    }
}

void rpc_cases_check(rpc_cases *c, const char *what, uint32_t most_open) {
    const char *root = getenv("PITH_ROOT"), *python = getenv("PITH_PYTHON"); // set by tests/CMakeLists.txt
    const char *oracle_name = getenv("PITH_RPC_ORACLE");                     // by people: rpc_torch.py
    char command[2048];
    fprintf(c->json, "]}\n");
    assert_int_equal(fclose(c->json) | fclose(c->data), 0);
    snprintf(command, sizeof command, "'%s' '%s/tests/oracle/%s' '%s/cases.json'", python ? python : "python3",
             root ? root : ".", oracle_name ? oracle_name : "rpc_oracle.py", c->dir);
    FILE *oracle = popen(command, "r");
    assert_non_null(oracle);
    rewind(c->trace);
    uint32_t n_open;
    const uint32_t n_events = compare(c->trace, oracle, &n_open);
    assert_int_equal(pclose(oracle), 0);
    fclose(c->trace);
    discard(c);
    print_message("%s: %u cases, %u kept sets equal the oracle's, %u cases cut short as undecidable in f32\n", what,
                  c->n, n_events, n_open);
    assert_true(n_open <= most_open); // else the test says too little
    assert_true(n_events >= c->n);
}
