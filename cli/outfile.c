#include "outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "args.h"

int outfile_open(outfile *f, const char *path) {
    *f = (outfile){.path = path};
    if (!path) return EXIT_OK;
    struct stat there;
    if (stat(path, &there) == 0 && S_ISDIR(there.st_mode))
        return complain(EXIT_FAILED, "%s: expected a file's name, this is a folder", path);
    const size_t bytes = strlen(path) + 24;
    if (!(f->part = malloc(bytes))) return complain(EXIT_FAILED, "out of memory");
    snprintf(f->part, bytes, "%s.%ld", path, (long)getpid());
    if ((f->file = fopen(f->part, "we"))) return EXIT_OK;
    const int code = complain(EXIT_FAILED, "%s: %s", f->part, strerror(errno));
    free(f->part);
    f->part = NULL;
    return code;
}

int outfile_keep(outfile *f, bool ok) {
    if (!f->file) return EXIT_OK;
    errno = 0;
    ok = ok && fflush(f->file) == 0 && !ferror(f->file);
    ok = fclose(f->file) == 0 && ok;
    f->file = NULL;
    if (!ok || rename(f->part, f->path) != 0)
        return complain(EXIT_FAILED, "%s: cannot write: %s", f->path, strerror(errno));
    free(f->part);
    f->part = NULL;
    return EXIT_OK;
}

void outfile_drop(outfile *f) {
    if (f->file) fclose(f->file);
    if (f->part) unlink(f->part);
    free(f->part);
    *f = (outfile){0};
}
