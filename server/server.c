#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "server/inside.h"

enum { FLUSH_SECONDS = 2 }; // for replies that have begun, once every answer has ended

static void release(server *s) {
    pith_engine_free(s->engine);
    pith_model_free(s->model);
    metrics_destroy(&s->counts);
    free(s);
}

static pith_status open_engine(server *s, pith_error *err) {
    const server_params *p = &s->params;
    pith_status status = p->key_file ? keys_read(&s->keys, p->key_file, err) : PITH_OK;
    if (status == PITH_OK) status = pith_model_load(p->model, NULL, &s->model, err);
    if (status == PITH_OK) status = pith_engine_new(s->model, &p->engine, &s->engine, err);
    if (status != PITH_OK) return status;
    pith_model_describe(s->model, &s->model_info);
    pith_engine_describe(s->engine, &s->engine_info);
    snprintf(s->name, sizeof s->name, "%s", p->alias ? p->alias : s->model_info.name);
    const uint32_t most = p->engine.max_sequences;
    s->defaults = (request_defaults){.temperature = p->temperature,
                                     .top_p = p->top_p,
                                     .n_vocab = s->model_info.n_vocab,
                                     .most_choices = most < REQUEST_CHOICES ? most : REQUEST_CHOICES};
    return PITH_OK;
}

static pith_status listen_to(server *s, pith_error *err) {
    const server_params *p = &s->params;
    const http_params wanted = {.host = p->host,
                                .port = p->port,
                                .timeout = p->timeout,
                                .request_time = p->request_time,
                                .max_connections = p->max_connections,
                                .max_body = p->max_body,
                                .cors = p->cors,
                                .keys = &s->keys,
                                .routes = api_routes,
                                .n_routes = api_n_routes,
                                .ctx = s,
                                .counts = &s->counts};
    return http_start(&wanted, &s->http, err);
}

pith_status server_start(const server_params *params, server **out, pith_error *err) {
    *out = NULL;
    server *s = calloc(1, sizeof *s);
    if (!s) return pith_fail(err, PITH_E_MEMORY, "no memory for the server");
    s->params = *params, s->started = (int64_t)time(NULL);
    metrics_init(&s->counts);
    pith_status status = open_engine(s, err);
    const loop_params batch = {params->policy, params->max_new, params->engine.max_sequences, params->max_waiting};
    if (status == PITH_OK) status = loop_start(s->model, s->engine, &batch, &s->counts, &s->loop, err);
    if (status == PITH_OK) status = listen_to(s, err);
    if (status == PITH_OK) return *out = s, PITH_OK;
    loop_stop(s->loop);
    release(s);
    return status;
}

void server_describe(const server *s, server_info *out) {
    *out = (server_info){.model = s->model_info, .engine = s->engine_info};
    const bool bracketed = strchr(s->params.host, ':') != NULL;
    snprintf(out->url, sizeof out->url, "http://%s%.90s%s:%u", bracketed ? "[" : "", s->params.host,
             bracketed ? "]" : "", http_port(s->http));
    snprintf(out->name, sizeof out->name, "%s", s->name);
    pith_peak_bytes(s->engine, s->params.policy, 1, s->params.max_new, &out->sequence_bytes, NULL);
    pith_peak_bytes(s->engine, "full", 1, s->params.max_new, &out->full_bytes, NULL);
}

bool server_stop(server *s, double grace) {
    atomic_store(&s->closing, true);
    loop_close(s->loop);
    const bool ended = loop_wait_idle(s->loop, grace);
    loop_stop(s->loop);
    http_stop(s->http, FLUSH_SECONDS);
    release(s);
    return ended;
}
