#include "base/utf8.h"

#include <stdint.h>

// Bytes of the character at p, of which `left` are there; 0 when it is not valid. Unicode 15, table 3-7.
static size_t character(const uint8_t *p, size_t left) {
    uint8_t lead = p[0], least = 0x80, most = 0xbf; // range of the second byte
    size_t n;
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) n = 2;
    else if (lead >= 0xe0 && lead <= 0xef) n = 3;
    else if (lead >= 0xf0 && lead <= 0xf4) n = 4;
    else return 0;
    if (lead == 0xe0) least = 0xa0; // below: overlong
    if (lead == 0xed) most = 0x9f;  // above: surrogates
    if (lead == 0xf0) least = 0x90; // below: overlong
    if (lead == 0xf4) most = 0x8f;  // above: past U+10FFFF
    if (n > left || p[1] < least || p[1] > most) return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return n;
}

size_t pith_utf8_valid(const char *text, size_t bytes) {
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0;
    while (at < bytes) {
        size_t n = character(p + at, bytes - at);
        if (n == 0) return at;
        at += n;
    }
    return at;
}
