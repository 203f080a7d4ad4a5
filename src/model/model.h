// A loaded model: the mapped file, its hyper-parameters, weights and vocabulary. Immutable. One that was made from a shape
// has a table of tensors like a file's, and no vocabulary.
#ifndef PITH_MODEL_MODEL_H
#define PITH_MODEL_MODEL_H

#include "model/config.h"
#include "model/vocab.h"
#include "model/weights.h"

const pith_config *pith_model_config(const pith_model *);
const pith_weights *pith_model_weights(const pith_model *);
const pith_vocab *pith_model_vocab(const pith_model *); // NULL for a shape's
const pith_gguf *pith_model_gguf(const pith_model *);
const pith_allocator *pith_model_allocator(const pith_model *);

#endif
