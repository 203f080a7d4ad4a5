// What a model file would have said, made from a shape: hyper-parameters and a table of tensors.
#ifndef PITH_MODEL_SHAPE_H
#define PITH_MODEL_SHAPE_H

#include "model/config.h"
#include "model/mapping.h"

// Fills `config` (all but n_vocab, which pith_weights_bind sets), `gguf` (tensors, no metadata; it borrows `name`) and
// `memory`, where the tensors' data is: norms and biases always, matrices only when `makes`, else these have a seed. On
// failure nothing is left to free. Errors: those of pith_model_from_shape.
pith_status pith_shape_build(const pith_model_shape *shape, const char *type, uint64_t seed, bool makes,
                             const char *name, const pith_allocator *alloc, pith_config *config, pith_gguf *gguf,
                             pith_mapping *memory, pith_error *err);

#endif
