#include "base/machine.h"

#include <stdio.h>

// The first number in a file behind `format`, which holds one %llu; false when there is none ("max").
static int read_number(const char *path, const char *format, unsigned long long *out) {
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int found = 0;
    char line[128];
    while (!found && fgets(line, sizeof line, f)) found = sscanf(line, format, out) == 1;
    fclose(f);
    return found;
}

uint64_t pith_available_bytes(void) {
    unsigned long long kilobytes, limit, used;
    uint64_t bytes = UINT64_MAX;
    if (read_number("/proc/meminfo", "MemAvailable: %llu kB", &kilobytes)) bytes = (uint64_t)kilobytes * 1024;
    if (read_number("/sys/fs/cgroup/memory.max", "%llu", &limit) &&
        read_number("/sys/fs/cgroup/memory.current", "%llu", &used)) {
        const uint64_t left = limit > used ? limit - used : 0;
        if (left < bytes) bytes = left;
    }
    return bytes;
}
