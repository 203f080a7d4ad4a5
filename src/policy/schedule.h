// When a policy compresses and how many rows stay, as far as that follows from counting tokens. It is RPC's schedule,
// and that of every policy that is to hold as many rows as RPC does.
//
// Let m be the number of generated tokens that have entered the cache, over all turns. The last R of them stay for
// being recent; the others that are still there are the candidates. Compression k = 1, 2, ... is due when
//
//     m >= A + kP + R    and keeps    A + kT    of the    A + (k-1)T + P    candidates.
//
// A ratio c means A = 0 and T = floor(P/c): the cache goes on growing, c times more slowly. A budget of B rows means
// A = B - R and T = 0: every compression leaves B generated rows. Both evict P - T rows each time.
#ifndef PITH_POLICY_SCHEDULE_H
#define PITH_POLICY_SCHEDULE_H

#include "base/status.h"

enum { PITH_PERIOD_MAX = 1 << 20, PITH_RECENT_MAX = 4096, PITH_BUDGET_MAX = 1 << 20 };

typedef struct pith_schedule {
    uint64_t period; // P
    uint64_t recent; // R
    uint64_t gain;   // T, at most P
    uint64_t base;   // A
} pith_schedule;

// The counts of one sequence; all zeros for a new one.
typedef struct pith_counts {
    uint64_t m; // generated tokens that have entered the cache, all turns
    uint64_t k; // compressions done
} pith_counts;

// The ratio is in millionths (PITH_OPTION_MICRO) and at most the period; the budget is more than `recent`.
pith_schedule pith_schedule_ratio(uint32_t period, uint32_t recent, uint64_t ratio);
pith_schedule pith_schedule_budget(uint32_t period, uint32_t recent, uint32_t budget);

// PITH_E_ARG for a ratio above the period, which would keep nothing.
pith_status pith_schedule_check(const char *policy, uint32_t period, uint64_t ratio, pith_error *err);

bool pith_schedule_due(const pith_schedule *, const pith_counts *);
uint32_t pith_schedule_keep(const pith_schedule *, const pith_counts *); // survivors of the next compression

// The worst cases that policy.h asks for, exact.
uint32_t pith_schedule_peak_rows(const pith_schedule *, const pith_counts *, uint32_t n_rows, uint32_t n_prompt,
                                 uint32_t max_new);
uint32_t pith_schedule_max_candidates(const pith_schedule *, const pith_counts *, uint32_t max_new);

#endif
