// In place of the CUDA backend where it is not built.
#include "cuda/backend.h"

#include "base/status.h"

pith_status pith_cuda_create(const pith_geometry *geo, const pith_cuda_params *params, pith_backend **out,
                             pith_error *err) {
    (void)geo, (void)params;
    *out = NULL;
    return pith_fail(err, PITH_E_UNSUPPORTED, "cuda: not built in; `make CUDA=90` builds it, for a Hopper card");
}
