// The page: files that are part of the program.
#ifndef PITH_SERVER_WEB_H
#define PITH_SERVER_WEB_H

#include <stddef.h>

typedef struct web_file {
    const char *path; // "/", "/page.js", ...
    const char *type;
    const char *begin, *end;
} web_file;

const web_file *web_find(const char *path); // NULL: no such file

#endif
