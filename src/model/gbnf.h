// A grammar in libllama's notation (GBNF), put together rule by rule. C++, for schema.cpp and pattern.cpp.
//
// Rules refer to each other by name, and equal rules are one. What libllama's parser would refuse, abort on or run away
// with does not come about here: a repetition applies to a rule's name only, its ends are in order, and their sum is
// bounded (a repetition becomes as many rules).
#ifndef PITH_MODEL_GBNF_H
#define PITH_MODEL_GBNF_H

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace pith {

class gbnf {
  public:
    static constexpr uint32_t endless = UINT32_MAX;
    static constexpr uint32_t most_times = 2000;     // of one repetition; libllama takes more for "no end"
    static constexpr uint32_t most_repeated = 20000; // of all of them

    std::string add(const std::string &body); // the name of a rule with this body

    // A rule whose body comes later, for what refers to itself. One that got none is as if it had never been.
    std::string reserve();
    void set(const std::string &name, const std::string &body);

    // `rule` from `least` to `most` times (or endless). least <= most; both at most most_times. Throws
    // std::runtime_error past the bound of the sum.
    std::string repeat(const std::string &rule, uint32_t least, uint32_t most);

    static std::string literal(const std::string &text); // UTF-8

    // One character out of these ranges, ends included: ascending, at least one.
    using range = std::pair<uint32_t, uint32_t>;
    static std::string one_of(const std::vector<range> &ranges);

    std::string text(const std::string &root) const; // all of it, behind the rules of rules_of_json

  private:
    std::vector<std::string> bodies;
    std::map<std::string, std::string> names; // of bodies
    uint64_t repeated = 0;
};

// What every grammar begins with: space, char, string, whole, fraction, number, integer, boolean, null, value, object,
// array, and the formats date, time and uuid. Tighter than JSON where parsers differ: no lone surrogates and no
// U+0000 in escapes, exponents of two digits, little white space.
extern const char rules_of_json[];

} // namespace pith
#endif
