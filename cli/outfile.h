// A file of results that appears whole or not at all: written beside its name and renamed at the end, and opened before
// the work, so that one that cannot be written is not found out hours later. An older file stays until then.
#ifndef PITH_CLI_OUTFILE_H
#define PITH_CLI_OUTFILE_H

#include <stdbool.h>
#include <stdio.h>

typedef struct outfile {
    const char *path; // borrowed; NULL: none
    char *part;       // its name while it is written; owned
    FILE *file;       // to write to; NULL: none
} outfile;

// path NULL: nothing is opened. Returns an exit code, after one line when that is not EXIT_OK.
int outfile_open(outfile *f, const char *path);

// Closes and renames; ok: was everything written? Returns an exit code, as above. Without a file: EXIT_OK.
int outfile_keep(outfile *f, bool ok);

void outfile_drop(outfile *f); // removes what was begun; nothing when it was kept

#endif
