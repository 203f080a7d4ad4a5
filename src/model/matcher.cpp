#include "model/matcher.h"
#include "model/automaton.h"

#include <cstring>
#include <new>

#include "base/utf8.h"

using pith::automaton;

struct pith_matcher {
    std::shared_ptr<automaton> grammar;
    pith::readings readings; // none: nothing may follow
    char held[4] = {};       // the first bytes of a character
    size_t n_held = 0;
};

namespace {

// ---------------------------------------------------------------------------------------------- characters

// What text adds to what is held: whole characters, and perhaps the beginning of one.
struct characters {
    std::vector<uint32_t> points;
    char held[4];
    size_t n_held;
};

size_t length_of(char lead) {
    const auto c = static_cast<unsigned char>(lead);
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

uint32_t point_of(const char *s, size_t n) {
    const auto lead = static_cast<unsigned char>(*s);
    if (n == 1) return lead;
    uint32_t c = lead & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) c = c << 6 | (static_cast<unsigned char>(s[i]) & 0x3fu);
    return c;
}

// The first or the last character that begins with these bytes, of its lead's length; more bytes follow.
uint32_t completed(const char *bytes, size_t n, bool last) {
    const auto lead = static_cast<unsigned char>(*bytes);
    char whole[4];
    std::memset(whole, last ? 0xbf : 0x80, sizeof whole);
    if (!last && lead == 0xe0) whole[1] = static_cast<char>(0xa0);
    if (!last && lead == 0xf0) whole[1] = static_cast<char>(0x90);
    if (last && lead == 0xed) whole[1] = static_cast<char>(0x9f); // no surrogates
    if (last && lead == 0xf4) whole[1] = static_cast<char>(0x8f);
    std::memcpy(whole, bytes, n);
    return point_of(whole, length_of(*bytes));
}

// Can the n bytes begin a character that is not complete yet?
bool may_grow(const char *bytes, size_t n) {
    const auto lead = static_cast<unsigned char>(*bytes);
    const size_t length = length_of(*bytes);
    if (lead < 0xc2 || lead > 0xf4 || n >= length) return false;
    const uint32_t first = completed(bytes, n, false), least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    for (size_t i = 1; i < n; i++)
        if ((static_cast<unsigned char>(bytes[i]) & 0xc0) != 0x80) return false;
    return first >= least && first <= 0x10ffff && (first < 0xd800 || first > 0xdfff);
}

// False where held bytes and text are not UTF-8, or have U+0000.
bool read(characters &to, const pith_matcher &m, const char *text, size_t bytes) {
    to.points.clear();
    std::memcpy(to.held, m.held, sizeof to.held);
    size_t n = m.n_held, at = 0;
    while (at < bytes) {
        if (n == 0) to.held[n++] = text[at++];
        const size_t length = length_of(*to.held);
        while (n < length && at < bytes) to.held[n++] = text[at++];
        if (n < length) break;
        if (pith_utf8_valid(to.held, n) != n || *to.held == 0) return false;
        to.points.push_back(point_of(to.held, n));
        n = 0;
    }
    to.n_held = n;
    return n == 0 || may_grow(to.held, n);
}

// ---------------------------------------------------------------------------------------------- matching

// The state behind text that may follow, or what keeps it from doing so.
int behind(automaton &a, int state, const characters &text) {
    for (size_t i = 0; i < text.points.size() && state >= 0; i++) state = a.step(state, text.points[i]);
    if (state < 0 || text.n_held == 0) return state;
    const uint32_t low = completed(text.held, text.n_held, false), high = completed(text.held, text.n_held, true);
    return a.may_step(state, low, high) ? state : automaton::nowhere;
}

void check(const pith_matcher &m, size_t n, pith_matcher_text text, void *ctx, bool *allowed) {
    automaton &a = *m.grammar;
    characters one;
    int start = automaton::nowhere;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || a.is_full()) {
            if (a.is_full()) a.forget();
            start = a.state_of(m.readings);
        }
        size_t bytes;
        const char *const t = text(ctx, i, &bytes);
        allowed[i] = bytes > 0 && start >= 0 && read(one, m, t, bytes) && behind(a, start, one) >= 0;
    }
}

pith_matcher_result take(pith_matcher &m, const char *text, size_t bytes) {
    automaton &a = *m.grammar;
    if (a.is_full()) a.forget();
    characters all;
    if (!read(all, m, text, bytes)) return PITH_MATCHER_REFUSED;
    const int state = behind(a, a.state_of(m.readings), all);
    if (state == automaton::too_many) return PITH_MATCHER_AMBIGUOUS;
    if (state < 0) return PITH_MATCHER_REFUSED;
    m.readings = a.readings_of(state);
    std::memcpy(m.held, all.held, sizeof m.held);
    m.n_held = all.n_held;
    return PITH_MATCHER_OK;
}

pith_matcher_result make(const char *grammar, pith_matcher **out) {
    auto m = std::make_unique<pith_matcher>();
    m->grammar = std::make_shared<automaton>();
    if (!m->grammar->open(grammar)) return PITH_MATCHER_REFUSED;
    m->readings = m->grammar->first();
    if (m->grammar->state_of(m->readings) < 0) return PITH_MATCHER_AMBIGUOUS;
    *out = m.release();
    return PITH_MATCHER_OK;
}

} // namespace

pith_matcher_result pith_matcher_new(const char *grammar, pith_matcher **out) {
    *out = nullptr;
    try {
        return make(grammar, out);
    } catch (const std::bad_alloc &) {
        return PITH_MATCHER_NO_MEMORY;
    } catch (...) {
        return PITH_MATCHER_REFUSED;
    }
}

pith_matcher_result pith_matcher_clone(const pith_matcher *m, pith_matcher **out) {
    *out = nullptr;
    try {
        *out = new pith_matcher(*m); // readings point into the rules, which are shared
        return PITH_MATCHER_OK;
    } catch (...) {
        return PITH_MATCHER_NO_MEMORY;
    }
}

void pith_matcher_free(pith_matcher *m) { delete m; }

pith_matcher_result pith_matcher_check(const pith_matcher *m, size_t n, pith_matcher_text text, void *ctx,
                                       bool *allowed) {
    try {
        check(*m, n, text, ctx, allowed);
        return PITH_MATCHER_OK;
    } catch (...) {
        return PITH_MATCHER_NO_MEMORY;
    }
}

pith_matcher_result pith_matcher_take(pith_matcher *m, const char *text, size_t bytes) {
    pith_matcher_result result;
    try {
        result = take(*m, text, bytes);
    } catch (...) {
        result = PITH_MATCHER_NO_MEMORY;
    }
    if (result != PITH_MATCHER_OK) m->readings.clear();
    return result;
}

bool pith_matcher_may_end(const pith_matcher *m) {
    bool may = false;
    for (const llama_grammar_stack &stack : m->readings) may = may || stack.empty();
    return may && m->n_held == 0;
}

bool pith_matcher_must_end(const pith_matcher *m) {
    return m->readings.size() == 1 && m->readings[0].empty() && m->n_held == 0;
}
