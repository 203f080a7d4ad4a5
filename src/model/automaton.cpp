#include "model/automaton.h"

#include <algorithm>

namespace pith {

constexpr int unknown = -3; // nobody has gone there yet

bool automaton::open(const char *text) {
    // No vocabulary: tokens are text here.
    grammar.reset(llama_grammar_init_impl(nullptr, text, "root", false, nullptr, 0, nullptr, 0));
    if (!grammar) return false;
    starts = {0};
    for (const llama_grammar_rule &rule : grammar->rules) {
        for (size_t i = 0; i < rule.size(); i++) {
            const bool first = rule[i].type == LLAMA_GRETYPE_CHAR || rule[i].type == LLAMA_GRETYPE_CHAR_NOT ||
                               rule[i].type == LLAMA_GRETYPE_CHAR_ALT;
            if (!first) continue;
            const bool ranges = i + 1 < rule.size() && rule[i + 1].type == LLAMA_GRETYPE_CHAR_RNG_UPPER;
            starts.push_back(rule[i].value);
            starts.push_back((ranges ? rule[i + 1].value : rule[i].value) + 1);
        }
    }
    std::sort(starts.begin(), starts.end());
    starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
    for (uint32_t c = 0; c < ascii.size(); c++)
        ascii[c] = static_cast<uint16_t>(std::upper_bound(starts.begin(), starts.end(), c) - starts.begin() - 1);
    return true;
}

size_t automaton::class_of(uint32_t character) const {
    if (character < ascii.size()) return ascii[character];
    return static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), character) - starts.begin() - 1);
}

int automaton::state_of(readings set) {
    if (set.empty()) return nowhere;
    if (set.size() > most_readings) return too_many;
    std::sort(set.begin(), set.end());
    const auto found = known.find(set);
    if (found != known.end()) return found->second;
    size_t elements = starts.size();
    for (const llama_grammar_stack &stack : set) elements += stack.size() + 4;
    const int id = static_cast<int>(states.size());
    const auto made = known.emplace(std::move(set), id).first;
    states.push_back({&made->first, std::vector<int>(starts.size(), unknown)});
    remembered += elements;
    return id;
}

int automaton::follow(int state, size_t character_class) {
    const int seen = states[static_cast<size_t>(state)].next[character_class];
    if (seen != unknown) return seen;
    readings &scratch = llama_grammar_get_stacks(grammar.get());
    scratch = readings_of(state);
    llama_grammar_accept(grammar.get(), starts[character_class]);
    const int next = state_of(scratch);
    return states[static_cast<size_t>(state)].next[character_class] = next;
}

int automaton::step(int state, uint32_t character) { return follow(state, class_of(character)); }

bool automaton::may_step(int state, uint32_t low, uint32_t high) {
    for (size_t c = class_of(low); c < starts.size() && starts[c] <= high; c++)
        if (follow(state, c) >= 0) return true;
    return false;
}

void automaton::forget() {
    known.clear();
    states.clear();
    remembered = 0;
}

} // namespace pith
