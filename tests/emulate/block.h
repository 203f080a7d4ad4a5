// The emulator's inside: a launch, and memory whose end is watched.
#ifndef PITH_EMULATE_BLOCK_H
#define PITH_EMULATE_BLOCK_H

#include <cuda_runtime.h>

namespace emulate {

// Runs the kernel in every thread of every block. Blocks are lines of up to 1024 threads.
void run_grid(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()> &kernel);

// Work of a stream, from a library: run when the device gets there.
void enqueue(cudaStream_t, std::function<void()>);

// Memory that ends, but for its rounding to 16 bytes, at a page that may not be touched. NULL: there is none.
void *guarded_new(size_t bytes);
void guarded_delete(void *, size_t bytes);

} // namespace emulate

#endif
