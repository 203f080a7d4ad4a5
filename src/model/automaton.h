// A grammar as an automaton that is made while it is used. C++, for matcher.cpp.
//
// A state is the set of readings of what was taken so far: libllama's stacks, each of which says what may come next, an
// empty one that nothing need. Transitions come from libllama and are remembered, for whole ranges of characters that
// the grammar does not tell apart; so asking for the many tokens of a vocabulary is a few look-ups for each.
// (libllama's own way to ask for many tokens tries all readings of each token one by one, and there may be more of them
// than can be counted.)
#ifndef PITH_MODEL_AUTOMATON_H
#define PITH_MODEL_AUTOMATON_H

#include <llama-grammar.h> // inside libllama: its sampler does not say whether an answer is complete, or in how many ways

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace pith {

using readings = llama_grammar_stacks;

class automaton {
  public:
    static constexpr int nowhere = -1;  // nothing fits
    static constexpr int too_many = -2; // more readings than are followed
    static constexpr size_t most_readings = 2500;

    // Takes a grammar in GBNF; false where libllama does not take it.
    bool open(const char *grammar);

    readings first() { return llama_grammar_get_stacks(grammar.get()); } // before anything else is called

    int state_of(readings set); // sorted or not
    const readings &readings_of(int state) const { return *states[static_cast<size_t>(state)].set; }

    int step(int state, uint32_t character);               // the state behind it, or one of the above
    bool may_step(int state, uint32_t low, uint32_t high); // with any character of the range?

    // What is remembered has a bound. Forgetting makes all states invalid.
    bool is_full() const { return remembered > most_remembered; }
    void forget();

  private:
    static constexpr size_t most_remembered = 500000; // elements of all readings

    struct node {
        const readings *set;   // a key of `known`
        std::vector<int> next; // of each class of characters
    };
    struct release {
        void operator()(llama_grammar *g) const { llama_grammar_free_impl(g); }
    };

    std::unique_ptr<llama_grammar, release> grammar; // its stacks are scratch
    std::vector<uint32_t> starts;                    // of the classes of characters, ascending from 0
    std::array<uint16_t, 128> ascii;                 // classes of these
    std::map<readings, int> known;
    std::deque<node> states;
    size_t remembered = 0;

    size_t class_of(uint32_t character) const;
    int follow(int state, size_t character_class);
};

} // namespace pith
#endif
