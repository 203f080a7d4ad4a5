// The assembler puts the files into the program as they are; PITH_WEB is their folder.
#include "server/web.h"

#include <string.h>

#define FILE_IN(name, file)                                                                                            \
    __asm__(".section .rodata\n.global web_" name "\n.global web_" name "_end\nweb_" name ":\n.incbin \"" PITH_WEB     \
            "/" file "\"\nweb_" name "_end:\n.byte 0\n.previous\n")

FILE_IN("html", "page.html");
FILE_IN("css", "page.css");
FILE_IN("js", "page.js");
extern const char web_html[], web_html_end[], web_css[], web_css_end[], web_js[], web_js_end[];

static const web_file files[] = {
    {"/", "text/html; charset=utf-8", web_html, web_html_end},
    {"/page.css", "text/css; charset=utf-8", web_css, web_css_end},
    {"/page.js", "text/javascript; charset=utf-8", web_js, web_js_end},
};

const web_file *web_find(const char *path) {
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(files[i].path, path)) return &files[i];
    return NULL;
}
