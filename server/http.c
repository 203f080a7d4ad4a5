#include "server/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "server/answer.h"
#include "server/watch.h"

enum {
    THREADS = 2,             // of libmicrohttpd: one can read a long prompt while the other sends
    HEADER_BYTES = 64 << 10, // of one connection: request line, headers, and what is being sent
    BLOCK_BYTES = 16 << 10,  // a stream is sent in pieces of at most this
    MOST_DRAINED = 64 << 20, // a body over the limit is read to its end, up to this, so that the client sees the reply
};

struct http {
    http_params params;
    struct MHD_Daemon *daemon;
    watch *watch;
    uint16_t port;
    pthread_mutex_t lock;
    pthread_cond_t quiet;
    uint32_t n_exchanges;
};

struct exchange {
    http *server;
    struct MHD_Connection *connection;
    watched *client;
    const char *method; // libmicrohttpd's, as long as the request lives
    char *path;
    buffer body;
    size_t n_received;
    enum MHD_Result result; // of the last handler
    job *job;               // NULL: the reply is no job's
};

// ------------------------------------------------------------------------------------------------- replies

static void add_headers(const exchange *e, struct MHD_Response *response, const char *type) {
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (!strncmp(type, "text/html", 9))
        MHD_add_response_header(
            response, "Content-Security-Policy",
            "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    const char *cors = e->server->params.cors;
    if (!cors) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", cors);
    MHD_add_response_header(response, "Access-Control-Allow-Headers", "authorization, content-type");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
}

static void queue_reply(exchange *e, int status, const char *type, struct MHD_Response *response) {
    if (!response) {
        e->result = MHD_NO;
        return;
    }
    add_headers(e, response, type);
    if (status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (status == 429 || status == 503) MHD_add_response_header(response, "Retry-After", "1");
    e->result = MHD_queue_response(e->connection, (unsigned)status, response);
    MHD_destroy_response(response);
    metrics_answer(e->server->params.counts, status);
}

void http_reply(exchange *e, int status, const char *type, const char *bytes, size_t n) {
    queue_reply(e, status, type, MHD_create_response_from_buffer(n, (void *)(uintptr_t)bytes, MHD_RESPMEM_MUST_COPY));
}

void http_reply_json(exchange *e, int status, json_t *value) {
    buffer text = buffer_new(64 << 20);
    if (answer_json(&text, value)) http_reply(e, status, "application/json", text.at, text.n);
    else e->result = MHD_NO;
    buffer_free(&text);
}

void http_refuse(exchange *e, const refusal *no) {
    buffer text = buffer_new(1 << 16);
    answer_error(&text, no);
    http_reply(e, no->status, "application/json", text.at, text.n);
    buffer_free(&text);
}

const char *http_body(const exchange *e, size_t *n) {
    *n = e->body.n;
    return e->body.at ? e->body.at : "";
}

const char *http_path(const exchange *e) { return e->path; }

// ------------------------------------------------------------------------------------------------- jobs

static void resume(void *connection) { MHD_resume_connection(connection); }

void http_attach(exchange *e, job *j) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    j->socket = info ? info->connect_fd : -1;
    j->wake = resume, j->wake_ctx = e->connection;
}

// The stream's next bytes. Where there are none the connection sleeps, and is asked again when the job wakes it.
static ssize_t read_stream(void *ctx, uint64_t at, char *to, size_t most) {
    (void)at;
    exchange *e = ctx;
    job *j = e->job;
    pthread_mutex_lock(&j->lock);
    ssize_t n = (ssize_t)buffer_take(&j->out, to, most);
    if (n == 0 && j->gone) n = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (n == 0 && j->finished) n = MHD_CONTENT_READER_END_OF_STREAM;
    else if (n == 0) {
        j->sleeping = true;
        MHD_suspend_connection(e->connection);
    }
    pthread_mutex_unlock(&j->lock);
    return n;
}

static void begin_stream(exchange *e) {
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_stream, e, NULL);
    if (response) MHD_add_response_header(response, "Cache-Control", "no-cache");
    queue_reply(e, 200, "text/event-stream", response);
}

// Replies when the job has what a reply needs, else sleeps. libmicrohttpd holds a lock of its own while it calls
// read_stream, so a response is never queued under the job's.
void http_follow(exchange *e, job *j) {
    e->job = j;
    pthread_mutex_lock(&j->lock);
    const bool gone = j->gone, streams = j->request.stream && j->status == 200, finished = j->finished;
    if (!gone && !streams && !finished) {
        j->sleeping = true;
        MHD_suspend_connection(e->connection);
    }
    pthread_mutex_unlock(&j->lock);
    e->result = gone ? MHD_NO : MHD_YES;
    if (gone) return;
    if (streams) begin_stream(e);
    else if (finished)
        http_reply(e, j->status, "application/json", j->out.at, j->out.n); // nobody writes there any more
}

// ------------------------------------------------------------------------------------------------- requests

static refusal refuse(int status, const char *code, const char *message) {
    refusal no = {
        .status = status, .type = status == 401 ? "authentication_error" : "invalid_request_error", .code = code};
    snprintf(no.message, sizeof no.message, "%s", message);
    return no;
}

static const char *header(const exchange *e, const char *name) {
    return MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, name);
}

// A page of another site must not use the server of whoever looks at it: browsers say where a request comes from, and
// only this server's own page, or the origin that --cors names, may ask.
static bool is_foreign(const exchange *e) {
    const char *origin = header(e, "Origin"), *host = header(e, "Host"), *cors = e->server->params.cors;
    if (!origin || (cors && (!strcmp(cors, "*") || !strcmp(cors, origin)))) return false;
    const char *name = strstr(origin, "://");
    return !name || !host || strcmp(name + 3, host) != 0;
}

static bool matches(const http_route *route, const char *path) {
    const size_t n = strlen(route->path);
    if (n > 0 && route->path[n - 1] == '*') return !strncmp(route->path, path, n - 1);
    return !strcmp(route->path, path);
}

static void reply_options(exchange *e) {
    queue_reply(e, 204, "text/plain",
                MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT));
}

static void dispatch(exchange *e) {
    const http_params *p = &e->server->params;
    const char *method = !strcmp(e->method, "HEAD") ? "GET" : e->method;
    const http_route *route = NULL;
    bool known = false;
    for (size_t i = 0; i < p->n_routes && !route; i++) {
        if (!matches(&p->routes[i], e->path)) continue;
        known = true;
        if (!strcmp(p->routes[i].method, method)) route = &p->routes[i];
    }
    refusal no;
    if (is_foreign(e)) no = refuse(403, "foreign_origin", "pages of other origins may not ask this server");
    else if (known && !route && p->cors && !strcmp(method, "OPTIONS")) return reply_options(e);
    else if (!known) no = refuse(404, "unknown_url", "unknown path");
    else if (!route) no = refuse(405, "method_not_allowed", "this path takes another method");
    else if (!route->open && !keys_allow(p->keys, header(e, "Authorization")))
        no = refuse(401, "invalid_api_key", "expected Authorization: Bearer KEY with a key that this server knows");
    else if (e->body.failed) no = refuse(413, "body_too_large", "the body is larger than this server takes");
    else return route->handle(p->ctx, e);
    http_refuse(e, &no);
}

// ------------------------------------------------------------------------------------------------- connections

static watched *client_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void open_or_close(void *ctx, struct MHD_Connection *connection, void **client,
                          enum MHD_ConnectionNotificationCode which) {
    http *h = ctx;
    if (which == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*client) watch_close(h->watch, *client);
        return;
    }
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *client = watch_open(h->watch, info->connect_fd);
    if (!*client) shutdown(info->connect_fd, SHUT_RDWR); // nobody would watch it
}

static exchange *begin(http *h, struct MHD_Connection *connection, const char *url, const char *method) {
    exchange *e = calloc(1, sizeof *e);
    char *path = strdup(url);
    if (!e || !path) return free(e), free(path), NULL;
    *e = (exchange){.server = h,
                    .connection = connection,
                    .client = client_of(connection),
                    .method = method,
                    .path = path,
                    .body = buffer_new(h->params.max_body),
                    .result = MHD_NO};
    pthread_mutex_lock(&h->lock);
    h->n_exchanges++;
    pthread_mutex_unlock(&h->lock);
    return e;
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *data, size_t *n, void **state) {
    (void)version;
    exchange *e = *state;
    if (!e) return (*state = begin(ctx, connection, url, method)) ? MHD_YES : MHD_NO;
    if (*n > 0) {
        e->n_received += *n;
        buffer_add(&e->body, data, *n);
        *n = 0;
        return e->n_received <= MOST_DRAINED ? MHD_YES : MHD_NO;
    }
    e->method = method, e->result = MHD_NO;
    if (e->client) watch_whole(e->server->watch, e->client);
    if (e->job) http_follow(e, e->job);
    else dispatch(e);
    return e->result;
}

static void end(void *ctx, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why) {
    (void)connection, (void)why;
    http *h = ctx;
    exchange *e = *state;
    if (!e) return;
    if (e->job) job_leave(e->job);
    if (e->client) watch_again(h->watch, e->client);
    buffer_free(&e->body);
    free(e->path);
    free(e);
    *state = NULL;
    pthread_mutex_lock(&h->lock);
    if (--h->n_exchanges == 0) pthread_cond_broadcast(&h->quiet);
    pthread_mutex_unlock(&h->lock);
}

// ------------------------------------------------------------------------------------------------- life

// A socket that listens; -1 after `err` was filled.
static int listen_at(const char *host, uint16_t port, pith_error *err) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    const struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found;
    const int code = getaddrinfo(host, service, &wanted, &found);
    if (code != 0) return pith_fail(err, PITH_E_IO, "--host %s: %s", host, gai_strerror(code)), -1;
    int fd = -1, on = 1, failure = 0;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) break;
        failure = errno;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    if (fd < 0) pith_fail(err, PITH_E_IO, "%s port %u: %s", host, port, strerror(failure));
    return fd;
}

static uint16_t port_of(int fd) {
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    char service[8] = "0";
    if (getsockname(fd, (struct sockaddr *)&at, &n) == 0)
        getnameinfo((struct sockaddr *)&at, n, NULL, 0, service, sizeof service, NI_NUMERICSERV);
    return (uint16_t)strtoul(service, NULL, 10);
}

static void release(http *h) {
    watch_stop(h->watch);
    pthread_cond_destroy(&h->quiet);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static struct MHD_Daemon *start_daemon(http *h, int fd) {
    const http_params *p = &h->params;
    return MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, h, MHD_OPTION_LISTEN_SOCKET,
        fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT, (unsigned)p->max_connections,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)p->timeout, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES,
        MHD_OPTION_NOTIFY_CONNECTION, open_or_close, h, MHD_OPTION_NOTIFY_COMPLETED, end, h, MHD_OPTION_END);
}

pith_status http_start(const http_params *params, http **out, pith_error *err) {
    *out = NULL;
    const int fd = listen_at(params->host, params->port, err);
    if (fd < 0) return PITH_E_IO;
    http *h = calloc(1, sizeof *h);
    if (!h) return close(fd), pith_fail(err, PITH_E_MEMORY, "no memory for the server");
    h->params = *params, h->port = port_of(fd);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->quiet, &monotonic);
    pthread_condattr_destroy(&monotonic);
    h->watch = watch_start(params->request_time);
    h->daemon = h->watch ? start_daemon(h, fd) : NULL;
    if (h->daemon) return *out = h, PITH_OK;
    close(fd);
    release(h);
    return pith_fail(err, PITH_E_IO, "the HTTP server did not start");
}

uint16_t http_port(const http *h) { return h->port; }

void http_stop(http *h, double seconds) {
    if (!h) return;
    const MHD_socket listening = MHD_quiesce_daemon(h->daemon); // ours to close now
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&h->lock);
    int code = 0;
    while (h->n_exchanges > 0 && code != ETIMEDOUT) code = pthread_cond_timedwait(&h->quiet, &h->lock, &until);
    pthread_mutex_unlock(&h->lock);
    MHD_stop_daemon(h->daemon);
    if (listening >= 0) close(listening);
    release(h);
}
