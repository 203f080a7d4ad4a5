// The whole server: a model, an engine in its loop, and HTTP in front.
#ifndef PITH_SERVER_SERVER_H
#define PITH_SERVER_SERVER_H

#include "pith.h"

typedef struct server server;

typedef struct server_params {
    const char *model; // path of a GGUF file
    const char *alias; // what clients call it; NULL: the model's own name
    const char *host;
    uint16_t port;        // 0: one that is free
    const char *policy;   // canonical spec for requests that name none
    const char *key_file; // NULL: everybody may ask
    const char *cors;     // NULL: no page of another origin
    pith_engine_params engine;
    uint32_t max_new;      // of requests that do not say
    uint32_t max_waiting;  // requests in the queue
    uint32_t timeout;      // seconds without a byte before a connection is closed
    uint32_t request_time; // seconds to a whole request, from the connection's opening or the answer before
    uint32_t max_connections;
    size_t max_body;          // bytes
    float temperature, top_p; // of requests that do not say
} server_params;

// What a server is doing, for people.
typedef struct server_info {
    char url[128];
    char name[128];
    pith_model_info model;
    pith_engine_info engine;
    uint64_t sequence_bytes; // cache of an answer of max_new tokens at the default policy, at most
    uint64_t full_bytes;     // the same with everything kept
} server_info;

// Loads and listens; answers from then on, on threads of its own. Strings of `params` are borrowed until server_stop.
pith_status server_start(const server_params *params, server **out, pith_error *err);
void server_describe(const server *s, server_info *out);

// Refuses new requests (503), lets what was accepted go on for `grace` seconds at most, and frees everything. True:
// every answer came to its own end.
bool server_stop(server *s, double grace);

#endif
