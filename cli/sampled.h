// A generation whose steps are measured at a few lengths of the cache only: the others' times are interpolated.
#ifndef PITH_CLI_SAMPLED_H
#define PITH_CLI_SAMPLED_H

#include "measure.h"

// Measures `n_measured` steps at up to five numbers of rows, which random prompts fill the caches with, and puts
// together the job's n_steps from them. Rows at each step are those of a model of one layer that runs the same policy.
// The steps name no compressions, and have no time for them. Errors as measure_run.
pith_status sampled_run(const measure_job *job, uint32_t n_measured, measurement *out, pith_error *err);

#endif
