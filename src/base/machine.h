// What the machine can spare.
#ifndef PITH_BASE_MACHINE_H
#define PITH_BASE_MACHINE_H

#include <stdint.h>

// Bytes of memory that can be had without swapping: the kernel's estimate (which counts page cache), no more than what the
// cgroup's limit leaves. UINT64_MAX when neither is known.
uint64_t pith_available_bytes(void);

#endif
