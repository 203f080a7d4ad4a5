#include "eval/data.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/fail.h"

static bool ends_in_jsonl(const char *name) {
    const size_t n = strlen(name);
    return n > 6 && !strcmp(name + n - 6, ".jsonl");
}

static bool is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static bool add(eval_files *f, const char *folder, const char *name) {
    char **more = realloc(f->paths, (f->n + 1) * sizeof *more);
    if (!more) return false;
    f->paths = more;
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    if (!(more[f->n] = malloc(bytes))) return false;
    snprintf(more[f->n++], bytes, "%s%s%s", folder, *folder ? "/" : "", name);
    return true;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Adds every *.jsonl of a folder, by name. A folder that cannot be read adds nothing.
static pith_status add_folder(eval_files *f, const char *folder, pith_error *err) {
    DIR *d = opendir(folder);
    if (!d) return PITH_OK;
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (ends_in_jsonl(e->d_name) && e->d_name[0] != '.') ok = add(f, folder, e->d_name);
    closedir(d);
    if (!ok) return eval_no_memory(err);
    if (f->n > 0) qsort(f->paths, f->n, sizeof *f->paths, by_name);
    return PITH_OK;
}

// The folder that installing fills: beside the program's own, wherever that was put.
static void installed_folder(char *out, size_t bytes) {
    char program[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    out[0] = '\0';
    if (n <= 0) return;
    program[n] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) *slash = '\0';
    if ((size_t)snprintf(out, bytes, "%s/../share/pith/eval", program) >= bytes) out[0] = '\0';
}

static void default_folder(char *out, size_t bytes) {
    const char *set = getenv("PITH_DATA");
    if (set && is_folder(set)) snprintf(out, bytes, "%s", set);
    else installed_folder(out, bytes);
    if (!is_folder(out)) snprintf(out, bytes, "%s", PITH_EVAL_DATA);
}

static pith_status find_pebble(const char *folder, eval_files *out, pith_error *err) {
    char inner[PATH_MAX + 16];
    snprintf(inner, sizeof inner, "%s/pebble", folder);
    pith_status status = add_folder(out, inner, err);
    if (status == PITH_OK && out->n == 0) status = add_folder(out, folder, err);
    if (status == PITH_OK && out->n == 0)
        return eval_fail(err, PITH_E_IO, "pebble: expected *.jsonl in %.160s/pebble (--data FOLDER names another)",
                         folder);
    return status;
}

static pith_status find_aime(const char *task, const char *folder, eval_files *out, pith_error *err) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%.16s.jsonl", folder, task);
    if (access(path, R_OK) == 0) return add(out, "", path) ? PITH_OK : eval_no_memory(err);
    return eval_fail(err, PITH_E_IO,
                     "%s: its problems are not shipped; pass --data FILE, JSON lines with prompt and answer as in "
                     "eval/data/aime24.jsonl of github.com/jiwonsong-dev/ReasoningPathCompression",
                     task);
}

// A file of one's own.
static pith_status take_file(const char *path, eval_files *out, pith_error *err) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t stem = strlen(name) - (ends_in_jsonl(name) ? 6 : 0);
    snprintf(out->name, sizeof out->name, "%.*s", (int)stem, name);
    for (char *c = out->name; *c; c++)
        if (*c < ' ' || *c > '~') *c = '_'; // a file's name need not be UTF-8, a line of results is
    return add(out, "", path) ? PITH_OK : eval_no_memory(err);
}

static pith_status find(const char *task, const char *data, eval_files *out, pith_error *err) {
    const bool pebble = !strcmp(task, "pebble"), aime = !strcmp(task, "aime24") || !strcmp(task, "aime25");
    if (!pebble && !aime) {
        if (!strchr(task, '/') && !ends_in_jsonl(task))
            return eval_fail(err, PITH_E_ARG, "task: expected pebble, aime24, aime25 or FILE.jsonl, found \"%.100s\"",
                             task);
        if (data) return eval_fail(err, PITH_E_ARG, "--data goes with a task's name, not with a file");
        return take_file(task, out, err);
    }
    snprintf(out->name, sizeof out->name, "%s", task);
    if (data && access(data, F_OK) != 0) return eval_fail(err, PITH_E_IO, "%.200s: %s", data, strerror(errno));
    if (data && !is_folder(data)) return add(out, "", data) ? PITH_OK : eval_no_memory(err);
    char folder[PATH_MAX];
    if (!data) default_folder(folder, sizeof folder);
    else snprintf(folder, sizeof folder, "%s", data);
    return pebble ? find_pebble(folder, out, err) : find_aime(task, folder, out, err);
}

pith_status eval_files_find(const char *task, const char *data, eval_files *out, pith_error *err) {
    *out = (eval_files){.n = 0};
    pith_status status = find(task, data, out, err);
    if (status != PITH_OK) eval_files_free(out);
    return status;
}

void eval_files_free(eval_files *f) {
    for (size_t i = 0; i < f->n; i++) free(f->paths[i]);
    free(f->paths);
    *f = (eval_files){.n = 0};
}
