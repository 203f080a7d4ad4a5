// Pith: reasoning language models on a KV cache that is compressed while the model thinks.
//
// Three objects. A *model* is a GGUF file, immutable once loaded and shared by everything that runs on it. An
// *engine* owns a backend, a pool of cache pages with a byte budget, and the sequences that take their steps
// together. A *sequence* is one timeline of tokens with its own cache lanes, compression policy and sampler.
//
// Threads: a model may be shared by engines on different threads. An engine and its sequences belong to one thread
// at a time; nothing here locks.
//
// Errors: every call that can fail returns a pith_status and fills `err` when that is not NULL. After a failure the
// arguments are unchanged unless the call says otherwise, and result pointers are set to NULL.
//
// The library never prints, never exits, and keeps no globals of its own. ggml and libllama have one process-wide log
// callback; pith_model_load sets it so that neither of them prints either.
#ifndef PITH_H
#define PITH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PITH_VERSION "0.1.0"

// ---------------------------------------------------------------------------------------------------- errors

typedef enum pith_status {
    PITH_OK = 0,
    PITH_E_IO,          // a file cannot be opened, read or written
    PITH_E_FORMAT,      // a file is damaged or not what it claims to be
    PITH_E_UNSUPPORTED, // well formed, but outside what this build runs
    PITH_E_ARG,         // an argument is out of range or malformed (usage)
    PITH_E_MEMORY,      // not enough memory: of the host, or of the cache budget
    PITH_E_CONTEXT,     // more tokens than the context holds
    PITH_E_STATE,       // the call does not fit the object's state
    PITH_E_DEVICE,      // a device failed; what was computed on it is lost, and so is the engine
} pith_status;

typedef struct pith_error {
    pith_status status;
    uint64_t offset; // byte offset into the input that is at fault, 0 where there is none
    char msg[400];   // one line, no newline: what was given, what was expected, what was found
} pith_error;

// A constant, lower-case name such as "out of memory". Never NULL.
const char *pith_status_name(pith_status status);

// ------------------------------------------------------------------------------------------------ allocation

// Where our own memory comes from. `alloc` returns zero-filled memory aligned to at least 64 bytes, or NULL.
// `release` gets the size that was asked for. NULL in place of a pith_allocator means the C library's.
// ggml and libllama allocate for themselves and are not covered.
typedef struct pith_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t bytes);
    void (*release)(void *ctx, void *p, size_t bytes);
} pith_allocator;

// ----------------------------------------------------------------------------------------------------- model

typedef int32_t pith_token;
typedef struct pith_model pith_model;

typedef struct pith_model_info {
    char name[96];         // general.name, or the file's name
    char architecture[16]; // "qwen2", "qwen3", "llama"
    uint32_t n_layers;
    uint32_t n_heads;    // query heads
    uint32_t n_kv_heads; // key and value heads
    uint32_t head_dim;
    uint32_t d_model;
    uint32_t d_ff;
    uint32_t n_vocab;
    uint32_t n_ctx;        // positions the model was trained on, after its rope scaling
    uint64_t n_parameters; // elements of all tensors
    uint64_t weight_bytes; // bytes of all tensors in the file
    uint64_t step_bytes;   // of these, what a decode step reads whatever its batch: not the embedding, unless it is the
                           // output matrix too
    bool has_chat_template;
} pith_model_info;

// Maps the GGUF file at `path`. Everything that could make a later call abort is checked first: PITH_E_FORMAT and
// PITH_E_UNSUPPORTED name the file, the key or tensor, what was expected and what was found. `alloc` is borrowed and
// must outlive the model.
pith_status pith_model_load(const char *path, const pith_allocator *alloc, pith_model **out, pith_error *err);

// The hyper-parameters of a model without a file.
typedef struct pith_model_shape {
    const char *name;         // "r1-distill-qwen-7b"
    const char *architecture; // "qwen2", "qwen3", "llama"
    uint32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, n_vocab, n_ctx; // as in pith_model_info
    float rope_base;
    float rms_eps;
    bool tied;      // the embedding is the output matrix too
    bool llama3;    // Llama 3.1's scaling of the rotary frequencies
} pith_model_shape;

// The shapes that are known by name; NULL past the last one, or for another name.
const pith_model_shape *pith_model_shape_at(size_t i);
const pith_model_shape *pith_model_shape_find(const char *name);

// A model of that shape with random weights, to measure speed and memory with: it has no vocabulary (pith_tokenize and
// pith_chat_render say so, no token has text or ends a generation). `type` is that of the matrices: "f32", "f16",
// "bf16", "q8_0", "q4_0", "q5_0", "q4_k", "q6_k", or "q4_k_m", the mix that llama.cpp makes; rows that blocks of 256 do
// not fit get the types it falls back to. The same seed gives the same weights. For the device "cpu" (or NULL) they are
// made now, in memory of the model's own; for another one its engine makes them. The shape's name is copied. PITH_E_ARG
// for an unknown type or sizes that do not fit each other, PITH_E_MEMORY when the host cannot hold the weights: how many
// bytes they are and how many there are.
pith_status pith_model_from_shape(const pith_model_shape *shape, const char *type, uint64_t seed, const char *device,
                                  const pith_allocator *alloc, pith_model **out, pith_error *err);

void pith_model_free(pith_model *model); // NULL is allowed; all engines on it must be gone
void pith_model_describe(const pith_model *model, pith_model_info *out);

enum {
    PITH_TOKENS_SPECIAL = 1, // names of control tokens inside the text become those tokens: for the output of a chat
                             // template, never for text of a stranger alone
    PITH_TOKENS_BEGIN = 2,   // the text begins a timeline: a begin-of-sequence token comes first when the model wants one
                             // and the text does not begin with its name
};

// Splits UTF-8 text into tokens. Writes at most `capacity` of them; `*n` is the number needed, also when that is more
// than `capacity` (then PITH_E_ARG). PITH_E_FORMAT when the text is not UTF-8, with the offset.
pith_status pith_tokenize(const pith_model *model, const char *text, size_t bytes, int flags, pith_token *out,
                          size_t capacity, size_t *n, pith_error *err);

// The bytes of one token, not terminated; may be part of a UTF-8 character. Control tokens give their name only with
// `special`, else nothing. Returns the number of bytes, 0 for none or for an id outside the vocabulary; when that is more
// than `capacity`, nothing was written.
size_t pith_token_text(const pith_model *model, pith_token token, bool special, char *out, size_t capacity);
bool pith_token_ends(const pith_model *model, pith_token token); // an end-of-generation token?

typedef struct pith_message {
    const char *role;    // "system", "user", "assistant"
    const char *content; // UTF-8
} pith_message;

// Renders messages with the model's own Jinja template, ready for the assistant's turn (a forced "<think>" included,
// where the template has one). The result is owned by the caller: pith_text_free. PITH_E_UNSUPPORTED when the model has
// no template, PITH_E_FORMAT when the template does not parse or raises.
pith_status pith_chat_render(const pith_model *model, const pith_message *messages, size_t n, char **out,
                             pith_error *err);
void pith_text_free(char *text);

// ------------------------------------------------------------------------------------------------- grammars

// Which tokens may come next in an answer that is to be JSON, or to satisfy a JSON schema. It follows the answer token
// by token; what it lets through is JSON that every parser takes, however improbable the model finds it. A caller draws
// from pith_sequence_logits, asks pith_grammar_allows, draws again from a mask when the answer is no, gives the token to
// pith_sequence_force, and to pith_grammar_accept.
//
// A grammar and its clones belong to one thread at a time, all together.
typedef struct pith_grammar pith_grammar;

// `schema`: `bytes` bytes of a JSON schema; NULL: any JSON object. What is understood of schemas: docs/structured.md.
// PITH_E_FORMAT for what is not a schema, or one that cannot be kept to the letter: where it is wrong, in one line.
// PITH_E_UNSUPPORTED for one that cannot be followed, or a model without a vocabulary. The model must outlive it.
pith_status pith_grammar_new(const pith_model *model, const char *schema, size_t bytes, pith_grammar **out,
                             pith_error *err);
pith_status pith_grammar_clone(const pith_grammar *grammar, pith_grammar **out, pith_error *err); // from where it stands
void pith_grammar_free(pith_grammar *grammar); // NULL is allowed

// May `token` come next? End-of-generation tokens may when the answer is complete, other control tokens never.
bool pith_grammar_allows(const pith_grammar *grammar, pith_token token);

// Sets the logits (n_vocab) of all tokens that may not come next to -INFINITY. `*n_left` gets the number of others.
pith_status pith_grammar_mask(const pith_grammar *grammar, float *logits, uint32_t *n_left, pith_error *err);

// `token` has come. PITH_E_ARG, and nothing has changed, when it may not; PITH_E_UNSUPPORTED when the schema is so
// ambiguous that it cannot be followed any further: then nothing may come next.
pith_status pith_grammar_accept(pith_grammar *grammar, pith_token token, pith_error *err);

bool pith_grammar_done(const pith_grammar *grammar); // the answer is complete, and nothing but its end may come next

// ---------------------------------------------------------------------------------------------------- engine

// AUTO: f16 on a CPU; on a GPU bf16, or f16 for a model whose matrices are all f16. A CPU has f16 and f32, a GPU f16 and
// bf16.
typedef enum pith_kv_type { PITH_KV_AUTO, PITH_KV_F16, PITH_KV_F32, PITH_KV_BF16 } pith_kv_type;

typedef struct pith_engine pith_engine;

typedef struct pith_engine_params {
    const char *device; // "cpu", "cuda" or "cuda:N" (the N-th GPU, from 0); NULL means "cpu"
    uint32_t n_threads; // at most; 0: as many as affinity and cgroup allow. On a GPU: for loading weights
    pith_kv_type kv_type;
    uint64_t kv_budget_bytes;     // the page pool's size, 0: half of the memory that is available, on a GPU what the
                                  // weights leave; never more than `max_sequences` full contexts need
    uint32_t n_ctx;               // most tokens of one sequence, 0: the model's
    uint32_t max_sequences;       // most sequences alive at once, >= 1
    uint32_t chunk;               // prefill chunk in tokens, a multiple of 64; 0: the default, 256
    bool spread_compressions;     // at most one sequence in eight (and one anyway) is compressed in a step, others that are
                                  // due sit out meanwhile; changes no result, but the step in which a row goes
    bool share_prefixes;          // keep the rows of prompts' whole chunks, while nobody needs their pages, for later
                                  // sequences that begin with the same tokens; changes no result
    const pith_allocator *alloc;  // borrowed, must outlive the engine
} pith_engine_params;

void pith_engine_params_init(pith_engine_params *params); // the defaults: one sequence, the rest 0

pith_status pith_engine_new(const pith_model *model, const pith_engine_params *params, pith_engine **out,
                            pith_error *err);
void pith_engine_free(pith_engine *engine); // frees its sequences too

typedef struct pith_engine_info {
    uint32_t n_threads;       // most threads a step may use
    uint32_t n_ctx;           // most tokens of one sequence
    uint32_t page_rows;       // rows in a page
    uint64_t page_bytes;      // bytes of a page: K, V and positions of one KV head
    uint64_t pool_bytes;      // the budget, a whole number of pages
    uint64_t pool_used_bytes; // pages with at least one owner, now
    uint64_t row_bytes;       // K, V and positions of one token over all lanes
    uint64_t prefix_bytes;    // of pool_used_bytes, pages that are kept for prompts to come, and perhaps by sequences too
    char device[64];          // "cpu", or the GPU's name
    char isa[16];             // level of our own kernels: "avx512", "avx2", "neon", "portable"; "sm_90"
    pith_kv_type kv_type;     // never AUTO
    uint64_t device_bytes_used;  // memory of the GPU in use by everyone, as its driver counts it; 0 on a CPU
    uint64_t device_bytes_total; // that it has; 0 on a CPU
    double read_bytes_per_second; // of its memory, where the backend has measured it; else 0
    char note[120];           // what loading did to the weights, worth a line to people; else ""
} pith_engine_info;

void pith_engine_describe(const pith_engine *engine, pith_engine_info *out);

// -------------------------------------------------------------------------------------------------- sequence

typedef struct pith_sequence pith_sequence;

typedef struct pith_sampling {
    float temperature; // 0: greedy, lowest id on ties
    uint32_t top_k;    // 0: off
    float top_p;       // 1: off
    float min_p;       // 0: off
    uint64_t seed;
    uint64_t stream; // draws are keyed by (seed, stream, index of the token): sample i of a prompt is stream i
} pith_sampling;

typedef struct pith_sequence_params {
    const char *policy; // spec string such as "rpc:p=1024"; NULL: "full"
    pith_sampling sampling;
    uint32_t max_new;   // most tokens generated per turn, >= 1
    bool ignore_end;    // go on past end-of-generation tokens
} pith_sequence_params;

void pith_sequence_params_init(pith_sequence_params *params); // temperature 0.6, top-p 0.95, 4096 tokens, "full"

// Checks a policy spec without making anything. `canonical`, when not NULL, gets it with every default filled in.
pith_status pith_policy_check(const char *spec, char *canonical, size_t capacity, pith_error *err);

// Bytes of cache that a sequence of this policy holds at most, prompt included: the number that admission uses,
// computed by the code that allocates. PITH_E_ARG for a bad spec.
pith_status pith_peak_bytes(const pith_engine *engine, const char *policy, uint32_t n_prompt, uint32_t max_new,
                            uint64_t *bytes, pith_error *err);

// A sequence without tokens; it holds no pages yet. PITH_E_STATE when max_sequences are alive.
pith_status pith_sequence_new(pith_engine *engine, const pith_sequence_params *params, pith_sequence **out,
                              pith_error *err);
void pith_sequence_free(pith_sequence *seq); // its pages are in the pool when this returns; NULL is allowed

// Adds a turn: n >= 1 tokens that are protected as prompt, to be prefilled by the next steps, then up to `max_new`
// generated ones. Reserves the worst case of the whole turn, so that steps never lack cache; PITH_E_MEMORY says
// how many bytes that is and how many there are, PITH_E_CONTEXT when it would pass n_ctx, PITH_E_STATE while the
// sequence is still generating.
pith_status pith_sequence_prompt(pith_sequence *seq, const pith_token *tokens, size_t n, pith_error *err);

// Prepares `seq` for a history of n tokens, by the longest prefix whose rows are still what a fresh run would have:
// all cached tokens when the history extends them, else the prompt tokens that precede the first difference and the
// first generated token. `*n_kept` is that prefix's length; the caller passes the rest to pith_sequence_prompt.
pith_status pith_sequence_rewind(pith_sequence *seq, const pith_token *history, size_t n, size_t *n_kept,
                                 pith_error *err);

// A new sequence that shares the pages of `seq`, whose prompt has been prefilled and which has not generated since
// (PITH_E_STATE otherwise). It draws its first token itself, with `params`, which must name the policy of `seq`.
pith_status pith_sequence_fork(pith_sequence *seq, const pith_sequence_params *params, pith_sequence **out,
                               pith_error *err);

typedef enum pith_phase {
    PITH_IDLE,    // wants a prompt
    PITH_PREFILL, // prompt tokens wait
    PITH_READY,   // prefilled; the next step draws the first token
    PITH_DECODE,  // generating
    PITH_STOPPED, // ended by itself: an end-of-generation token (kept as the last token)
    PITH_LENGTH,  // ended at max_new or at n_ctx
} pith_phase;

typedef struct pith_sequence_info {
    pith_phase phase;
    uint32_t n_tokens;      // tokens of the timeline: prompts and generated
    uint32_t n_prompt;      // of these, given as prompts
    uint32_t n_turn_prompt; // given as this turn's prompt
    uint32_t n_shared;      // of the first prompt, not read but taken over from an earlier sequence
    uint32_t n_generated;   // generated in this turn
    uint32_t n_waiting;     // prompt tokens not yet prefilled
    uint32_t n_compressions; // events so far, over all turns
    uint32_t rows;          // rows of the longest lane, now
    uint32_t rows_peak;     // the most it ever was
    uint32_t rows_full;     // what it would be without compression
    uint64_t bytes;         // pages held over all lanes, shared ones included
    uint64_t bytes_peak;
    uint64_t bytes_full;    // pages of a full cache at the same length
    double prefill_ms;      // this turn's wall time in prefill
    double decode_ms;       // this turn's wall time in steps it decoded in, compression included
    double compress_ms;     // of that, inside its own compressions; on a GPU what asking for them took
} pith_sequence_info;

void pith_sequence_describe(const pith_sequence *seq, pith_sequence_info *out);

// The timeline's tokens, valid until the next call on the engine. `*n` gets their number.
const pith_token *pith_sequence_tokens(const pith_sequence *seq, size_t *n);

// Ends a running turn where it is (for instance when a reader goes away): the phase becomes PITH_STOPPED, prompt tokens
// that were not read yet are forgotten. Does nothing between turns.
void pith_sequence_stop(pith_sequence *seq);

// One step: a token for every sequence in PITH_READY or PITH_DECODE, the compressions that are due, then at most one chunk of
// prefill. With spread_compressions some of those that are due wait, and their sequences then get no token in some steps.
// `*n_active` is the number of sequences that still have work. Order and neighbours change no result.
// Decoding allocates no memory of ours; a chunk of a new length may, and answers PITH_E_MEMORY when there is none (the
// cache's memory was promised before): the step can then be repeated.
pith_status pith_engine_step(pith_engine *engine, uint32_t *n_active, pith_error *err);

// Logits from which the sequence's next token will be drawn, (n_vocab), valid until the next step; NULL when none will.
// For tests and for callers that sample themselves together with pith_sequence_force.
const float *pith_sequence_logits(const pith_sequence *seq);

// The next step takes `token` in place of a drawn one (teacher forcing). PITH_E_STATE when it draws none (another
// phase than PITH_READY and PITH_DECODE, or it waits for its compression), PITH_E_ARG outside the vocabulary.
pith_status pith_sequence_force(pith_sequence *seq, pith_token token, pith_error *err);

// ---------------------------------------------------------------------------------------------------- events

typedef struct pith_compress_event {
    const pith_sequence *seq;
    uint32_t step;        // generated tokens in the timeline when it fired
    uint32_t layer;
    int32_t head;         // KV head, or -1 when one set serves the layer
    uint32_t rows_before;
    uint32_t rows_after;
    const int32_t *kept;  // (rows_after) logical positions, ascending; valid during the call
} pith_compress_event;

// Called from pith_engine_step for each layer (and KV head) that is compressed; NULL turns it off.
typedef void (*pith_event_fn)(void *ctx, const pith_compress_event *event);
void pith_engine_on_compress(pith_engine *engine, pith_event_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
