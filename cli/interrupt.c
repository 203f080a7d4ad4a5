#include "interrupt.h"

#include <unistd.h>

volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
    (void)signal;
    if (interrupted) _exit(EXIT_INTERRUPTED); // asked twice: whatever hangs, go
    interrupted = 1;
}

void interrupt_catch(bool restart) {
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_interrupt, .sa_flags = restart ? SA_RESTART : 0}, NULL);
}

void interrupt_catch_ends(void) {
    interrupt_catch(true);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_interrupt, .sa_flags = SA_RESTART}, NULL);
}
