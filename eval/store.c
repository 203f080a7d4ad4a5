#include "eval/store.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/fail.h"

// -------------------------------------------------------------------------------------------------- settings

// A value as the message shows it.
static void show(const json_t *value, char *out, size_t bytes) {
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
    snprintf(out, bytes, "%s", text ? text : "nothing");
    free(text);
}

static pith_status compare(const char *path, const json_t *settings, pith_error *err) {
    json_error_t at;
    json_t *before = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
    if (!json_is_object(before)) {
        json_decref(before);
        return eval_fail(err, PITH_E_FORMAT, "%.200s: expected the settings of a run (%.100s)", path, at.text);
    }
    pith_status status = PITH_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)settings, key, value) {
        if (json_equal(value, json_object_get(before, key))) continue;
        char was[80], is[80];
        show(json_object_get(before, key), was, sizeof was);
        show(value, is, sizeof is);
        status = eval_fail(err, PITH_E_STATE,
                           "%.150s: its samples were made with %s %s, this run has %s: pass another --out", path, key,
                           was, is);
        break;
    }
    json_decref(before);
    return status;
}

static pith_status write_settings(const char *path, const json_t *settings, pith_error *err) {
    char partial[4200];
    snprintf(partial, sizeof partial, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(partial, "we");
    if (!f) return eval_fail(err, PITH_E_IO, "%.200s: %s", partial, strerror(errno));
    const bool written = json_dumpf(settings, f, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0 && fputc('\n', f) != EOF;
    const bool closed = fclose(f) == 0;
    if (written && closed && rename(partial, path) == 0) return PITH_OK;
    pith_status status = eval_fail(err, PITH_E_IO, "%.200s: cannot write: %s", path, strerror(errno));
    unlink(partial);
    return status;
}

pith_status eval_store_settle(const char *dir, const json_t *settings, pith_error *err) {
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return eval_fail(err, PITH_E_IO, "%.200s: cannot make the folder: %s", dir, strerror(errno));
    char path[4100];
    if ((size_t)snprintf(path, sizeof path, "%s/run.json", dir) >= sizeof path)
        return eval_fail(err, PITH_E_IO, "%.200s: the name is too long", dir);
    if (access(path, F_OK) == 0) return compare(path, settings, err);
    if (errno != ENOENT) return eval_fail(err, PITH_E_IO, "%.200s: %s", path, strerror(errno));
    return write_settings(path, settings, err);
}

// ------------------------------------------------------------------------------------------------ opening

void eval_store_stem(const char *policy, char *out, size_t bytes) {
    const size_t n = strlen(policy);
    uint32_t sum = 0x811c9dc5u; // FNV-1a, for what a file name has no room or no characters for
    bool exact = n + 16 < bytes && n <= 160;
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        const char c = policy[i];
        sum = (sum ^ (unsigned char)c) * 0x01000193u;
        if (to + 16 >= bytes || to == 160) continue;
        // The separators of a spec become others; what is neither has no place in one.
        const bool safe = isalnum((unsigned char)c) || strchr("._=+", c);
        exact = exact && (safe || c == ':' || c == ',');
        out[to++] = safe ? c : '-';
    }
    out[to] = '\0';
    if (!exact) snprintf(out + to, bytes - to, "-%08x", sum);
}

static char *join(const char *dir, const char *stem, const char *ending) {
    const size_t bytes = strlen(dir) + strlen(stem) + strlen(ending) + 2;
    char *path = malloc(bytes);
    if (path) snprintf(path, bytes, "%s/%s%s", dir, stem, ending);
    return path;
}

pith_status eval_store_open(eval_store *s, const char *dir, const char *policy, uint32_t shard, uint32_t n_shards,
                            pith_error *err) {
    char stem[200], ending[64] = ".jsonl";
    eval_store_stem(policy, stem, sizeof stem);
    if (n_shards > 1) snprintf(ending, sizeof ending, ".shard-%u-of-%u.jsonl", shard + 1, n_shards);
    *s = (eval_store){.dir = strdup(dir), .stem = strdup(stem), .path = join(dir, stem, ending), .fd = -1};
    pith_status status = PITH_OK;
    if (!s->dir || !s->stem || !s->path) status = eval_no_memory(err);
    else if ((s->fd = open(s->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0)
        status = eval_fail(err, PITH_E_IO, "%.200s: %s", s->path, strerror(errno));
    else if (flock(s->fd, LOCK_EX | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK ? eval_fail(err, PITH_E_STATE, "%.200s: another run is writing it", s->path)
                                      : eval_fail(err, PITH_E_IO, "%.200s: %s", s->path, strerror(errno));
    if (status != PITH_OK) eval_store_close(s, NULL);
    return status;
}

pith_status eval_store_close(eval_store *s, pith_error *err) {
    pith_status status = PITH_OK;
    if (s->path && s->fd >= 0 && close(s->fd) != 0)
        status = eval_fail(err, PITH_E_IO, "%.200s: cannot write: %s", s->path, strerror(errno));
    free(s->dir);
    free(s->stem);
    free(s->path);
    *s = (eval_store){.fd = -1};
    return status;
}

// ------------------------------------------------------------------------------------------------- reading

// *whole gets the bytes of the whole lines.
static pith_status read_file(const char *path, const eval_task *task, eval_results *results, int64_t *whole,
                             pith_error *err) {
    *whole = 0;
    FILE *f = fopen(path, "rbe");
    if (!f) return eval_fail(err, PITH_E_IO, "%.200s: %s", path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    uint32_t n_lines = 0;
    pith_status status = PITH_OK;
    for (ssize_t n; status == PITH_OK && (n = getline(&line, &capacity, f)) > 0 && line[n - 1] == '\n';) {
        char where[240];
        json_error_t at;
        snprintf(where, sizeof where, "%.200s:%u", path, ++n_lines);
        json_t *object = json_loadb(line, (size_t)n, 0, &at);
        eval_sample sample;
        if (!object) status = eval_fail(err, PITH_E_FORMAT, "%s: expected a sample (%.100s)", where, at.text);
        else status = eval_sample_unpack(task, results->policy, object, where, &sample, err);
        if (status == PITH_OK) status = eval_results_add(results, &sample, err);
        json_decref(object);
        *whole += n;
    }
    if (status == PITH_OK && ferror(f)) status = eval_fail(err, PITH_E_IO, "%.200s: %s", path, strerror(errno));
    free(line);
    fclose(f);
    return status;
}

// Is `name` a file of that stem: the whole run's, or a shard's?
static bool is_of(const char *name, const char *stem) {
    const size_t n = strlen(stem);
    if (strncmp(name, stem, n) != 0) return false;
    unsigned shard, of;
    int end = 0;
    return !strcmp(name + n, ".jsonl") ||
           (sscanf(name + n, ".shard-%u-of-%u.jsonl%n", &shard, &of, &end) == 2 && end > 0 && !name[n + (size_t)end]);
}

pith_status eval_store_read(eval_store *s, const eval_task *task, eval_results *results, pith_error *err) {
    pith_status status = read_file(s->path, task, results, &s->bytes, err);
    struct stat file;
    if (status == PITH_OK && fstat(s->fd, &file) == 0 && file.st_size > s->bytes && ftruncate(s->fd, s->bytes) != 0)
        status = eval_fail(err, PITH_E_IO, "%.200s: cannot remove its last line, which is cut off: %s", s->path,
                           strerror(errno));
    DIR *d = status == PITH_OK ? opendir(s->dir) : NULL;
    for (struct dirent *e; d && status == PITH_OK && (e = readdir(d));) {
        if (!is_of(e->d_name, s->stem)) continue;
        char *path = join(s->dir, e->d_name, "");
        int64_t whole;
        if (!path) status = eval_no_memory(err);
        else if (strcmp(path, s->path) != 0) status = read_file(path, task, results, &whole, err);
        free(path);
    }
    if (d) closedir(d);
    return status;
}

// ------------------------------------------------------------------------------------------------- writing

static bool write_all(int fd, const char *bytes, size_t n) {
    while (n > 0) {
        const ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return false;
        bytes += done, n -= (size_t)done;
    }
    return true;
}

pith_status eval_store_add(eval_store *s, const json_t *line, pith_error *err) {
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text) return eval_no_memory(err);
    const size_t n = strlen(text);
    text[n] = '\n'; // in place of the terminator: one write, one line
    const bool ok = write_all(s->fd, text, n + 1);
    free(text);
    if (ok) {
        s->bytes += (int64_t)n + 1;
        return PITH_OK;
    }
    pith_status status = eval_fail(err, PITH_E_IO, "%.200s: cannot write: %s", s->path, strerror(errno));
    if (ftruncate(s->fd, s->bytes) != 0) return status; // the next run removes what is cut off
    return status;
}
