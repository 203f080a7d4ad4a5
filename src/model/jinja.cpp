#include "model/jinja.h"

#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using jinja::mk_val;

// How deep the parser and the runtime will recurse, from the tokens alone.
class depth_check {
  public:
    void run(const std::vector<jinja::token> &tokens) {
        for (size_t i = 0; i < tokens.size(); i++) {
            bool has_name = i + 1 < tokens.size() && tokens[i + 1].t == jinja::token::identifier;
            take(tokens[i].t, has_name ? tokens[i + 1].value : std::string());
        }
    }

  private:
    std::vector<unsigned> bodies; // open statements with a body, and how many levels each has
    unsigned levels = 0;          // their sum
    unsigned brackets = 0, in_tag = 0;

    void take(jinja::token::type type, const std::string &next) {
        using jinja::token;
        in_tag++;
        switch (type) {
        case token::open_statement:
            start_tag();
            statement(next);
            break;
        case token::open_expression: start_tag(); break;
        case token::open_paren:
        case token::open_square_bracket:
        case token::open_curly_bracket: brackets++; break;
        case token::close_paren:
        case token::close_square_bracket:
        case token::close_curly_bracket: brackets -= brackets > 0; break;
        default: break;
        }
        if (in_tag > PITH_JINJA_MAX_TAG) throw std::runtime_error("a tag of the template is too long");
        if (levels + brackets > PITH_JINJA_MAX_DEPTH) throw std::runtime_error("the template is nested too deeply");
    }

    void start_tag() { brackets = in_tag = 0; }

    void statement(const std::string &name) {
        if (name == "if" || name == "for" || name == "macro" || name == "call" || name == "filter") {
            bodies.push_back(1);
            levels++;
        } else if (name == "elif" && !bodies.empty()) { // is an if inside the else branch
            bodies.back()++;
            levels++;
        } else if ((name == "endif" || name == "endfor" || name == "endmacro" || name == "endcall" ||
                    name == "endfilter") &&
                   !bodies.empty()) {
            levels -= bodies.back();
            bodies.pop_back();
        }
    }
};

jinja::value text(const char *s) { return mk_val<jinja::value_string>(std::string(s)); }

void set_variables(jinja::context &context, const pith_jinja_input &in) {
    auto list = mk_val<jinja::value_array>();
    for (size_t i = 0; i < in.n_messages; i++) {
        auto message = mk_val<jinja::value_object>();
        message->insert("role", text(in.messages[i].role));
        message->insert("content", text(in.messages[i].content));
        list->push_back(message);
    }
    context.set_val("messages", list);
    context.set_val("bos_token", text(in.bos));
    context.set_val("eos_token", text(in.eos));
    context.set_val("add_generation_prompt", mk_val<jinja::value_bool>(true));
    context.set_val("enable_thinking", mk_val<jinja::value_bool>(true));
    context.current_time = static_cast<std::time_t>(in.now);
}

std::string render(const pith_jinja_input &in) {
    if (in.bytes > PITH_JINJA_MAX_BYTES) throw std::runtime_error("the template is too long");
    std::string source(in.source, in.bytes);
    jinja::lexer lexer;
    jinja::lexer_result tokens = lexer.tokenize(source);
    depth_check().run(tokens.tokens);
    jinja::program program = jinja::parse_from_tokens(tokens);
    jinja::context context(source);
    set_variables(context, in);
    jinja::runtime runtime(context);
    return jinja::runtime::gather_string_parts(runtime.execute(program))->as_string().str();
}

// The engine's messages have a picture of the source around their point: keep the point.
void set_error(const char *what, char *error, size_t capacity) {
    const char *last = what;
    for (const char *p = std::strstr(what, "Error: "); p; p = std::strstr(p, "Error: "))
        last = p += std::strlen("Error: ");
    while (*last == '\n' || *last == '-' || *last == ' ') last++;
    std::snprintf(error, capacity, "%s", last);
}

} // namespace

pith_jinja_result pith_jinja_render(const pith_jinja_input *input, char **out, char *error, size_t capacity) {
    *out = nullptr;
    try {
        std::string result = render(*input);
        *out = static_cast<char *>(std::malloc(result.size() + 1));
        if (!*out) return PITH_JINJA_NO_MEMORY;
        std::memcpy(*out, result.c_str(), result.size() + 1);
        return PITH_JINJA_OK;
    } catch (const std::bad_alloc &) {
        return PITH_JINJA_NO_MEMORY;
    } catch (const std::exception &e) {
        set_error(e.what(), error, capacity);
    } catch (...) { // a break outside a loop is thrown as something that is no std::exception
        std::snprintf(error, capacity, "the template fails");
    }
    return PITH_JINJA_FAILED;
}
