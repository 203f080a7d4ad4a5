// The statistics of the tables. A problem is the unit: its samples resemble each other more than two problems do.
#ifndef PITH_EVAL_STATS_H
#define PITH_EVAL_STATS_H

#include <stddef.h>
#include <stdint.h>

typedef struct eval_interval {
    double mean, low, high; // low and high: 95 %
} eval_interval;

// A problem's part of a proportion.
typedef struct eval_cluster {
    uint32_t n, n_correct; // n >= 1
} eval_cluster;

// pass@1: the mean over problems of the share of correct samples, with a Wilson interval for n_eff samples.
//
//   p     = mean of p_i = n_correct_i / n_i over k problems
//   s2    = sum (p_i - p)^2 / (k (k - 1)), the variance of p with problems as the unit
//   n_eff = p (1 - p) / s2, at most the number of samples (effective sample size: Kish, Survey Sampling, 1965);
//           k, as if a problem's samples were all alike, where s2 says nothing: p is 0 or 1, or k is 1
//   bounds  (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), n = n_eff, z = 1.96 (Wilson, JASA 22,
//           1927)
//
// Wilson's interval with n_eff is what Franco, Little, Louis and Slud (J. Survey Statistics and Methodology 7, 2019)
// recommend for clustered proportions; it has a width at 0 and 1. No clusters: all NaN.
eval_interval eval_pass_rate(const eval_cluster *clusters, size_t n);

// The mean of n differences, one for each problem, with the 2.5 and 97.5 % quantiles of the means of 10000 resamples of
// problems with replacement (Efron, Annals of Statistics 7, 1979). The draws are fixed: the same differences give the
// same interval. No differences: all NaN; so is an interval that there is no memory for.
eval_interval eval_mean_difference(const double *differences, size_t n);

// The quantile q of n ascending values, with linear interpolation between neighbours (Hyndman and Fan 1996, type 7).
double eval_quantile(const double *ascending, size_t n, double q);

void eval_sort(double *values, size_t n);

#endif
