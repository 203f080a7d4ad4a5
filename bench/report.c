// The setting of a run, and its tables in a Markdown file.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bench.h"

// The whole of a file, terminated; NULL after a line on stderr. The caller frees it.
static char *read_file(const char *path) {
    FILE *f = fopen(path, "re");
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = f ? open_memstream(&text, &bytes) : NULL;
    bool ok = to != NULL;
    for (int c; ok && (c = getc(f)) != EOF;) ok = putc(c, to) != EOF;
    if (f && ferror(f)) ok = false;
    if (to && fclose(to) != 0) ok = false;
    if (f) fclose(f);
    if (ok) return text;
    fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
    free(text);
    return NULL;
}

// The CPU's name as Linux gives it.
static void print_cpu(FILE *out) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256], *name = NULL;
    while (f && !name && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0) name = strchr(line, ':');
    if (f) fclose(f);
    if (name) name[strcspn(name, "\n")] = '\0';
    fputs(name ? name + 2 : "unknown CPU", out);
}

void report_setting(const bench *b, FILE *out) {
    struct utsname os;
    if (uname(&os) != 0) os = (struct utsname){.sysname = "unknown system"};
    print_cpu(out);
    fprintf(out, " (%ld CPUs), %s %s, %s; commit %s; %u threads; %u round%s", sysconf(_SC_NPROCESSORS_ONLN), os.sysname,
            os.release, os.machine, b->commit, b->n_threads, b->n_rounds, b->n_rounds == 1 ? "" : "s");
    fprintf(out, "; the machine reads %.1f GB/s (%.1f to %.1f)\n", 1e-9 * median(b->bandwidth, b->n_rounds),
            1e-9 * smallest(b->bandwidth, b->n_rounds), 1e-9 * largest(b->bandwidth, b->n_rounds));
}

static bool write_file(const char *path, const char *a, size_t n_a, const char *b, const char *c) {
    char part[4096];
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "we");
    bool ok = f && fwrite(a, 1, n_a, f) == n_a && fputs(b, f) >= 0 && fputs(c, f) >= 0;
    if (f && fclose(f) != 0) ok = false;
    if (ok && rename(part, path) == 0) return true;
    fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
    remove(part);
    return false;
}

bool report_replace(const char *path, const char *name, const char *text) {
    char *old = read_file(path), begin[64], end[64];
    if (!old) return false;
    snprintf(begin, sizeof begin, "<!-- %s: begin -->\n", name);
    snprintf(end, sizeof end, "<!-- %s: end -->", name);
    const char *from = strstr(old, begin), *to = from ? strstr(from, end) : NULL;
    bool ok = to != NULL;
    if (ok) ok = write_file(path, old, (size_t)(from - old) + strlen(begin), text, to);
    else fprintf(stderr, "bench: %s: expected a line %.*s and later %s\n", path, (int)strlen(begin) - 1, begin, end);
    free(old);
    return ok;
}
