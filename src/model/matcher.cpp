#include "model/matcher.h"

#include <llama-grammar.h> // inside libllama: its sampler does not say whether an answer is complete, nor how many stacks there are

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/utf8.h"

// libllama's stacks are the readings of what was taken so far: each says what may come next, an empty one that nothing
// need.
struct pith_matcher {
    std::shared_ptr<llama_grammar> grammar; // its own stacks are scratch
    llama_grammar_stacks stacks;
    char held[4] = {}; // the first bytes of a character
    size_t n_held = 0;
};

namespace {

// ---------------------------------------------------------------------------------------------- characters

// What a text adds to what is held: whole characters, and the beginning of one.
struct characters {
    std::vector<uint32_t> points; // of all texts, each text's ends with 0
    llama_partial_utf8 rest = {0, 0};
};

uint32_t point_of(const char *s, size_t n) {
    const auto lead = static_cast<unsigned char>(*s);
    if (n == 1) return lead;
    uint32_t c = lead & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) c = c << 6 | (static_cast<unsigned char>(s[i]) & 0x3fu);
    return c;
}

size_t length_of(char lead) {
    const auto c = static_cast<unsigned char>(lead);
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

// Can the n bytes begin a character that is not complete yet?
bool may_grow(const char *bytes, size_t n) {
    const auto lead = static_cast<unsigned char>(*bytes);
    const size_t length = lead >= 0xc2 && lead <= 0xf4 ? length_of(*bytes) : 1;
    if (n >= length) return false;
    const auto low = static_cast<char>(lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80);
    char whole[4] = {*bytes, low, static_cast<char>(0x80), static_cast<char>(0x80)};
    std::memcpy(whole, bytes, n);
    return pith_utf8_valid(whole, length) == length;
}

// Adds the characters of `held` and `text` together; false where that is not UTF-8 or has U+0000. `held` becomes what
// is left over.
bool read(characters &to, char *held, size_t *n_held, const char *text, size_t bytes) {
    size_t at = 0;
    while (at < bytes || *n_held > 0) {
        char one[4];
        size_t n = *n_held;
        std::memcpy(one, held, n);
        *n_held = 0;
        if (n == 0) one[n++] = text[at++];
        const size_t length = length_of(*one);
        while (n < length && at < bytes) one[n++] = text[at++];
        if (n == length && pith_utf8_valid(one, n) == n && *one != 0) {
            to.points.push_back(point_of(one, n));
            continue;
        }
        if (at < bytes || !may_grow(one, n)) return false;
        std::memcpy(held, one, n);
        *n_held = n;
        // The bits so far, as libllama keeps them: those of the lead byte for the whole length.
        uint32_t value = static_cast<unsigned char>(*one) & (0x7fu >> length);
        for (size_t i = 1; i < n; i++) value = value << 6 | (static_cast<unsigned char>(one[i]) & 0x3fu);
        to.rest = {value, static_cast<int>(length - n)};
        break;
    }
    to.points.push_back(0);
    return true;
}

// ---------------------------------------------------------------------------------------------- matching

// Those of the candidates that no reading lets follow.
llama_grammar_candidates rejected(const pith_matcher &m, llama_grammar_candidates candidates) {
    for (const llama_grammar_stack &stack : m.stacks) {
        if (candidates.empty()) break;
        candidates = llama_grammar_reject_candidates_for_stack(m.grammar->rules, stack, candidates);
    }
    return candidates;
}

// Which of the 128 first characters may come: most tokens of a vocabulary are ruled out by theirs.
std::array<bool, 128> first_characters(const pith_matcher &m) {
    std::array<bool, 128> may;
    may.fill(true);
    uint32_t points[128][2] = {};
    llama_grammar_candidates all;
    for (uint32_t c = 1; c < 128; c++) {
        points[c][0] = c;
        all.push_back({c, points[c], {0, 0}, 0});
    }
    for (const auto &one : rejected(m, all)) may[one.index] = false;
    return may;
}

void check(const pith_matcher &m, size_t n, pith_matcher_text text, void *ctx, bool *allowed) {
    const bool many = n > 1 && m.n_held == 0;
    const std::array<bool, 128> first = many ? first_characters(m) : std::array<bool, 128>{};
    characters all;
    std::vector<std::pair<size_t, size_t>> which; // of the texts that are looked at, and where their points begin
    llama_grammar_candidates candidates;
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        const char *const t = text(ctx, i, &bytes);
        allowed[i] = false;
        if (bytes == 0) continue;
        const auto lead = static_cast<unsigned char>(*t);
        if (many && lead < 128 && !first[lead]) continue;
        char held[4];
        size_t n_held = m.n_held;
        std::memcpy(held, m.held, sizeof held);
        const size_t begin = all.points.size();
        all.rest = {0, 0};
        if (!read(all, held, &n_held, t, bytes)) {
            all.points.resize(begin);
            continue;
        }
        candidates.push_back({i, nullptr, all.rest, 0});
        which.emplace_back(i, begin);
        allowed[i] = true;
    }
    for (size_t k = 0; k < which.size(); k++) candidates[k].code_points = all.points.data() + which[k].second;
    for (const auto &one : rejected(m, std::move(candidates))) allowed[one.index] = false;
}

pith_matcher_result take(pith_matcher &m, const char *text, size_t bytes) {
    characters all;
    if (!read(all, m.held, &m.n_held, text, bytes)) return PITH_MATCHER_REFUSED;
    llama_grammar_stacks &scratch = llama_grammar_get_stacks(m.grammar.get());
    for (size_t i = 0; all.points[i] != 0; i++) {
        scratch.swap(m.stacks);
        llama_grammar_accept(m.grammar.get(), all.points[i]);
        scratch.swap(m.stacks);
        if (m.stacks.empty()) return PITH_MATCHER_REFUSED;
        if (m.stacks.size() > PITH_MATCHER_MAX_READINGS) return PITH_MATCHER_AMBIGUOUS;
    }
    return PITH_MATCHER_OK;
}

pith_matcher *make(const char *grammar, pith_matcher_result *result) {
    auto m = std::make_unique<pith_matcher>();
    // No vocabulary: tokens are text for us.
    m->grammar.reset(llama_grammar_init_impl(nullptr, grammar, "root", false, nullptr, 0, nullptr, 0),
                     llama_grammar_free_impl);
    *result = !m->grammar ? PITH_MATCHER_REFUSED : PITH_MATCHER_OK;
    if (!m->grammar) return nullptr;
    m->stacks.swap(llama_grammar_get_stacks(m->grammar.get()));
    if (m->stacks.size() > PITH_MATCHER_MAX_READINGS) *result = PITH_MATCHER_AMBIGUOUS;
    return *result == PITH_MATCHER_OK ? m.release() : nullptr;
}

} // namespace

pith_matcher_result pith_matcher_new(const char *grammar, pith_matcher **out) {
    *out = nullptr;
    try {
        pith_matcher_result result;
        *out = make(grammar, &result);
        return result;
    } catch (const std::bad_alloc &) {
        return PITH_MATCHER_NO_MEMORY;
    } catch (...) {
        return PITH_MATCHER_REFUSED;
    }
}

pith_matcher_result pith_matcher_clone(const pith_matcher *m, pith_matcher **out) {
    *out = nullptr;
    try {
        *out = new pith_matcher(*m); // stacks point into the rules, which are shared
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
    if (result != PITH_MATCHER_OK) m->stacks.clear();
    return result;
}

bool pith_matcher_may_end(const pith_matcher *m) {
    bool may = false;
    for (const llama_grammar_stack &stack : m->stacks) may = may || stack.empty();
    return may && m->n_held == 0;
}

bool pith_matcher_must_end(const pith_matcher *m) {
    return m->stacks.size() == 1 && m->stacks[0].empty() && m->n_held == 0;
}
