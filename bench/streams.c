// The client of the servers' rows: answers streamed over HTTP to one process that does little more than receive, since
// it shares the CPUs with what it measures.
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench.h"

enum { MOST_STREAMS = 64, ROOM = 1 << 16 };

bool http_connect(uint16_t port, int *fd) {
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && connect(*fd, (const struct sockaddr *)&at, sizeof at) == 0) return true;
    if (*fd >= 0) close(*fd);
    return *fd = -1, false;
}

bool stream_open(stream *s, uint16_t port, const char *body) {
    *s = (stream){.fd = -1, .asked = pith_seconds()};
    if (http_connect(port, &s->fd) &&
        dprintf(s->fd,
                "POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: "
                "close\r\nContent-Length: %zu\r\n\r\n%s",
                strlen(body), body) > 0)
        return true;
    fprintf(stderr, "bench: the server takes no request: %s\n", strerror(errno));
    return false;
}

uint32_t stream_events(const stream *s) {
    uint32_t n = 0;
    for (const char *at = s->text; at && (at = strstr(at, "data: ")); at++) n++;
    return n;
}

void stream_close(stream *s) {
    if (s->fd >= 0) close(s->fd);
    free(s->text);
    *s = (stream){.fd = -1};
}

// The usage that stands at the end of a stream.
static bool count_tokens(stream *s) {
    static const char key[] = "\"completion_tokens\":";
    const char *last = NULL;
    for (const char *at = s->text; at && (at = strstr(at, key)); at++) last = at;
    if (last && strstr(last, "data: [DONE]") && !strstr(last, "\"error\"")) {
        s->n_tokens = (uint32_t)strtoul(last + sizeof key - 1, NULL, 10);
        return true;
    }
    fprintf(stderr, "bench: a stream ended early: %.300s\n", s->text ? s->text : "");
    return false;
}

static bool receive(stream *s) {
    if (s->n + ROOM > s->capacity) {
        char *more = realloc(s->text, 2 * s->capacity + 2 * ROOM);
        if (!more) return fputs("bench: no memory for an answer\n", stderr), false;
        s->text = more, s->capacity = 2 * s->capacity + 2 * ROOM;
    }
    const ssize_t n = recv(s->fd, s->text + s->n, ROOM - 1, 0);
    const double now = pith_seconds();
    s->n += n > 0 ? (size_t)n : 0;
    s->text[s->n] = '\0';
    if (s->begun == 0 && strstr(s->text, "data: ")) s->begun = now;
    if (n > 0) return true;
    close(s->fd);
    s->fd = -1, s->ended = now;
    return count_tokens(s);
}

bool streams_wait(stream *all, uint32_t n, uint32_t from, uint32_t to, bool until_ended) {
    struct pollfd polled[MOST_STREAMS];
    for (;;) {
        uint32_t n_left = 0;
        for (uint32_t i = from; i < to; i++) n_left += (until_ended ? all[i].ended : all[i].begun) == 0;
        if (n_left == 0) return true;
        for (uint32_t i = 0; i < n; i++) polled[i] = (struct pollfd){.fd = all[i].fd, .events = POLLIN}; // -1: skipped
        if (poll(polled, n, -1) < 0 && errno != EINTR) return perror("bench: poll"), false;
        for (uint32_t i = 0; i < n; i++)
            if (polled[i].revents && !receive(&all[i])) return false;
    }
}
