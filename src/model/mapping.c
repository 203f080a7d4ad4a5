#include "model/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *pith_path_tail(const char *path) {
    enum { MOST = 160 };
    size_t length = strlen(path);
    return length > MOST ? path + length - MOST : path;
}

static pith_status map_open_file(int fd, const char *path, pith_mapping *out, pith_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return pith_fail(err, PITH_E_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) return pith_fail(err, PITH_E_IO, "%s: expected a model file, found a directory", path);
    if (!S_ISREG(st.st_mode)) return pith_fail(err, PITH_E_IO, "%s: expected a regular file", path);
    if (st.st_size == 0) return pith_fail(err, PITH_E_FORMAT, "%s: the file is empty", path);
    size_t bytes = (size_t)st.st_size;
    void *base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED) return pith_fail(err, PITH_E_IO, "%s: cannot be mapped: %s", path, strerror(errno));
    *out = (pith_mapping){base, bytes};
    return PITH_OK;
}

pith_status pith_mapping_open(const char *path, pith_mapping *out, pith_error *err) {
    *out = (pith_mapping){0};
    const char *name = pith_path_tail(path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); // without NONBLOCK a FIFO waits for a writer
    if (fd < 0) return pith_fail(err, PITH_E_IO, "%s: %s", name, strerror(errno));
    pith_status status = map_open_file(fd, name, out, err);
    close(fd); // the mapping stays
    return status;
}

void pith_mapping_close(pith_mapping *mapping) {
    if (mapping->base) munmap((void *)(uintptr_t)mapping->base, mapping->bytes);
    *mapping = (pith_mapping){0};
}
