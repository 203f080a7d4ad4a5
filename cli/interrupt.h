// Ctrl-C: the first one asks, the second one ends the process.
#ifndef PITH_CLI_INTERRUPT_H
#define PITH_CLI_INTERRUPT_H

#include <signal.h>
#include <stdbool.h>

enum { EXIT_INTERRUPTED = 130 };

extern volatile sig_atomic_t interrupted; // has it been asked? A verb that goes on may set it back to 0

// `restart`: calls that wait, such as writes, go on; else they end with EINTR.
void interrupt_catch(bool restart);

// interrupt_catch(true), and SIGTERM asks as Ctrl-C does: `timeout` and batch systems end with it what runs for hours.
void interrupt_catch_ends(void);

#endif
