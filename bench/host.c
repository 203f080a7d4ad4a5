// A server that is measured: started, waited for, and ended. Dies with the benchmark.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum { MOST_ARGS = 64, TRIES = 1200, PAUSE_MS = 50 };

// A port that is free at the moment; 0: none.
static uint16_t free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool ok =
        fd >= 0 && bind(fd, (struct sockaddr *)&at, n) == 0 && getsockname(fd, (struct sockaddr *)&at, &n) == 0;
    if (fd >= 0) close(fd);
    return ok ? ntohs(at.sin_port) : 0;
}

static bool complain(const char *const *args, const char *what) {
    fprintf(stderr, "bench: this %s:", what);
    for (int i = 0; args[i]; i++) fprintf(stderr, " %s", args[i]);
    fputc('\n', stderr);
    return false;
}

// port 0: the program takes none.
static void become(const char *const *args, uint16_t port) {
    char text[8], *argv[MOST_ARGS + 3];
    int n = 0;
    for (; args[n] && n < MOST_ARGS; n++) argv[n] = (char *)(uintptr_t)args[n];
    snprintf(text, sizeof text, "%u", port);
    if (port) argv[n++] = (char *)(uintptr_t) "--port", argv[n++] = text;
    argv[n] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, STDIN_FILENO), dup2(null, STDOUT_FILENO), dup2(null, STDERR_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

static bool is_ready(uint16_t port) {
    static const char ask[] = "GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    char reply[64] = "";
    int fd;
    if (!http_connect(port, &fd)) return false;
    const bool ok =
        write(fd, ask, sizeof ask - 1) > 0 && read(fd, reply, sizeof reply - 1) > 12 && !memcmp(reply + 9, "200", 3);
    close(fd);
    return ok;
}

bool host_start(host *h, const char *const *args) {
    *h = (host){.port = free_port()};
    fflush(NULL);
    if (h->port) h->pid = fork();
    if (h->port && h->pid == 0) become(args, h->port);
    for (int i = 0; h->pid > 0 && i < TRIES; i++) {
        if (is_ready(h->port)) return true;
        if (waitpid(h->pid, NULL, WNOHANG) != 0) h->pid = 0; // it ended
        poll(NULL, 0, PAUSE_MS);
    }
    host_stop(h);
    return complain(args, "does not answer");
}

bool program_run(const char *const *args) {
    int status = -1;
    fflush(NULL);
    const int pid = fork();
    if (pid == 0) become(args, 0);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    return complain(args, "failed");
}

void host_stop(host *h) {
    if (h->pid <= 0) return;
    kill(h->pid, SIGTERM);
    while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR) {}
}
