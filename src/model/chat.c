#include "model/chat.h"

#include "base/utf8.h"
#include "model/jinja.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static pith_status check_messages(const pith_message *messages, size_t n, pith_error *err) {
    if (n == 0) return pith_fail(err, PITH_E_ARG, "chat: expected at least one message");
    for (size_t i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content)
            return pith_fail(err, PITH_E_ARG, "chat: message %zu: expected a role and a content", i);
        size_t bytes = strlen(messages[i].content), valid = pith_utf8_valid(messages[i].content, bytes);
        if (valid != bytes)
            return pith_fail_at(err, PITH_E_FORMAT, valid, "chat: message %zu: not UTF-8: byte 0x%02x at %zu", i,
                                (uint8_t)messages[i].content[valid], valid);
        if (pith_utf8_valid(messages[i].role, strlen(messages[i].role)) != strlen(messages[i].role))
            return pith_fail(err, PITH_E_ARG, "chat: message %zu: the role is not UTF-8", i);
    }
    return PITH_OK;
}

pith_status pith_chat_apply_template(const char *name, pith_text source, const char *bos, const char *eos, int64_t now,
                                     const pith_message *messages, size_t n, char **out, pith_error *err) {
    *out = NULL;
    pith_status status = check_messages(messages, n, err);
    if (status != PITH_OK) return status;
    if (pith_utf8_valid(source.at, source.length) != source.length)
        return pith_fail(err, PITH_E_FORMAT, "%s: the chat template is not UTF-8", name);
    pith_jinja_input input = {source.at, source.length, bos, eos, now, messages, n};
    char line[200];
    switch (pith_jinja_render(&input, out, line, sizeof line)) {
    case PITH_JINJA_OK: return PITH_OK;
    case PITH_JINJA_NO_MEMORY: return pith_fail(err, PITH_E_MEMORY, "%s: no memory to render the chat template", name);
    case PITH_JINJA_FAILED: break;
    }
    return pith_fail(err, PITH_E_FORMAT, "%s: chat template: %s", name, line);
}

pith_status pith_chat_apply(const pith_gguf *gguf, const pith_vocab *vocab, const pith_message *messages, size_t n,
                            char **out, pith_error *err) {
    *out = NULL;
    pith_text source;
    pith_status status = pith_gguf_text(gguf, PITH_CHAT_KEY, false, &source, err);
    if (status != PITH_OK) return status;
    if (!source.at) return pith_fail(err, PITH_E_UNSUPPORTED, "%s: the model has no chat template", gguf->path);
    return pith_chat_apply_template(gguf->path, source, pith_vocab_bos_name(vocab), pith_vocab_eos_name(vocab),
                                    (int64_t)time(NULL), messages, n, out, err);
}

void pith_text_free(char *text) { free(text); }
