#include "model/schema.h"
#include "model/pattern.h"

#include <json.h> // llama.cpp's

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <unordered_set>

namespace {

using json = common_json;
using pith::gbnf;
using words = std::vector<std::string>;

constexpr long long most_whole = 9999999999999999; // of 16 digits, as in rules_of_json

[[noreturn]] void fail(const std::string &path, const std::string &what) {
    constexpr size_t shown = 150; // the end of a long path says more than its beginning
    const std::string tail = path.size() <= shown ? path : "..." + path.substr(path.size() - shown);
    throw std::runtime_error(tail + ": " + what);
}

// ---------------------------------------------------------------------------------------------- numbers

std::string digits(char low, char high) {
    return low == high ? std::string("\"") + low + "\"" : std::string("[") + low + "-" + high + "]";
}

// Texts of the same length from low to high.
std::string same_length(gbnf &g, const std::string &low, const std::string &high) {
    const size_t n = low.size();
    if (n == 1) return digits(low[0], high[0]);
    if (low == high) return gbnf::literal(low);
    const std::string rest_low = low.substr(1), rest_high = high.substr(1), zeros(n - 1, '0'), nines(n - 1, '9');
    if (low[0] == high[0]) return digits(low[0], low[0]) + " " + g.add(same_length(g, rest_low, rest_high));
    std::string body;
    char first = low[0], final = high[0];
    if (rest_low != zeros) {
        body += digits(first, first) + " " + g.add(same_length(g, rest_low, nines)) + " | ";
        first++;
    }
    if (rest_high != nines) final--;
    if (first <= final) body += digits(first, final) + " " + g.add(same_length(g, zeros, nines)) + " | ";
    if (rest_high != nines) body += digits(high[0], high[0]) + " " + g.add(same_length(g, zeros, rest_high)) + " | ";
    return body.substr(0, body.size() - 3);
}

// Whole numbers from low to high, 0 <= low <= high.
std::string whole_range(gbnf &g, long long low, long long high) {
    std::string body, from = std::to_string(low);
    const std::string to = std::to_string(high);
    for (; from.size() < to.size(); from = "1" + std::string(from.size(), '0'))
        body += same_length(g, from, std::string(from.size(), '9')) + " | ";
    return body + same_length(g, from, to);
}

// An interval; an open end is not part of it.
struct interval {
    long long low, high;
    bool open_low, open_high;
};

// Decimal numbers of an interval with 0 <= low <= high; "" where there are none.
std::string decimals(gbnf &g, const interval &i) {
    const std::string fraction = g.repeat("fraction", 0, 1), zeros = g.repeat("zeros", 0, 1);
    if (i.low == i.high) return i.open_low || i.open_high ? "" : gbnf::literal(std::to_string(i.low)) + " " + zeros;
    std::string body = gbnf::literal(std::to_string(i.low)) + " " + (i.open_low ? "beyond" : fraction);
    if (i.low + 1 < i.high) body += " | " + g.add(whole_range(g, i.low + 1, i.high - 1)) + " " + fraction;
    if (!i.open_high) body += " | " + gbnf::literal(std::to_string(i.high)) + " " + zeros;
    return body;
}

// ---------------------------------------------------------------------------------------------- the converter

class converter {
  public:
    explicit converter(const json &schema) : root(schema) {}

    std::string run() {
        const std::string start = node(root, "#");
        std::unordered_set<std::string> inside;
        std::map<std::string, size_t> widths;
        for (const auto &entry : alternatives) width(entry.first, inside, widths);
        return rules.text(start);
    }

  private:
    const json &root;
    gbnf rules;
    std::map<const json *, std::string> named; // schemas and their rules
    std::unordered_set<std::string> referred;  // of these, names that were used before there was a body
    std::map<std::string, words> alternatives; // of rules that are nothing else
    size_t parts = 0;
    unsigned depth = 0;

    void count_part(const std::string &path) {
        if (++parts > PITH_SCHEMA_MAX_PARTS)
            fail(path, "expected at most " + std::to_string(PITH_SCHEMA_MAX_PARTS) +
                           " schemas, properties, alternatives and values in all");
    }

    // How many ways lead through a rule before there is a character: libllama walks all of them. None may lead back.
    size_t width(const std::string &name, std::unordered_set<std::string> &inside,
                 std::map<std::string, size_t> &widths) {
        const auto found = alternatives.find(name);
        if (found == alternatives.end()) return 1;
        const auto known = widths.find(name);
        if (known != widths.end()) return known->second;
        if (!inside.insert(name).second) fail("#", "a $ref leads to itself with nothing in between");
        size_t sum = 0;
        for (const std::string &one : found->second) sum += width(one, inside, widths);
        if (sum > 5 * PITH_SCHEMA_MAX_PARTS) fail("#", "too many alternatives, $refs followed");
        inside.erase(name);
        return widths[name] = sum;
    }

    // The name of the rule of a schema.
    std::string node(const json &s, const std::string &path) {
        const auto known = named.find(&s);
        if (known != named.end()) {
            if (known->second[0] == 'r') referred.insert(known->second);
            return known->second;
        }
        count_part(path);
        if (++depth > PITH_SCHEMA_MAX_DEPTH) fail(path, "schemas are nested too deeply");
        const std::string name = named[&s] = rules.reserve();
        words either;
        const std::string body = body_of(s, path, either);
        depth--;
        const bool is_name = body.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
        std::string final = name; // kept where the schema refers to itself, else equal rules become one
        if (referred.count(name)) rules.set(name, body);
        else final = is_name ? body : rules.add(body);
        if (!is_name && !either.empty()) alternatives[final] = either;
        if (is_name && final == name) alternatives[final] = {body};
        return named[&s] = final;
    }

    // ------------------------------------------------------------------------------------------ keywords

    static bool is_one_of(const std::string &key, const words &names) {
        return std::find(names.begin(), names.end(), key) != names.end();
    }

    // Keywords that say nothing of what is valid.
    static bool is_remark(const std::string &key) {
        static const words remarks = {
            "title",     "description", "default",  "examples",      "example",         "$comment",        "$schema",
            "$id",       "id",          "$anchor",  "$defs",         "definitions",     "deprecated",      "readOnly",
            "writeOnly", "format",      "nullable", "discriminator", "contentEncoding", "contentMediaType"};
        return is_one_of(key, remarks) || key.compare(0, 2, "x-") == 0;
    }

    void allow(const json &s, const std::string &path, const words &names) const {
        for (const auto &entry : s.items()) {
            const std::string &key = entry.key();
            if (is_remark(key) || is_one_of(key, names)) continue;
            if (key == "uniqueItems" && entry.value().is_boolean() && !entry.value().get<bool>()) continue;
            const std::string beside = names.empty() ? "" : " beside " + names[0];
            fail(path, "\"" + key.substr(0, 40) + "\" is not supported" + beside);
        }
    }

    static const words &keywords_of(const std::string &type) {
        static const std::map<std::string, words> known = {
            {"object", {"type", "properties", "required", "additionalProperties"}},
            {"array", {"type", "items", "prefixItems", "minItems", "maxItems"}},
            {"string", {"type", "pattern", "minLength", "maxLength"}},
            {"integer", {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
            {"number", {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
            {"boolean", {"type"}},
            {"null", {"type"}}};
        static const words none;
        const auto found = known.find(type);
        return found == known.end() ? none : found->second;
    }

    uint32_t count(const json &s, const char *key, const std::string &path, uint32_t most, uint32_t missing) const {
        if (!s.contains(key)) return missing;
        const json &value = s.at(key);
        const double x = value.is_number() ? value.get<double>() : -1;
        if (!(x >= 0) || x > most || x != std::floor(x))
            fail(path, std::string(key) + ": expected a whole number up to " + std::to_string(most));
        return static_cast<uint32_t>(x);
    }

    // ------------------------------------------------------------------------------------------ schemas

    std::string body_of(const json &s, const std::string &path, words &either) {
        if (s.is_boolean() && s.get<bool>()) return "value";
        if (!s.is_object()) fail(path, "expected a schema, an object");
        if (s.contains("$ref")) {
            allow(s, path, {"$ref"});
            return node(target(s.at("$ref"), path), path + "/$ref");
        }
        for (const char *const key : {"anyOf", "oneOf", "allOf"})
            if (s.contains(key)) return combined(s, key, path, either);
        if (s.contains("enum") || s.contains("const")) return values(s, path);
        if (!s.contains("type")) return typed(s, implied(s), path);
        const json &type = s.at("type");
        if (!type.is_array()) return typed(s, type.is_string() ? type.get<std::string>() : "", path);
        return several(s, type, path, either);
    }

    const json &target(const json &ref, const std::string &path) const {
        if (!ref.is_string()) fail(path, "$ref: expected a string");
        const std::string text = ref.get<std::string>(), shown = "$ref: \"" + text.substr(0, 80) + "\" ";
        if (text != "#" && text.compare(0, 2, "#/") != 0) fail(path, shown + "does not point into the schema itself");
        const json *at = &root;
        for (size_t begin = 2; text.size() > 1 && begin <= text.size();) {
            const size_t end = std::min(text.find('/', begin), text.size());
            const std::string key = pointer_part(text.substr(begin, end - begin));
            const bool index =
                !key.empty() && key.size() < 6 && key.find_first_not_of("0123456789") == std::string::npos;
            if (at->is_object() && at->contains(key)) at = &at->at(key);
            else if (at->is_array() && index && std::stoul(key) < at->size()) at = &at->at(std::stoul(key));
            else fail(path, shown + "points to nothing");
            begin = end + 1;
        }
        return *at;
    }

    // RFC 6901: ~1 is a slash, ~0 a tilde; in a fragment %XX is a byte.
    static std::string pointer_part(const std::string &text) {
        std::string out;
        for (size_t i = 0; i < text.size(); i++) {
            const bool digits_follow = i + 2 < text.size() && std::isxdigit(static_cast<unsigned char>(text[i + 1])) &&
                                       std::isxdigit(static_cast<unsigned char>(text[i + 2]));
            if (text[i] == '%' && digits_follow) {
                out += static_cast<char>(std::stoul(text.substr(i + 1, 2), nullptr, 16));
                i += 2;
            } else if (text[i] == '~' && i + 1 < text.size() && (text[i + 1] == '0' || text[i + 1] == '1')) {
                out += text[++i] == '0' ? '~' : '/';
            } else {
                out += text[i];
            }
        }
        return out;
    }

    std::string combined(const json &s, const std::string &key, const std::string &path, words &either) {
        allow(s, path, {key});
        const json &list = s.at(key);
        if (!list.is_array() || list.empty()) fail(path, key + ": expected an array of schemas");
        if (key == "allOf" && list.size() > 1) fail(path, "allOf: expected one entry; more are not supported");
        for (size_t i = 0; i < list.size(); i++)
            either.push_back(node(list.at(i), path + "/" + key + "/" + std::to_string(i)));
        return joined(either);
    }

    static std::string joined(const words &either) {
        std::string body;
        for (const std::string &one : either) body += (body.empty() ? "" : " | ") + one;
        return body;
    }

    std::string several(const json &s, const json &types, const std::string &path, words &either) {
        words known = {"type"};
        for (size_t i = 0; i < types.size(); i++) {
            const words &more = keywords_of(types.at(i).is_string() ? types.at(i).get<std::string>() : "");
            known.insert(known.end(), more.begin(), more.end());
        }
        if (types.empty()) fail(path, "type: expected at least one");
        allow(s, path, known);
        for (size_t i = 0; i < types.size(); i++) {
            count_part(path);
            const std::string type = types.at(i).is_string() ? types.at(i).get<std::string>() : "";
            either.push_back(rules.add(body_of_type(s, type, path)));
        }
        return joined(either);
    }

    static std::string implied(const json &s) {
        for (const char *const type : {"object", "array", "string", "number"})
            for (const std::string &key : keywords_of(type))
                if (key != "type" && s.contains(key)) return type;
        return s.contains("format") ? "string" : "";
    }

    std::string typed(const json &s, const std::string &type, const std::string &path) {
        if (type.empty() && !s.contains("type")) {
            allow(s, path, {});
            return "value";
        }
        if (!keywords_of(type).empty()) allow(s, path, keywords_of(type));
        return body_of_type(s, type, path);
    }

    std::string body_of_type(const json &s, const std::string &type, const std::string &path) {
        if (type == "object") return object(s, path);
        if (type == "array") return array(s, path);
        if (type == "string") return string(s, path);
        if (type == "integer") return integer(s, path);
        if (type == "number") return number(s, path);
        if (type == "boolean" || type == "null") return type;
        fail(path, "type: expected object, array, string, number, integer, boolean or null, or an array of these");
    }

    // ------------------------------------------------------------------------------------------ values

    static bool is_of(const json &value, const std::string &type) {
        if (type == "integer") return value.is_number() && value.get<double>() == std::floor(value.get<double>());
        return (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
               (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
               (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
    }

    static bool has_type(const json &value, const json &type) {
        if (type.is_string()) return is_of(value, type.get<std::string>());
        for (size_t i = 0; type.is_array() && i < type.size(); i++)
            if (type.at(i).is_string() && is_of(value, type.at(i).get<std::string>())) return true;
        return false;
    }

    std::string values(const json &s, const std::string &path) {
        const bool listed = s.contains("enum"), single = s.contains("const");
        allow(s, path, {listed ? "enum" : "const", "const", "type"});
        if (listed && (!s.at("enum").is_array() || s.at("enum").empty()))
            fail(path, "enum: expected an array of values");
        const std::string only = single ? s.at("const").dump() : "";
        std::string body;
        for (size_t i = 0; i < (listed ? s.at("enum").size() : 1); i++) {
            count_part(path);
            const json &value = listed ? s.at("enum").at(i) : s.at("const");
            if ((s.contains("type") && !has_type(value, s.at("type"))) || (single && value.dump() != only)) continue;
            body += (body.empty() ? "" : " | ") + gbnf::literal(value.dump());
        }
        if (body.empty())
            fail(path, std::string(listed ? "enum" : "const") + ": no value has the type that is asked for");
        return body;
    }

    // Properties in order; one that is not required may be left out. From the last to the first: `next` begins with one
    // of those from i on, `behind` follows a property that stands before i.
    std::string object(const json &s, const std::string &path) {
        const json none = json::object();
        const json &properties = s.contains("properties") ? s.at("properties") : none;
        if (!properties.is_object()) fail(path, "properties: expected an object");
        const std::unordered_set<std::string> required = required_of(s, properties, path);
        if (properties.empty()) return map(s, path);

        words pairs;
        std::vector<bool> may_miss;
        for (const auto &entry : properties.items()) {
            const std::string name = entry.key();
            if (name.size() > PITH_SCHEMA_MAX_NAME)
                fail(path, "properties: expected names of at most " + std::to_string(PITH_SCHEMA_MAX_NAME) + " bytes");
            count_part(path);
            pairs.push_back(gbnf::literal(json::make(name).dump() + ":") + " space " +
                            node(entry.value(), path + "/properties/" + name));
            may_miss.push_back(required.count(name) == 0);
        }
        std::string next, behind = rules.add("space \"}\"");
        bool may_end = true;
        for (size_t i = pairs.size(); i-- > 0;) {
            next = rules.add(pairs[i] + " " + behind + (may_miss[i] && !next.empty() ? " | " + next : ""));
            may_end = may_end && may_miss[i];
            behind = rules.add("\",\" space " + next + (may_end ? " | space \"}\"" : ""));
        }
        return "\"{\" space " + (may_end ? rules.add("\"}\" | " + next) : next);
    }

    std::unordered_set<std::string> required_of(const json &s, const json &properties, const std::string &path) const {
        std::unordered_set<std::string> names;
        if (!s.contains("required")) return names;
        const json &list = s.at("required");
        if (!list.is_array()) fail(path, "required: expected an array of names");
        for (size_t i = 0; i < list.size(); i++) {
            if (!list.at(i).is_string()) fail(path, "required: expected an array of names");
            const std::string name = list.at(i).get<std::string>();
            if (!properties.contains(name))
                fail(path, "required: \"" + name.substr(0, 80) + "\" is not among the properties");
            names.insert(name);
        }
        return names;
    }

    // An object whose schema names no properties: all values are of one kind, or there are none.
    std::string map(const json &s, const std::string &path) {
        if (!s.contains("additionalProperties")) return "object";
        const json &value = s.at("additionalProperties");
        if (value.is_boolean()) return value.get<bool>() ? "object" : "\"{\" space \"}\"";
        const std::string one = rules.add("string \":\" space " + node(value, path + "/additionalProperties"));
        const std::string more = rules.repeat(rules.add("\",\" space " + one), 0, gbnf::endless);
        return "\"{\" space " + rules.add("\"}\" | " + one + " " + more + " space \"}\"");
    }

    std::string array(const json &s, const std::string &path) {
        const bool listed = s.contains("items") && s.at("items").is_array();
        if (s.contains("prefixItems") || listed) return tuple(s, listed ? "items" : "prefixItems", path);
        const uint32_t least = count(s, "minItems", path, gbnf::most_times, 0);
        const uint32_t most = count(s, "maxItems", path, gbnf::most_times, gbnf::endless);
        if (least > most) fail(path, "minItems: expected at most maxItems");
        const std::string one = s.contains("items") ? node(s.at("items"), path + "/items") : "value";
        if (most == 0) return "\"[\" space \"]\"";
        const uint32_t less = most == gbnf::endless ? most : most - 1;
        const std::string more = rules.repeat(rules.add("\",\" space " + one), least > 0 ? least - 1 : 0, less);
        const std::string filled = one + " " + more + " space \"]\"";
        return "\"[\" space " + rules.add(least > 0 ? filled : "\"]\" | " + filled);
    }

    std::string tuple(const json &s, const std::string &key, const std::string &path) {
        const json &list = s.at(key);
        if (!list.is_array()) fail(path, key + ": expected an array of schemas");
        const bool rest = key == "prefixItems" && s.contains("items");
        if (rest && !s.at("items").is_boolean()) fail(path, "items: expected true or false beside prefixItems");
        const uint32_t n = static_cast<uint32_t>(list.size());
        if (count(s, "minItems", path, gbnf::most_times, n) > n || count(s, "maxItems", path, gbnf::most_times, n) < n)
            fail(path, "minItems, maxItems: expected the number of " + key + ", which is " + std::to_string(n));
        std::string body = "\"[\" space ";
        for (uint32_t i = 0; i < n; i++)
            body += (i > 0 ? "\",\" space " : "") + node(list.at(i), path + "/" + key + "/" + std::to_string(i)) + " ";
        return body + "space \"]\"";
    }

    std::string string(const json &s, const std::string &path) {
        const bool bounded = s.contains("minLength") || s.contains("maxLength");
        if (s.contains("pattern")) {
            if (bounded) fail(path, "minLength and maxLength are not supported beside pattern");
            return matching(s.at("pattern"), path);
        }
        const std::string format = form_of(s, path);
        if (!format.empty() && bounded) fail(path, "minLength and maxLength are not supported beside this format");
        if (!format.empty()) return "\"\\\"\" " + format + " \"\\\"\"";
        if (!bounded) return "string";
        const uint32_t limit = 50 * gbnf::most_times;
        const uint32_t least = count(s, "minLength", path, limit, 0);
        const uint32_t most = count(s, "maxLength", path, limit, gbnf::endless);
        if (least > most) fail(path, "minLength: expected at most maxLength");
        std::string body = "\"\\\"\" " + characters(least, false);
        body += " " + (most == gbnf::endless ? rules.repeat("char", 0, most) : characters(most - least, true));
        return body + " \"\\\"\"";
    }

    // n characters, or up to n. Many are counted in blocks, of which a few may be left to count one by one.
    std::string characters(uint32_t n, bool fewer) {
        const uint32_t size = 100;
        if (n <= 2 * size) return rules.repeat("char", fewer ? 0 : n, n);
        const uint32_t blocks = n / size - 1, rest = n - blocks * size;
        return rules.repeat(rules.repeat("char", size, size), fewer ? 0 : blocks, blocks) + " " +
               rules.repeat("char", fewer ? 0 : rest, rest);
    }

    std::string matching(const json &pattern, const std::string &path) {
        if (!pattern.is_string()) fail(path, "pattern: expected a string");
        try {
            return "\"\\\"\" " + rules.add(pith::pattern_body(pattern.get<std::string>(), rules)) + " \"\\\"\"";
        } catch (const std::runtime_error &e) {
            fail(path, std::string("pattern: ") + e.what());
        }
    }

    static std::string form_of(const json &s, const std::string &path) {
        if (!s.contains("format")) return "";
        if (!s.at("format").is_string()) fail(path, "format: expected a string");
        const std::string format = s.at("format").get<std::string>();
        if (format == "date-time") return "date \"T\" time";
        return format == "date" || format == "time" || format == "uuid" ? format : "";
    }

    // ------------------------------------------------------------------------------------------ numbers

    // The nearest whole number inside, for integers; a bound of a `number` must be one. What has no 16 digits bounds
    // nothing that could be written.
    static long long whole(const json &s, const char *key, const std::string &path, bool rounds, bool up) {
        const json &value = s.at(key);
        if (!value.is_number()) fail(path, std::string(key) + ": expected a number");
        const double x = value.get<double>(), inside = up ? std::ceil(x) : std::floor(x);
        if (inside != x && !rounds)
            fail(path, std::string(key) + ": expected a whole number; others are not supported");
        if (std::fabs(x) > 1e16) return x < 0 ? -most_whole - 1 : most_whole + 1;
        return value.is_number_integer() ? value.get<long long>() : static_cast<long long>(inside);
    }

    static bool is_fraction(const json &value) {
        return value.is_number() && value.get<double>() != std::floor(value.get<double>());
    }

    interval interval_of(const json &s, const std::string &path, bool rounds) const {
        interval i = {-most_whole, most_whole, false, false};
        if (s.contains("minimum")) i.low = std::max(i.low, whole(s, "minimum", path, rounds, true));
        if (s.contains("maximum")) i.high = std::min(i.high, whole(s, "maximum", path, rounds, false));
        if (s.contains("exclusiveMinimum")) {
            const long long x = whole(s, "exclusiveMinimum", path, rounds, true);
            const bool open = !is_fraction(s.at("exclusiveMinimum"));
            if (x > i.low || (x == i.low && open)) i.low = x, i.open_low = open;
        }
        if (s.contains("exclusiveMaximum")) {
            const long long x = whole(s, "exclusiveMaximum", path, rounds, false);
            const bool open = !is_fraction(s.at("exclusiveMaximum"));
            if (x < i.high || (x == i.high && open)) i.high = x, i.open_high = open;
        }
        return i;
    }

    static bool has_bounds(const json &s) {
        return s.contains("minimum") || s.contains("maximum") || s.contains("exclusiveMinimum") ||
               s.contains("exclusiveMaximum");
    }

    std::string integer(const json &s, const std::string &path) {
        if (!has_bounds(s)) return "integer";
        interval i = interval_of(s, path, true);
        i.low += i.open_low, i.high -= i.open_high;
        if (i.low > i.high) fail(path, "no integer of 16 digits lies between the bounds");
        std::string body;
        if (i.high >= 0) body = rules.add(whole_range(rules, std::max(i.low, 0LL), i.high));
        if (i.low >= 0) return body;
        const std::string negative = "\"-\" " + rules.add(whole_range(rules, std::max(-i.high, 1LL), -i.low));
        return body.empty() ? negative : body + " | " + negative;
    }

    std::string number(const json &s, const std::string &path) {
        if (!has_bounds(s)) return "number";
        const interval i = interval_of(s, path, false);
        std::string positive, negative;
        if (i.low > i.high || i.low > most_whole || i.high < -most_whole)
            fail(path, "no number of 16 digits lies between the bounds");
        if (i.high >= 0)
            positive = decimals(rules, {std::max(i.low, 0LL), i.high, i.low >= 0 && i.open_low, i.open_high});
        if (i.low < 0)
            negative = decimals(rules, {std::max(-i.high, 0LL), -i.low, i.high >= 0 || i.open_high, i.open_low});
        if (positive.empty() && negative.empty()) fail(path, "no number of 16 digits lies between the bounds");
        if (negative.empty()) return positive;
        negative = "\"-\" " + rules.add(negative);
        return positive.empty() ? negative : positive + " | " + negative;
    }
};

// Brackets that are open at once, from the text alone: the parser's tree is walked by recursion.
void check_depth(const std::string &text) {
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.size(); i++) {
        const char c = text[i];
        if (quoted && c == '\\') i++;
        else if (c == '"') quoted = !quoted;
        else if (!quoted && (c == '{' || c == '[')) depth++;
        else if (!quoted && (c == '}' || c == ']') && depth > 0) depth--;
        if (depth > PITH_SCHEMA_MAX_DEPTH)
            fail("#", "expected at most " + std::to_string(PITH_SCHEMA_MAX_DEPTH) + " brackets inside each other");
    }
}

std::string grammar_of(const char *text, size_t bytes) {
    if (bytes > PITH_SCHEMA_MAX_BYTES)
        fail("#",
             "expected at most " + std::to_string(PITH_SCHEMA_MAX_BYTES) + " bytes, found " + std::to_string(bytes));
    const std::string source(text, bytes);
    check_depth(source);
    const json schema = json::parse_no_throw(source);
    if (schema.is_discarded()) fail("#", "it is not JSON");
    return converter(schema).run();
}

} // namespace

pith_schema_result pith_schema_grammar(const char *text, size_t bytes, char **out, char *error, size_t capacity) {
    *out = nullptr;
    try {
        const std::string grammar = grammar_of(text, bytes);
        *out = static_cast<char *>(std::malloc(grammar.size() + 1));
        if (!*out) return PITH_SCHEMA_NO_MEMORY;
        std::memcpy(*out, grammar.c_str(), grammar.size() + 1);
        return PITH_SCHEMA_OK;
    } catch (const std::bad_alloc &) {
        return PITH_SCHEMA_NO_MEMORY;
    } catch (const std::exception &e) {
        std::snprintf(error, capacity, "%s", e.what());
    } catch (...) {
        std::snprintf(error, capacity, "the schema cannot be read");
    }
    return PITH_SCHEMA_REFUSED;
}
