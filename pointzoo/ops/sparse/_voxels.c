/* Sorting voxels, halving them, and finding their neighbours: the compiled side of search.py.
 *
 * Voxels are sorted by (cloud, x, y, z). A line is a run of equal (cloud, x), a column a run of
 * equal (cloud, x, y). Everything is found by sweeps that only move forward: lines meet lines,
 * columns meet columns, and the z of a column meet the z of another. No keys are packed after the
 * sort, so that coordinates may be anything up to 2**61 in size.
 *
 * Pairs are listed as _sparse.c describes. The caller owns all memory; see core.py for the calls.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- order --------------------------------------------------------------------------------------- */

enum { DIGIT = 11 };

typedef struct { uint64_t key; int64_t row; } Entry;

/* Stable radix sort of n entries by their lowest `bits` bits; returns the array that holds them. */
static Entry *radix_sort(Entry *from, Entry *to, int64_t n, int bits) {
    for (int shift = 0; shift < bits; shift += DIGIT) {
        int64_t first[(1 << DIGIT) + 1] = {0};
        uint64_t mask = (1 << DIGIT) - 1;
        for (int64_t i = 0; i < n; i++) first[(from[i].key >> shift & mask) + 1]++;
        for (int d = 0; d < 1 << DIGIT; d++) first[d + 1] += first[d];
        for (int64_t i = 0; i < n; i++) to[first[from[i].key >> shift & mask]++] = from[i];
        Entry *swap = from;
        from = to, to = swap;
    }
    return from;
}

static int bits_of(uint64_t value) {
    int bits = 0;
    for (; value; value >>= 1) bits++;
    return bits;
}

/* order (n) = rows sorted by (batch, coords), batch being sorted already. Returns 0, or 1 where a
 * key needs more than 64 bits or memory is short: then the caller has to sort in another way. */
int pointzoo_sparse_order(const int64_t *batch, const int64_t *coords, int64_t n, int64_t *order,
                          int threads) {
    int64_t low[3], high[3];
    int bits[3], total;
    (void)threads;
    if (!n) return 0;
    for (int a = 0; a < 3; a++) low[a] = high[a] = coords[a];
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 3; a++) {
            int64_t v = coords[3 * i + a];
            low[a] = v < low[a] ? v : low[a];
            high[a] = v > high[a] ? v : high[a];
        }
    for (int a = 0; a < 3; a++) bits[a] = bits_of((uint64_t)(high[a] - low[a]));
    total = bits[0] + bits[1] + bits[2] + bits_of((uint64_t)batch[n - 1]);
    Entry *entries = total <= 64 ? malloc((size_t)n * 2 * sizeof *entries) : NULL;
    if (!entries) return 1;
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = (uint64_t)batch[i];
        for (int a = 0; a < 3; a++)
            key = (bits[a] < 64 ? key << bits[a] : 0) | (uint64_t)(coords[3 * i + a] - low[a]);
        entries[i] = (Entry){key, i};
    }
    const Entry *sorted = radix_sort(entries, entries + n, n, total);
    for (int64_t i = 0; i < n; i++) order[i] = sorted[i].row;
    free(entries);
    return 0;
}

/* ---- lines and columns --------------------------------------------------------------------------- */

typedef struct {
    const int64_t *batch, *coords;
    const int32_t *columns, *lines; /* first voxel of each column, first column of each line; + end */
    int64_t column_count, line_count;
} Grid;

static int64_t x_of(const Grid *g, int64_t voxel) { return g->coords[3 * voxel]; }
static int64_t y_of(const Grid *g, int64_t column) { return g->coords[3 * (int64_t)g->columns[column] + 1]; }
static int64_t z_of(const Grid *g, int64_t voxel) { return g->coords[3 * voxel + 2]; }
static int64_t voxel_of(const Grid *g, int64_t line) { return g->columns[g->lines[line]]; }

/* columns (n + 1), lines (n + 1), counts (2): the numbers of columns and lines found. */
int pointzoo_sparse_columns(const int64_t *batch, const int64_t *coords, int64_t n,
                            int32_t *columns, int32_t *lines, int64_t *counts, int threads) {
    int64_t c = 0, l = 0;
    (void)threads;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *v = coords + 3 * i;
        int line = !i || batch[i] != batch[i - 1] || v[0] != v[-3];
        if (line) lines[l++] = (int32_t)c;
        if (line || v[1] != v[-2]) columns[c++] = (int32_t)i;
    }
    columns[c] = (int32_t)n, lines[l] = (int32_t)c;
    counts[0] = c, counts[1] = l;
    return 0;
}

/* ---- the next coarser level ---------------------------------------------------------------------- */

typedef struct {
    const Grid *g;
    int64_t count;
    int64_t *batch, *coords, *parent;
} Coarse;

/* Merge the z of up to 4 columns whose halves are one column. */
static void halve_columns(Coarse *c, const int64_t *columns, int count) {
    const Grid *g = c->g;
    int64_t at[4], end[4], voxel = g->columns[columns[0]];
    for (int q = 0; q < count; q++) {
        at[q] = g->columns[columns[q]], end[q] = g->columns[columns[q] + 1];
    }
    for (;;) {
        int64_t z = INT64_MAX;
        for (int q = 0; q < count; q++)
            if (at[q] < end[q]) z = least(z, z_of(g, at[q]) >> 1);
        if (z == INT64_MAX) return;
        for (int q = 0; q < count; q++)
            while (at[q] < end[q] && z_of(g, at[q]) >> 1 == z) c->parent[at[q]++] = c->count;
        int64_t *to = c->coords + 3 * c->count;
        to[0] = x_of(g, voxel) >> 1, to[1] = g->coords[3 * voxel + 1] >> 1, to[2] = z;
        c->batch[c->count++] = g->batch[voxel];
    }
}

/* Merge the y of lines `line` and, where it halves to the same, the next; returns the line after. */
static int64_t halve_lines(Coarse *c, int64_t line) {
    const Grid *g = c->g;
    int64_t at[2] = {g->lines[line], g->lines[line + 1]}, end[2] = {at[1], at[1]};
    int64_t next = line + 1, voxel = voxel_of(g, line);
    if (next < g->line_count) {
        int64_t other = voxel_of(g, next);
        if (g->batch[other] == g->batch[voxel] && x_of(g, other) >> 1 == x_of(g, voxel) >> 1)
            end[1] = g->lines[++next];
    }
    while (at[0] < end[0] || at[1] < end[1]) {
        int64_t y = INT64_MAX, columns[4];
        int count = 0;
        for (int q = 0; q < 2; q++)
            if (at[q] < end[q]) y = least(y, y_of(g, at[q]) >> 1);
        for (int q = 0; q < 2; q++)
            while (at[q] < end[q] && y_of(g, at[q]) >> 1 == y) columns[count++] = at[q]++;
        halve_columns(c, columns, count);
    }
    return next;
}

/* The coarse voxels, in order, and the parent of each of n voxels; count: how many there are. */
int pointzoo_sparse_halve(const int64_t *batch, const int64_t *coords, const int32_t *columns,
                          const int32_t *lines, int64_t column_count, int64_t line_count,
                          int64_t *coarse_batch, int64_t *coarse_coords, int64_t *parent,
                          int64_t *count, int threads) {
    Grid g = {batch, coords, columns, lines, column_count, line_count};
    Coarse c = {&g, 0, coarse_batch, coarse_coords, parent};
    (void)threads;
    for (int64_t line = 0; line < line_count;) line = halve_lines(&c, line);
    *count = c.count;
    return 0;
}

/* Pairs of n voxels and their parents: to the parents if `down`, else to the voxels; the offset is
 * the corner. starts (tiles * 8 + 1). Voxels of one corner are in the order of their parents. */
int pointzoo_sparse_corners(const int64_t *parent, const int64_t *coords, int64_t n, int64_t down,
                            int64_t tile, int64_t tiles, int64_t *starts, int32_t *in,
                            int32_t *out, int threads) {
    (void)threads;
    memset(starts, 0, (size_t)(tiles * 8 + 1) * sizeof *starts);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < n; i++) {
            const int64_t *v = coords + 3 * i;
            int64_t to = down ? parent[i] : i, from = down ? i : parent[i];
            int64_t list = to / tile * 8 + (v[0] & 1) * 4 + (v[1] & 1) * 2 + (v[2] & 1);
            if (!pass) {
                starts[list + 1]++;
                continue;
            }
            in[starts[list]] = (int32_t)from;
            out[starts[list]++] = (int32_t)(to % tile);
        }
        if (!pass)
            for (int64_t i = 0; i < tiles * 8; i++) starts[i + 1] += starts[i];
    }
    memmove(starts + 1, starts, (size_t)(tiles * 8) * sizeof *starts); /* ends were starts */
    starts[0] = 0;
    return 0;
}

/* ---- neighbours ---------------------------------------------------------------------------------- */

/* near (columns): the column at (x + dx, y + dy) of each, -1 where there is none. */
static void find_columns(const Grid *g, int64_t dx, int64_t dy, int32_t *near) {
    int64_t other = 0;
    for (int64_t line = 0; line < g->line_count; line++) {
        int64_t voxel = voxel_of(g, line), cloud = g->batch[voxel], x = x_of(g, voxel) + dx;
        for (; other < g->line_count; other++) {
            int64_t v = voxel_of(g, other);
            if (g->batch[v] > cloud || (g->batch[v] == cloud && x_of(g, v) >= x)) break;
        }
        int64_t at = 0, end = 0;
        if (other < g->line_count) {
            int64_t v = voxel_of(g, other);
            if (g->batch[v] == cloud && x_of(g, v) == x) {
                at = g->lines[other], end = g->lines[other + 1];
            }
        }
        for (int64_t c = g->lines[line]; c < g->lines[line + 1]; c++) {
            int64_t y = y_of(g, c) + dy;
            while (at < end && y_of(g, at) < y) at++;
            near[c] = at < end && y_of(g, at) == y ? (int32_t)at : -1;
        }
    }
}

/* The first of voxels [from, end) of a column whose z is at least `z`. */
static int64_t lower_bound(const Grid *g, int64_t from, int64_t end, int64_t z) {
    while (from < end) {
        int64_t middle = from + (end - from) / 2;
        if (z_of(g, middle) < z) from = middle + 1;
        else end = middle;
    }
    return from;
}

static int64_t column_at(const Grid *g, int64_t voxel) {
    int64_t low = 0, high = g->column_count - 1;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (g->columns[middle] <= voxel) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* Go through the pairs of voxels [from, to) in order of column offset and voxel. at (offsets) counts
 * them; where `in` is not NULL, they are also written where `at` points. */
static void sweep(const Grid *g, const int32_t *near, int64_t radius, int64_t from, int64_t to,
                  int64_t *at, int32_t *in, int32_t *out) {
    int64_t side = 2 * radius + 1, first = column_at(g, from);
    for (int64_t d = 0; d < side * side; d++) {
        int64_t *counter = at + d * side + radius; /* indexed by the step in z */
        for (int64_t c = first; c < g->column_count && g->columns[c] < to; c++) {
            int64_t other = near[d * g->column_count + c];
            if (other < 0) continue;
            int64_t i = g->columns[c] > from ? g->columns[c] : from;
            int64_t last = least(g->columns[c + 1], to), end = g->columns[other + 1];
            int64_t j = lower_bound(g, g->columns[other], end, z_of(g, i) - radius);
            for (; i < last && j < end; i++) {
                int64_t z = z_of(g, i);
                while (j < end && z_of(g, j) < z - radius) j++;
                for (int64_t n = j; n < end && z_of(g, n) <= z + radius; n++) {
                    int64_t p = counter[z_of(g, n) - z]++;
                    if (!in) continue;
                    in[p] = (int32_t)n;
                    out[p] = (int32_t)(i - from);
                }
            }
        }
    }
}

/* First call: near (side**2, columns), and starts (tiles * offsets + 1) from the numbers of pairs. */
int pointzoo_sparse_count(const int64_t *batch, const int64_t *coords, const int32_t *columns,
                          const int32_t *lines, int64_t column_count, int64_t line_count,
                          int64_t radius, int64_t tile, int32_t *near, int64_t *starts,
                          int threads) {
    Grid g = {batch, coords, columns, lines, column_count, line_count};
    int64_t side = 2 * radius + 1, offsets = side * side * side, n = columns[column_count];
    int64_t tiles = (n + tile - 1) / tile;
    memset(starts, 0, (size_t)(tiles * offsets + 1) * sizeof *starts);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t d = 0; d < side * side; d++)
            find_columns(&g, d / side - radius, d % side - radius, near + d * column_count);
#pragma omp for schedule(dynamic, 8)
        for (int64_t t = 0; t < tiles; t++)
            sweep(&g, near, radius, t * tile, least((t + 1) * tile, n), starts + 1 + t * offsets,
                  NULL, NULL);
    }
    for (int64_t i = 0; i < tiles * offsets; i++) starts[i + 1] += starts[i];
    return 0;
}

/* Second call: in, out (pairs). */
int pointzoo_sparse_fill(const int64_t *batch, const int64_t *coords, const int32_t *columns,
                         const int32_t *lines, int64_t column_count, int64_t line_count,
                         int64_t radius, int64_t tile, const int32_t *near, const int64_t *starts,
                         int32_t *in, int32_t *out, int threads) {
    Grid g = {batch, coords, columns, lines, column_count, line_count};
    int64_t side = 2 * radius + 1, offsets = side * side * side, n = columns[column_count];
    int64_t tiles = (n + tile - 1) / tile;
    int64_t *cursors = malloc((size_t)(tiles * offsets + 1) * sizeof *cursors);
    if (!cursors) return 1;
    memcpy(cursors, starts, (size_t)(tiles * offsets + 1) * sizeof *cursors);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 8)
    for (int64_t t = 0; t < tiles; t++)
        sweep(&g, near, radius, t * tile, least((t + 1) * tile, n), cursors + t * offsets, in, out);
    free(cursors);
    return 0;
}
