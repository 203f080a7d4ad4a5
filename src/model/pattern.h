// Regular expressions of JSON schemas (ECMA-262) as rules of a grammar. C++, for schema.cpp.
//
// What is matched is the string's value; what the grammar describes is its JSON text, so a quote, a backslash or a line
// break stands there escaped. Alternatives, groups, classes, repetitions and the usual escapes are read; anchors at the
// ends of the whole. Looking around, references back, word boundaries and properties of characters are no matter for a
// grammar.
#ifndef PITH_MODEL_PATTERN_H
#define PITH_MODEL_PATTERN_H

#include "model/gbnf.h"

namespace pith {

constexpr size_t pattern_most_bytes = 1000;
constexpr unsigned pattern_most_depth = 16;    // of groups
constexpr uint64_t pattern_most_nested = 2000; // product of the repetitions inside each other
constexpr uint64_t pattern_most_empty =
    600; // ways to skip what may be empty: the automaton's work grows with the square

// The body of a rule for the text between the quotes. `pattern` is UTF-8. Throws std::runtime_error, which says what is
// wrong with the pattern.
std::string pattern_body(const std::string &pattern, gbnf &rules);

} // namespace pith
#endif
