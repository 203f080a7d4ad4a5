// A GGUF file, walked and checked from the first byte to the last before any library sees it.
//
// The format (all numbers little-endian; ggml's gguf.h has the same grammar):
//
//     file     = "GGUF" version:u32 n_tensors:u64 n_keys:u64 key* info* padding data
//     key      = name:string type:u32 value
//     value    = a number of the type | string | item_type:u32 n:u64 number-or-string*   (no arrays of arrays)
//     string   = length:u64 bytes, not terminated
//     info     = name:string n_dims:u32 ne:u64[n_dims] type:u32 offset:u64   (ne[0] is contiguous; offset in data)
//
// `padding` aligns data to general.alignment (32 unless given); the tensors follow each other in the order of their
// infos, each padded to it. Versions 2 and 3 differ in nothing but the byte order that they allow.
//
// What is checked is what ggml and libllama would refuse, throw or abort on, and a little more: counts, lengths, names
// (printable ASCII, no duplicates), types, shapes, whole blocks, offsets, every byte inside the file. Work and memory
// are proportional to the file's header, whatever its counts claim.
#ifndef PITH_MODEL_GGUF_H
#define PITH_MODEL_GGUF_H

#include "model/nameset.h"
#include "ops/ops.h"

// Types of values, as numbered in the file.
typedef enum pith_gguf_type {
    PITH_GGUF_U8,
    PITH_GGUF_I8,
    PITH_GGUF_U16,
    PITH_GGUF_I16,
    PITH_GGUF_U32,
    PITH_GGUF_I32,
    PITH_GGUF_F32,
    PITH_GGUF_BOOL,
    PITH_GGUF_STRING,
    PITH_GGUF_ARRAY,
    PITH_GGUF_U64,
    PITH_GGUF_I64,
    PITH_GGUF_F64,
    PITH_GGUF_N_TYPES,
} pith_gguf_type;

// Bounds above anything real, so that hostile counts stay cheap for us and for ggml, whose search for duplicates is
// quadratic.
#define PITH_GGUF_MAX_KEYS 4096u
#define PITH_GGUF_MAX_TENSORS 16384u
#define PITH_GGUF_MAX_KEY_BYTES 255u
#define PITH_GGUF_MAX_LENGTH (1u << 30) // bytes of a string, elements of an array: ggml's own bound
#define PITH_GGUF_MAX_NAME_BYTES 63u    // of a tensor: ggml's GGML_MAX_NAME less the terminator

typedef struct pith_gguf_value {
    pith_gguf_type type;
    pith_gguf_type item; // of an array's elements; else the same as type
    uint64_t n;          // elements of an array, else 1
    const uint8_t *data; // first element, not aligned; a string's length comes first
    const char *key;     // not terminated
    uint32_t key_length;
} pith_gguf_value;

typedef struct pith_gguf {
    const pith_allocator *alloc;
    const char *path; // borrowed; names the file in messages (its tail, when it is long)
    const uint8_t *base;
    size_t bytes;
    uint32_t alignment; // of tensor data: a power of two, at least 32
    uint32_t n_values;
    pith_gguf_value *values; // (n_values), in the file's order
    uint32_t n_tensors;
    pith_weight *tensors;                        // (n_tensors), in the file's order; ne of missing dimensions is 1
    char (*names)[PITH_GGUF_MAX_NAME_BYTES + 1]; // (n_tensors) what the tensors' `name` points to
    pith_nameset index;                          // of tensor names
    uint64_t data_offset;                        // where tensor data begins
} pith_gguf;

// Checks the `bytes` bytes at `base`, which stay borrowed until pith_gguf_free. `path` is for messages. PITH_E_FORMAT
// with the offset of the first fault, PITH_E_UNSUPPORTED for a version, alignment or tensor type that this build does
// not read, PITH_E_MEMORY. On failure nothing is left to free.
pith_status pith_gguf_check(const uint8_t *base, size_t bytes, const char *path, const pith_allocator *alloc,
                            pith_gguf *out, pith_error *err);
void pith_gguf_free(pith_gguf *gguf); // a zeroed one is allowed

// ------------------------------------------------------------------------------------------------ metadata

const pith_gguf_value *pith_gguf_find(const pith_gguf *gguf, const char *key); // NULL when there is none

// Read one value of exactly that type. A missing key is PITH_E_FORMAT when it is `required`, else *value stays as it
// is; another type is PITH_E_FORMAT.
pith_status pith_gguf_u32(const pith_gguf *, const char *key, bool required, uint32_t *value, pith_error *);
pith_status pith_gguf_f32(const pith_gguf *, const char *key, bool required, float *value, pith_error *);
pith_status pith_gguf_bool(const pith_gguf *, const char *key, bool required, bool *value, pith_error *);

// Bytes inside the file, not terminated.
typedef struct pith_text {
    const char *at; // NULL when the key is missing
    uint32_t length;
} pith_text;
pith_status pith_gguf_text(const pith_gguf *, const char *key, bool required, pith_text *value, pith_error *);
bool pith_text_is(pith_text text, const char *literal);

// Numbers of an array, by index; the caller has checked item and n.
uint32_t pith_gguf_u32_at(const pith_gguf_value *, uint64_t i);

// Takes the next string of an array: *at starts as value->data and moves past it.
pith_text pith_gguf_next_text(const uint8_t **at);

const char *pith_gguf_type_name(pith_gguf_type type); // "u32", "string", ...

// ------------------------------------------------------------------------------------------------- tensors

// Index of the tensor with that name, or PITH_NAME_NONE.
uint32_t pith_gguf_tensor(const pith_gguf *gguf, const char *name);

#endif
