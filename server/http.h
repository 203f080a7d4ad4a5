// HTTP on libmicrohttpd: connections, bodies, replies, and answers that come from a job.
//
// libmicrohttpd's threads call a route's handler when a request is complete. A handler replies, or follows a job: then
// the connection sleeps until the job has news. Nothing here waits for the loop.
#ifndef PITH_SERVER_HTTP_H
#define PITH_SERVER_HTTP_H

#include "server/job.h"
#include "server/keys.h"
#include "server/metrics.h"

typedef struct http http;
typedef struct exchange exchange; // one request and its reply

typedef struct http_route {
    const char *method; // "GET" serves HEAD too
    const char *path;   // ends with '*': everything that begins so
    bool open;          // needs no key
    void (*handle)(void *ctx, exchange *e);
} http_route;

typedef struct http_params {
    const char *host;      // name or address to listen at
    uint16_t port;         // 0: one that is free
    uint32_t timeout;      // seconds without a byte after which a connection is closed
    uint32_t request_time; // seconds to a whole request, from the connection's opening or the answer before
    uint32_t max_connections;
    size_t max_body;  // bytes
    const char *cors; // origin of pages of others that may ask, "*" for all; NULL: none
    const keys *keys;
    const http_route *routes; // (n_routes)
    size_t n_routes;
    void *ctx; // of the handlers
    metrics *counts;
} http_params;

// Listens and starts. Everything in `params` is borrowed and must outlive the server.
pith_status http_start(const http_params *params, http **out, pith_error *err);
uint16_t http_port(const http *h);

// Lets replies that have begun go out, for `seconds` at most, and ends. Jobs must be finished: a connection that sleeps
// on one that is not would never end.
void http_stop(http *h, double seconds);

// For handlers.
const char *http_body(const exchange *e, size_t *n); // terminated
const char *http_path(const exchange *e);
void http_reply(exchange *e, int status, const char *type, const char *bytes, size_t n); // copies
void http_reply_json(exchange *e, int status, json_t *value);                            // drops `value`
void http_refuse(exchange *e, const refusal *no);
// Before the job is handed to the loop: it will wake this exchange, and knows its client.
void http_attach(exchange *e, job *j);
// The reply is the job's answer. The exchange takes over the caller's reference.
void http_follow(exchange *e, job *j);

#endif
