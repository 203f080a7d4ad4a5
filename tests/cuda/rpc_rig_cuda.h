// The rig's CUDA side (rpc_rig.h): the backend's own table of operations, over pages in the device's memory.
#ifndef RPC_RIG_CUDA_H
#define RPC_RIG_CUDA_H

#include "rpc_rig.h"

extern const rig_side rig_cuda_f16, rig_cuda_bf16; // by the cache's type

// PITH_OK, or what pith_cuda_create says.
pith_status rig_cuda_probe(pith_error *);

#endif
