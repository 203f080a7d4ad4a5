// Runs a fuzz target over the files named on the command line (folders: every file in them, in order of name), so that
// a corpus is a test like any other. Each input ends flush against a page that cannot be read: one byte too far is a
// crash in every build.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_replayed;

static void fail(const char *path, const char *what) {
    fprintf(stderr, "replay: %s: %s\n", path, what);
    exit(1);
}

static void replay_file(const char *path, size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = (size + page - 1) / page * page;
    uint8_t *map = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) fail(path, "no memory");
    if (mprotect(map + room, page, PROT_NONE) != 0) fail(path, "mprotect failed");
    uint8_t *data = map + room - size;

    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(data, 1, size, file) != size) fail(path, "cannot be read");
    fclose(file);

    LLVMFuzzerTestOneInput(data, size);
    munmap(map, room + page);
    n_replayed++;
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void replay(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) fail(path, "is missing");
    if (!S_ISDIR(info.st_mode)) {
        replay_file(path, (size_t)info.st_size);
        return;
    }
    struct dirent **entries;
    const int n = scandir(path, &entries, is_visible, alphasort);
    if (n < 0) fail(path, "cannot be listed");
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
        free(entries[i]);
        replay(inner);
    }
    free(entries);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) replay(argv[i]);
    printf("replayed %zu inputs\n", n_replayed);
    return n_replayed > 0 ? 0 : 1; // a corpus that went missing is a failure
}
