// The server's insides, shared by server.c (life) and api.c (routes).
#ifndef PITH_SERVER_INSIDE_H
#define PITH_SERVER_INSIDE_H

#include <stdatomic.h>

#include "server/http.h"
#include "server/loop.h"
#include "server/server.h"

struct server {
    server_params params;
    char name[128];  // what clients call the model
    int64_t started; // seconds since 1970
    pith_model *model;
    pith_engine *engine; // the loop's
    pith_model_info model_info;
    pith_engine_info engine_info;
    request_defaults defaults;
    keys keys;
    metrics counts;
    loop *loop;
    http *http;
    atomic_bool closing;
};

extern const http_route api_routes[];
extern const size_t api_n_routes;

#endif
