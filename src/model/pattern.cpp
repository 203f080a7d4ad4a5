#include "model/pattern.h"

#include <algorithm>
#include <stdexcept>

namespace pith {
namespace {

using range = gbnf::range;
using ranges = std::vector<range>;

constexpr uint32_t last = 0x10ffff;

[[noreturn]] void fail(const std::string &what) { throw std::runtime_error(what); }

// ---------------------------------------------------------------------------------------------- sets of characters

ranges ordered(ranges set) {
    std::sort(set.begin(), set.end());
    ranges out;
    for (const range &r : set) {
        if (!out.empty() && r.first <= out.back().second + 1) out.back().second = std::max(out.back().second, r.second);
        else out.push_back(r);
    }
    return out;
}

ranges other(const ranges &set) {
    ranges out;
    uint32_t next = 0;
    for (const range &r : ordered(set)) {
        if (r.first > next) out.emplace_back(next, r.first - 1);
        next = r.second + 1;
    }
    if (next <= last) out.emplace_back(next, last);
    return out;
}

ranges without(const ranges &set, const ranges &taken) {
    ranges out = other(set);
    out.insert(out.end(), taken.begin(), taken.end());
    return other(out);
}

bool has(const ranges &set, uint32_t c) {
    return std::any_of(set.begin(), set.end(), [c](const range &r) { return r.first <= c && c <= r.second; });
}

const ranges digits = {{'0', '9'}};
const ranges word = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const ranges white = {{9, 13},          {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
                      {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const ranges line_ends = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// JSON text of one character out of a set: as it is, or escaped where it must be. Control characters that have no
// escape of one letter are left out.
std::string body_of(const ranges &set) {
    static const ranges special = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}};
    static const std::pair<uint32_t, const char *> escapes[] = {
        {'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"}, {'\n', "\\n"}, {'\r', "\\r"}, {'\t', "\\t"}};
    const ranges plain = without(set, special);
    std::string body = plain.empty() ? "" : gbnf::one_of(plain);
    for (const auto &escape : escapes)
        if (has(set, escape.first)) body += (body.empty() ? "" : " | ") + gbnf::literal(escape.second);
    if (body.empty()) fail("it asks for a character that there is none of");
    return body;
}

// ---------------------------------------------------------------------------------------------- reading

class reader {
  public:
    reader(const std::string &pattern, gbnf &out) : text(pattern), rules(out) {}

    std::string all() {
        std::string body;
        do {
            const bool begins = take('^');
            std::string sequence = begins ? "" : anything();
            const std::string inner = items();
            join(sequence, inner);
            if (!take('$')) join(sequence, anything());
            if (!done() && text[at] != '|') unexpected();
            add_alternative(body, sequence);
        } while (take('|'));
        return body;
    }

  private:
    const std::string &text;
    gbnf &rules;
    size_t at = 0;
    unsigned depth = 0;
    uint64_t copies = 1; // of what was read last, its inner repetitions multiplied
    uint64_t places = 1; // in it, each as often as it is repeated where it may be empty
    bool empty = false;  // may it be?

    bool done() const { return at == text.size(); }
    bool next_is(char c) const { return !done() && text[at] == c; }
    bool take(char c) { return next_is(c) ? (at++, true) : false; }

    [[noreturn]] void unexpected() const {
        if (done()) fail("it ends too early");
        if (text[at] == '^' || text[at] == '$') fail("an anchor is supported at its ends only");
        fail(std::string("unexpected '") + text[at] + "' at " + std::to_string(at));
    }

    std::string anything() { return rules.repeat("char", 0, gbnf::endless); }

    static void join(std::string &sequence, const std::string &more) {
        if (!sequence.empty() && !more.empty()) sequence += " ";
        sequence += more;
    }

    // An empty alternative stands as an empty literal, so that no rule is empty.
    static void add_alternative(std::string &body, const std::string &sequence) {
        if (!body.empty()) body += " | ";
        body += sequence.empty() ? "\"\"" : sequence;
    }

    std::string items() {
        std::string sequence;
        uint64_t most = 1, sum = 0;
        bool all_empty = true;
        while (!done() && text[at] != '|' && text[at] != ')' && text[at] != '$') {
            join(sequence, quantified(atom()));
            most = std::max(most, copies), sum += places, all_empty = all_empty && empty;
        }
        copies = most, places = std::max<uint64_t>(sum, 1), empty = all_empty;
        return sequence;
    }

    std::string group() {
        if (take('?') && !take(':')) fail("of the groups that begin with (? only (?: is supported");
        if (++depth > pattern_most_depth) fail("its groups are nested too deeply");
        std::string body;
        uint64_t most = 1, sum = 0;
        bool any_empty = false;
        do {
            add_alternative(body, items());
            most = std::max(most, copies), sum += places, any_empty = any_empty || empty;
        } while (take('|'));
        if (!take(')')) unexpected();
        depth--;
        copies = most, places = sum, empty = any_empty;
        return rules.add(body);
    }

    std::string atom() {
        copies = places = 1, empty = false;
        if (take('(')) return group();
        if (take('[')) return rules.add(body_of(set()));
        if (take('.')) return rules.add(body_of(other(line_ends)));
        if (take('\\')) return rules.add(body_of(escape(false)));
        for (const char c : {'*', '+', '?', '{', '}', ']', '^'})
            if (next_is(c)) unexpected();
        const uint32_t c = character();
        return rules.add(body_of({{c, c}}));
    }

    std::string quantified(const std::string &rule) {
        uint32_t least = 1, most = 1;
        if (take('*')) least = 0, most = gbnf::endless;
        else if (take('+')) most = gbnf::endless;
        else if (take('?')) least = 0;
        else if (take('{')) bounds(least, most);
        else return rule;
        take('?'); // a lazy one matches the same texts
        for (const char c : {'*', '+', '?', '{'})
            if (next_is(c)) unexpected();
        const uint64_t times = most == gbnf::endless ? least + 1 : std::max(most, 1u);
        copies *= times, places *= empty ? times : 1, empty = empty || least == 0;
        if (copies > pattern_most_nested)
            fail("its repetitions multiply to more than " + std::to_string(pattern_most_nested));
        if (places > pattern_most_empty) fail("it repeats what may be empty too often");
        return rules.repeat(rule, least, most);
    }

    void bounds(uint32_t &least, uint32_t &most) {
        least = most = number();
        if (take(',')) most = next_is('}') ? gbnf::endless : number();
        if (!take('}')) unexpected();
        if (least > most) fail("a repetition's bounds are in the wrong order");
    }

    uint32_t number() {
        uint32_t n = 0;
        if (done() || text[at] < '0' || text[at] > '9') unexpected();
        while (!done() && text[at] >= '0' && text[at] <= '9') {
            n = 10 * n + static_cast<uint32_t>(text[at++] - '0');
            if (n > gbnf::most_times) fail("expected at most " + std::to_string(gbnf::most_times) + " repetitions");
        }
        return n;
    }

    ranges set() {
        const bool negated = take('^');
        ranges out;
        while (!take(']')) {
            const ranges low = set_item();
            if (next_is('-') && at + 1 < text.size() && text[at + 1] != ']') {
                at++;
                const ranges high = set_item();
                const bool single = low.size() == 1 && high.size() == 1 && low[0].first == low[0].second &&
                                    high[0].first == high[0].second;
                if (!single || low[0].first > high[0].first) fail("a range of characters is in the wrong order");
                out.emplace_back(low[0].first, high[0].first);
            } else {
                out.insert(out.end(), low.begin(), low.end());
            }
        }
        return negated ? other(out) : out;
    }

    ranges set_item() {
        if (done()) unexpected();
        if (take('\\')) return escape(true);
        const uint32_t c = character();
        return {{c, c}};
    }

    uint32_t character() { // of valid UTF-8
        const unsigned char lead = static_cast<unsigned char>(text[at++]);
        if (lead < 0x80) return lead;
        const int more = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        uint32_t c = lead & (0x3fu >> more);
        for (int i = 0; i < more && !done(); i++) c = c << 6 | (static_cast<unsigned char>(text[at++]) & 0x3fu);
        return c;
    }

    uint32_t hex(int n) {
        uint32_t value = 0;
        for (int i = 0; i < n; i++) {
            const char c = done() ? ' ' : text[at++];
            const char *const all = "0123456789abcdef";
            const char *const found = std::find(all, all + 16, c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c);
            if (found == all + 16) fail("expected " + std::to_string(n) + " hexadecimal digits");
            value = 16 * value + static_cast<uint32_t>(found - all);
        }
        if (value >= 0xd800 && value <= 0xdfff) fail("halves of characters are not supported");
        return value;
    }

    ranges escape(bool in_set) {
        if (done()) fail("it ends with a backslash");
        const char c = text[at];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter) {
            const uint32_t self = character();
            return {{self, self}};
        }
        at++;
        switch (c) {
        case 'd': return digits;
        case 'D': return other(digits);
        case 'w': return word;
        case 'W': return other(word);
        case 's': return white;
        case 'S': return other(white);
        case 't': return {{'\t', '\t'}};
        case 'n': return {{'\n', '\n'}};
        case 'r': return {{'\r', '\r'}};
        case 'f': return {{'\f', '\f'}};
        case 'v': return {{'\v', '\v'}};
        case 'x': return single(hex(2));
        case 'u': return single(hex(4));
        default: break;
        }
        if (c == 'b' && in_set) return {{'\b', '\b'}};
        fail(std::string("\\") + c + " is not supported");
    }

    static ranges single(uint32_t c) { return {{c, c}}; }
};

} // namespace

std::string pattern_body(const std::string &pattern, gbnf &rules) {
    if (pattern.size() > pattern_most_bytes)
        fail("expected at most " + std::to_string(pattern_most_bytes) + " bytes, found " +
             std::to_string(pattern.size()));
    return reader(pattern, rules).all();
}

} // namespace pith
