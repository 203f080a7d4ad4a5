// The peer: llama.cpp's own benchmark programs, built from the tree that Pith is built on.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char **environ;

// The last line of `in` that is a JSON object; NULL when there is none.
static json_t *last_object(FILE *in) {
    json_t *last = NULL;
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, in) >= 0) {
        if (line[0] != '{') continue;
        json_t *object = json_loads(line, 0, NULL);
        if (!object) continue;
        json_decref(last);
        last = object;
    }
    free(line);
    return last;
}

// Runs a program to its end. Its last JSON object, owned by the caller; NULL after a line on stderr.
static json_t *run(char *const argv[]) {
    int ends[2], status = 0, code;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        fprintf(stderr, "bench: %s: %s\n", argv[0], strerror(errno));
        return NULL;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    code = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    if (code != 0 || !in) {
        fprintf(stderr, "bench: %s: %s\n", argv[0], strerror(code ? code : errno));
        if (in) fclose(in);
        else close(ends[0]);
        return NULL;
    }
    json_t *object = last_object(in);
    fclose(in);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (object && WIFEXITED(status) && WEXITSTATUS(status) == 0) return object;
    json_decref(object);
    fprintf(stderr, "bench: no result from:");
    for (size_t i = 0; argv[i]; i++) fprintf(stderr, " %s", argv[i]);
    fputc('\n', stderr);
    return NULL;
}

bool peer_rate(const bench *b, const workload *w, double *rate) {
    char program[4096], threads[16], depth[16], n_new[16], repeats[16], n_seqs[16], n_ctx[16], zero[] = "0", on[] = "1";
    const bool batch = w->n_seqs > 1;
    snprintf(program, sizeof program, "%s/%s", b->peer_dir, batch ? "llama-batched-bench" : "llama-bench");
    snprintf(threads, sizeof threads, "%u", b->n_threads);
    snprintf(depth, sizeof depth, "%u", w->depth);
    snprintf(n_new, sizeof n_new, "%u", w->n_new);
    snprintf(repeats, sizeof repeats, "%u", w->repeats);
    snprintf(n_seqs, sizeof n_seqs, "%u", w->n_seqs);
    // A context for each sequence, rounded up as llama.cpp does it itself (to 256).
    snprintf(n_ctx, sizeof n_ctx, "%u", w->n_seqs * ((w->depth + w->n_new + 255) / 256 * 256));
    char *model = (char *)(uintptr_t)b->model_path;
    const bool prefill = w->n_new == 0;

    char *one[] = {program, "-m", model, "-t", threads, "-fa", on, "-o", "jsonl", "-r", repeats, "-p",
                   prefill ? depth : zero, "-n", n_new, "-d", prefill ? zero : depth, NULL};
    char *many[] = {program, "-m", model, "-t", threads, "-tb", threads, "-fa", "on", "--output-format", "jsonl", "-c",
                    n_ctx, "-npp", depth, "-ntg", n_new, "-npl", n_seqs, NULL};
    json_t *result = run(batch ? many : one);
    if (!result) return false;
    *rate = json_number_value(json_object_get(result, batch ? "speed_tg" : "avg_ts"));
    json_decref(result);
    if (*rate > 0) return true;
    fprintf(stderr, "bench: %s: no rate in its result\n", program);
    return false;
}
