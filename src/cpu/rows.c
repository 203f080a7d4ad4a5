// Rows of a lane: written when a token is appended, moved when the lane is compacted.
#include <stdbool.h>
#include <string.h>

#include "cpu/kernels.h"

void pith_append_row(const pith_cpu_kernels *kernels, const pith_pages *pages, const pith_lane *lane, uint32_t row,
                     const float *k, const float *v, int32_t pos) {
    const pith_geometry *geo = &pages->geo;
    const pith_page_id page = lane->pages[row / PITH_PAGE_ROWS];
    const uint32_t r = row % PITH_PAGE_ROWS, d = geo->head_dim;
    uint8_t *k_section = pith_page_at(pages, page), *v_section = pith_page_v(pages, page);

    *pith_lane_pos(pages, lane, row) = pos;
    if (geo->elt_bytes == 2) {
        uint16_t k_half[PITH_MAX_HEAD_DIM], *k_out = (uint16_t *)(void *)k_section;
        kernels->to_f16(k, k_half, d);
        for (uint32_t i = 0; i < d; i++) k_out[pith_k_index(geo, r, i)] = k_half[i];
        kernels->to_f16(v, (uint16_t *)(void *)v_section + pith_v_index(geo, r, 0), d);
    } else {
        float *k_out = (float *)(void *)k_section;
        for (uint32_t i = 0; i < d; i++) k_out[pith_k_index(geo, r, i)] = k[i];
        memcpy((float *)(void *)v_section + pith_v_index(geo, r, 0), v, d * sizeof(float));
    }
}

// One element of the keys of n rows: from src[from[t]] to dst[t], t ascending. The arrays may be one another's
// beginning, as long as no source lies below its destination. `elt` is a constant of the caller.
static inline __attribute__((always_inline)) void move_elements(uint8_t *dst, const uint8_t *src, const uint8_t *from,
                                                                uint32_t n, size_t elt) {
    for (uint32_t t = 0; t < n; t++) memcpy(dst + t * elt, src + from[t] * elt, elt);
}

// Moves n rows, all of one page, to consecutive rows of one page: row from[t] of src to row `to` + t of dst. With
// src == dst, from[t] > to + t.
static void move_rows(const pith_pages *pages, pith_page_id dst, uint32_t to, pith_page_id src, const uint8_t *from,
                      uint32_t n) {
    const pith_geometry *geo = &pages->geo;
    const size_t elt = geo->elt_bytes, row_bytes = geo->head_dim * elt;
    for (uint32_t i = 0; i < geo->head_dim; i++) {
        uint8_t *k_dst = pith_page_at(pages, dst) + pith_k_index(geo, to, i) * elt;
        const uint8_t *k_src = pith_page_at(pages, src) + pith_k_index(geo, 0, i) * elt;
        if (elt == 2) move_elements(k_dst, k_src, from, n, 2);
        else move_elements(k_dst, k_src, from, n, 4);
    }
    for (uint32_t t = 0; t < n; t++) {
        memcpy(pith_page_v(pages, dst) + (to + t) * row_bytes, pith_page_v(pages, src) + from[t] * row_bytes,
               row_bytes);
        pith_page_pos(pages, dst)[to + t] = pith_page_pos(pages, src)[from[t]];
    }
}

void pith_compact_rows(const pith_pages *pages, const pith_lane *lane, uint32_t first, const uint32_t *rows,
                       uint32_t n) {
    uint32_t i = 0;
    while (i < n && rows[i] == first + i) i++; // in place already; from the first gap on every row moves down

    // Runs of rows that share the page they come from and the page they go to. In ascending order nothing is
    // overwritten before it has moved: every destination lies below all sources that are still to come.
    while (i < n) {
        const uint32_t to = first + i, src = rows[i] / PITH_PAGE_ROWS, dst = to / PITH_PAGE_ROWS;
        uint8_t from[PITH_PAGE_ROWS];
        uint32_t run = 0;
        for (; i < n && rows[i] / PITH_PAGE_ROWS == src && (to + run) / PITH_PAGE_ROWS == dst; i++)
            from[run++] = (uint8_t)(rows[i] % PITH_PAGE_ROWS);
        move_rows(pages, lane->pages[dst], to % PITH_PAGE_ROWS, lane->pages[src], from, run);
    }
}

void pith_compact_lane(const pith_pages *pages, const pith_lane *lane, const uint32_t *candidates, uint32_t n,
                       const uint32_t *keep, uint32_t n_keep, uint32_t *scratch) {
    uint32_t n_stay = 0, c = 0, k = 0;
    for (uint32_t row = candidates[0]; row < lane->n_rows; row++) {
        bool stays = true;
        if (c < n && candidates[c] == row) {
            stays = k < n_keep && keep[k] == c;
            k += stays;
            c++;
        }
        if (stays) scratch[n_stay++] = row;
    }
    pith_compact_rows(pages, lane, candidates[0], scratch, n_stay);
}
