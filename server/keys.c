#include "server/keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

static pith_status add(keys *k, const char *path, size_t line, const char *text, size_t n, pith_error *err) {
    if (n >= KEYS_BYTES)
        return pith_fail(err, PITH_E_FORMAT, "%s: line %zu: expected less than %d bytes", path, line, KEYS_BYTES);
    if (k->n == KEYS_MOST) return pith_fail(err, PITH_E_FORMAT, "%s: expected at most %d keys", path, KEYS_MOST);
    memcpy(k->key[k->n++], text, n);
    return PITH_OK;
}

pith_status keys_read(keys *k, const char *path, pith_error *err) {
    *k = (keys){0};
    FILE *f = fopen(path, "re");
    if (!f) return pith_fail(err, PITH_E_IO, "%s: %s", path, strerror(errno));
    pith_status status = PITH_OK;
    char text[KEYS_BYTES + 2]; // one more than fits, to see a line that is too long
    for (size_t line = 1; status == PITH_OK && fgets(text, sizeof text, f); line++) {
        size_t n = strcspn(text, "\r\n");
        while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) n--;
        if (n > 0 && text[0] != '#') status = add(k, path, line, text, n, err);
    }
    if (status == PITH_OK && ferror(f)) status = pith_fail(err, PITH_E_IO, "%s: cannot read", path);
    fclose(f);
    if (status == PITH_OK && k->n == 0) status = pith_fail(err, PITH_E_FORMAT, "%s: expected at least one key", path);
    return status;
}

bool keys_allow(const keys *k, const char *header) {
    if (k->n == 0) return true;
    static const char bearer[] = "Bearer ";
    if (!header || strncmp(header, bearer, sizeof bearer - 1)) return false;
    char given[KEYS_BYTES] = {0};
    const char *text = header + sizeof bearer - 1;
    const size_t n = strlen(text);
    memcpy(given, text, n < KEYS_BYTES ? n : KEYS_BYTES);
    bool allowed = false;
    for (size_t i = 0; i < k->n; i++) {
        unsigned different = n >= KEYS_BYTES;
        for (size_t at = 0; at < KEYS_BYTES; at++) different |= (unsigned char)(given[at] ^ k->key[i][at]);
        allowed |= different == 0;
    }
    return allowed;
}
