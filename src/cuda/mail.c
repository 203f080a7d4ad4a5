// Small things on their way to the device: page list entries, spans, slots.
//
// Copies from pageable memory may wait for the stream, and pinned memory may not be written again while a copy reads
// it. So there is a ring of pinned memory and one of the same size on the device. A segment is entered again when an
// event says that everything behind its last use has run, which is long past by then.
#include <string.h>

#include "base/status.h"
#include "cuda/device.h"

enum { ALIGN = 256, LEAST_SEGMENT = 64 << 10 };

pith_status pith_cuda_begin_mail(pith_cuda *cuda, pith_error *err) {
    // The largest letter: the spans of a conversation of one-token turns.
    size_t largest = ((size_t)cuda->max_rows / 2 + 1) * sizeof(pith_span);
    if (largest < LEAST_SEGMENT) largest = LEAST_SEGMENT;
    cuda->mail_segment_bytes = (largest + ALIGN - 1) / ALIGN * ALIGN;
    const size_t bytes = MAIL_SEGMENTS * cuda->mail_segment_bytes;
    if (!(cuda->mail = pith_cuda_pinned(cuda, bytes, "transfers", err)) ||
        !(cuda->device_mail = pith_cuda_new(cuda, bytes, "transfers", err)))
        return PITH_E_MEMORY;
    for (uint32_t i = 0; i < MAIL_SEGMENTS; i++)
        PITH_CUDA_DO(cuda, cudaEventCreateWithFlags(&cuda->mail_read[i], cudaEventDisableTiming));
    return cuda->base.ops->check(&cuda->base, err);
}

void pith_cuda_free_mail(pith_cuda *cuda) {
    cudaFreeHost(cuda->mail);
    cudaFree(cuda->device_mail);
    for (uint32_t i = 0; i < MAIL_SEGMENTS; i++)
        if (cuda->mail_read[i]) cudaEventDestroy(cuda->mail_read[i]);
}

const void *pith_cuda_send(pith_cuda *cuda, const void *from, size_t bytes) {
    if (cuda->mail_at + bytes > cuda->mail_segment_bytes) {
        PITH_CUDA_DO(cuda, cudaEventRecord(cuda->mail_read[cuda->mail_segment], cuda->stream));
        cuda->mail_segment = (cuda->mail_segment + 1) % MAIL_SEGMENTS, cuda->mail_at = 0;
        PITH_CUDA_DO(cuda, cudaEventSynchronize(cuda->mail_read[cuda->mail_segment])); // at once if never recorded
    }
    const size_t at = cuda->mail_segment * cuda->mail_segment_bytes + cuda->mail_at;
    cuda->mail_at = (cuda->mail_at + bytes + ALIGN - 1) / ALIGN * ALIGN;
    memcpy(cuda->mail + at, from, bytes);
    PITH_CUDA_DO(cuda, cudaMemcpyAsync(cuda->device_mail + at, cuda->mail + at, bytes, cudaMemcpyHostToDevice,
                                       cuda->stream));
    return cuda->device_mail + at;
}
