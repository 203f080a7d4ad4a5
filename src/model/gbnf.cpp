#include "model/gbnf.h"

#include <cstdio>
#include <stdexcept>

namespace pith {

const char rules_of_json[] = R"GBNF(space ::= | " " | "\n" [ \t]{0,20}
hex ::= [0-9a-fA-F]
code ::= "000" [1-9a-fA-F] | "00" [1-9a-fA-F] hex | "0" [1-9a-fA-F] hex hex | [1-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex
char ::= [^"\\\x7F\x00-\x1F] | "\\" escaped
escaped ::= ["\\/bfnrt] | "u" code
string ::= "\"" char* "\""
whole ::= "0" | [1-9] [0-9]{0,15}
fraction ::= "." [0-9]{1,16}
beyond ::= "." [0-9]{0,15} [1-9]
zeros ::= "." "0"{1,16}
exponent ::= [eE] [-+]? [0-9]{1,2}
number ::= "-"? whole fraction? exponent?
integer ::= "0" | "-"? [1-9] [0-9]{0,15}
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
pair ::= string ":" space value
object ::= "{" space pairs
pairs ::= "}" | pair pair-next* space "}"
pair-next ::= "," space pair
array ::= "[" space values
values ::= "]" | value value-next* space "]"
value-next ::= "," space value
day ::= long "-" day31 | short "-" day30 | "02-" day29
long ::= "0" [13578] | "1" [02]
short ::= "0" [469] | "11"
day29 ::= "0" [1-9] | [12] [0-9]
day30 ::= day29 | "30"
day31 ::= day30 | "31"
date ::= [0-9]{4} "-" day
clock ::= hour ":" [0-5] [0-9]
hour ::= [01] [0-9] | "2" [0-3]
time ::= clock ":" [0-5] [0-9] second-part zone
second-part ::= | "." [0-9]{1,9}
zone ::= "Z" | [-+] clock
uuid ::= hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}
)GBNF";

static std::string name_of(size_t i) { return "r" + std::to_string(i); }

std::string gbnf::reserve() {
    bodies.emplace_back();
    return name_of(bodies.size() - 1);
}

void gbnf::set(const std::string &name, const std::string &body) { bodies.at(std::stoul(name.substr(1))) = body; }

std::string gbnf::add(const std::string &body) {
    const auto known = names.find(body);
    if (known != names.end()) return known->second;
    const std::string name = reserve();
    bodies.back() = body;
    return names[body] = name;
}

std::string gbnf::repeat(const std::string &rule, uint32_t least, uint32_t most) {
    if (least == 1 && most == 1) return rule;
    std::string body = rule;
    if (most == endless && least < 2) body += least == 0 ? "*" : "+";
    else if (least == 0 && most == 1) body += "?";
    else if (most == 0) body = "\"\"";
    else body += "{" + std::to_string(least) + "," + (most == endless ? "" : std::to_string(most)) + "}";
    if (names.find(body) == names.end()) repeated += most == endless ? least : most;
    if (repeated > most_repeated)
        throw std::runtime_error("expected at most " + std::to_string(most_repeated) + " repetitions in all of it");
    return add(body);
}

std::string gbnf::literal(const std::string &text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '\n') out += "\\n";
        else if (c == '\r') out += "\\r";
        else if (c == '"' || c == '\\') out += std::string("\\") + c;
        else out += c;
    }
    return out + "\"";
}

std::string gbnf::one_of(const std::vector<range> &ranges) {
    std::string out = "[";
    for (const range &r : ranges) {
        char ends[32];
        std::snprintf(ends, sizeof ends, r.first == r.second ? "\\U%08X" : "\\U%08X-\\U%08X", r.first, r.second);
        out += ends;
    }
    return out + "]";
}

std::string gbnf::text(const std::string &root) const {
    std::string out = rules_of_json;
    for (size_t i = 0; i < bodies.size(); i++)
        if (!bodies[i].empty()) out += name_of(i) + " ::= " + bodies[i] + "\n";
    return out + "root ::= " + root + "\n";
}

} // namespace pith
