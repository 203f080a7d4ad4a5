// JSON schemas as grammars. The border in C to schema.cpp: everything that is thrown there ends here.
//
// What the grammar accepts satisfies the schema and is JSON that every parser takes; a schema that cannot be kept to
// the letter is refused, as is a keyword that nobody knows here. Where a schema leaves open how, the grammar is the
// narrower one:
//
//   objects   name their properties in the order of the schema and have no others, unless the schema names none
//   oneOf     is read as anyOf; allOf may have one entry
//   numbers   have 16 digits at most, bounds of a `number` are whole
//   strings   of the formats date, time, date-time and uuid have that form; other formats are not looked at
//   pattern   see pattern.h
//   $ref      points into the schema itself, and may point back to where it stands
//
// llama.cpp's converter (json-schema-to-grammar) is not in use: it drops what it does not know, its patterns and
// further properties can break out of their strings, and it has no bounds on work.
#ifndef PITH_MODEL_SCHEMA_H
#define PITH_MODEL_SCHEMA_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PITH_SCHEMA_MAX_BYTES (256u << 10)
#define PITH_SCHEMA_MAX_DEPTH 64u   // of brackets in the text, and of schemas inside each other, $refs followed
#define PITH_SCHEMA_MAX_PARTS 2000u // schemas, properties, alternatives and enum values
#define PITH_SCHEMA_MAX_NAME 256u   // bytes of a property's name

typedef enum pith_schema_result {
    PITH_SCHEMA_OK,
    PITH_SCHEMA_REFUSED, // `error` says where and why
    PITH_SCHEMA_NO_MEMORY,
} pith_schema_result;

// The grammar of a schema, terminated, of C's malloc; its start is the rule "root". *out is NULL on failure, and
// `error` (capacity bytes) holds one line.
pith_schema_result pith_schema_grammar(const char *json, size_t bytes, char **out, char *error, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
