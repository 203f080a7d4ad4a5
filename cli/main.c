// pith: the program. One verb, one file.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "pith.h"
#include "verbs.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    void (*help)(void);
    const char *summary;
} verbs[] = {
    {"run", run_main, run_help, "answer a prompt, or talk, with a compressed cache"},
    {"bench", bench_main, bench_help, "measure speed and memory of long generations"},
    {"serve", serve_main, serve_help, "answer OpenAI's clients over HTTP"},
    {"eval", eval_main, eval_help, "measure what compression does to answers"},
};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static const struct verb *find(const char *name) {
    for (size_t i = 0; i < N_VERBS; i++)
        if (!strcmp(verbs[i].name, name)) return &verbs[i];
    return NULL;
}

static int help(const char *name) {
    const struct verb *verb = name ? find(name) : NULL;
    if (name && !verb) return complain(EXIT_USAGE, "%s: no such verb (pith help lists them)", name);
    if (verb) {
        verb->help();
        return EXIT_OK;
    }
    puts("pith " PITH_VERSION ": reasoning models on a cache that keeps the pith of their thinking\n\n"
         "usage: pith VERB [options]\n");
    for (size_t i = 0; i < N_VERBS; i++) printf("  pith %-8s %s\n", verbs[i].name, verbs[i].summary);
    puts("  pith help VERB  options of a verb\n  pith version    print the version");
    return EXIT_OK;
}

// A closed standard stream's number would go to the next file that is opened, which would then get the answer.
static void hold_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) open("/dev/null", O_RDWR);
}

int main(int argc, char **argv) {
    hold_standard_streams();
    if (argc < 2) {
        help(NULL);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "help") || !strcmp(word, "--help") || !strcmp(word, "-h")) return help(argc > 2 ? argv[2] : NULL);
    if (!strcmp(word, "version") || !strcmp(word, "--version")) return puts("pith " PITH_VERSION), EXIT_OK;
    const struct verb *verb = find(word);
    if (!verb) return complain(EXIT_USAGE, "%s: no such verb (pith help lists them)", word);
    if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) return help(word);
    return verb->run(argc, argv);
}
