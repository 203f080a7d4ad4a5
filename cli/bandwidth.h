// The machine's read bandwidth, which bounds how fast tokens can be generated.
#ifndef PITH_CLI_BANDWIDTH_H
#define PITH_CLI_BANDWIDTH_H

#include <stdint.h>

// Bytes per second that n threads (at most 128) read together from a buffer of 1 GB, the best of eight passes; takes
// half a second. 0: cannot be measured.
double bandwidth_measure(uint32_t n_threads);

// Gives the buffer back. It is kept until then: a virtual machine that hands freed memory back to its host is slower
// for seconds afterwards, a quarter where that was measured.
void bandwidth_release(void);

#endif
