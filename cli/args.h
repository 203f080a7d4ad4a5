// Command-line options: long names, strict values, one line for each mistake.
#ifndef PITH_CLI_ARGS_H
#define PITH_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pith.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef enum arg_kind {
    ARG_GROUP, // a heading in the help; no option
    ARG_FLAG,  // bool *
    ARG_TEXT,  // const char **
    ARG_COUNT, // uint32_t *, from min to max
    ARG_SEED,  // uint64_t *
    ARG_BYTES, // uint64_t *, with an optional K, M or G (powers of 1024)
    ARG_REAL,  // float *, from min to max
} arg_kind;

typedef struct arg {
    arg_kind kind;
    const char *name;  // with its dashes
    const char *brief; // a second name such as "-p", or NULL
    const char *value; // what stands for the value in the help, NULL for flags
    void *to;
    double min, max;
    const char *help;
    bool given; // out
} arg;

// Parses argv[first..) against n options. Returns EXIT_OK, or EXIT_USAGE after one line on stderr.
int args_parse(arg *args, size_t n, int first, int argc, char **argv);

// Prints the options, grouped, to stdout.
void args_help(const arg *args, size_t n);

// The value of --kv: auto, f16, f32, bf16. EXIT_OK, or EXIT_USAGE after one line on stderr.
int args_kv_type(const char *text, pith_kv_type *out);

// One line on stderr: "pith: ...". Returns `code`.
__attribute__((format(printf, 2, 3))) int complain(int code, const char *fmt, ...);
int failed(const pith_error *err); // with what the library said: EXIT_USAGE for a bad argument, else EXIT_FAILED
int no_memory(void);               // EXIT_FAILED

#endif
