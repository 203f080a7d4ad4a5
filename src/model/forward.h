// The transformer, written once against the operation table.
#ifndef PITH_MODEL_FORWARD_H
#define PITH_MODEL_FORWARD_H

#include "model/model.h"

// Records one step of `shape`. The plan is owned by the caller: backend->ops->plan_free.
pith_status pith_forward_record(const pith_model *, pith_backend *, const pith_geometry *, const pith_shape *shape,
                                pith_plan **out, pith_error *);

#endif
