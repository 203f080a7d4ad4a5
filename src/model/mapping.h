// A file of the user's, mapped for reading.
#ifndef PITH_MODEL_MAPPING_H
#define PITH_MODEL_MAPPING_H

#include "base/status.h"

typedef struct pith_mapping {
    const uint8_t *base; // page-aligned
    size_t bytes;        // at least 1
} pith_mapping;

// Maps the regular file at `path`. Never waits: a FIFO, a device or a directory is PITH_E_IO like a file that is
// missing or unreadable; an empty file is PITH_E_FORMAT. The file must not shrink while it is mapped: reading past its
// new end kills the process, as with any mapping.
pith_status pith_mapping_open(const char *path, pith_mapping *out, pith_error *err);
void pith_mapping_close(pith_mapping *mapping); // a zeroed mapping is allowed

// How messages name a file: its path, or the end of a path that would fill the line.
const char *pith_path_tail(const char *path);

#endif
