// What the card's memory can be read at: the measure of everything that is bound by bytes.
#ifndef PITH_CUDA_BANDWIDTH_H
#define PITH_CUDA_BANDWIDTH_H

#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

// Bytes per second of a kernel that does nothing but read `bytes` at `from` (device memory, on 16 bytes, several times
// what L2 holds), the best of a few runs. `from` and `sink` (one word) are device memory; what is in `from` does not
// matter, and `sink` is not written. Waits for the stream.
cudaError_t pith_cuda_read_bandwidth(const void *from, size_t bytes, uint32_t *sink, double *out, cudaStream_t);

#ifdef __cplusplus
}
#endif

#endif
