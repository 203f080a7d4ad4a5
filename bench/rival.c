#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

bool rival_start(int nice, int *pid) {
    fflush(NULL);
    *pid = fork();
    if (*pid < 0) {
        fprintf(stderr, "bench: cannot start a competitor: %s\n", strerror(errno));
        return false;
    }
    if (*pid > 0) return true;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpriority(PRIO_PROCESS, 0, nice);
    for (volatile unsigned i = 0;; i++) {}
}

void rival_stop(int pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
