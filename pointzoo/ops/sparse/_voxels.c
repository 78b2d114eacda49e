/* Sorting voxels, halving them, and finding their neighbours: the compiled side of search.py.
 *
 * Voxels are sorted by (cloud, x, y, z). A line is a run of equal (cloud, x), a column a run of
 * equal (cloud, x, y), a word the voxels of a column in 64 places of z, a bit for each. Everything is
 * found by sweeps that only move forward: lines meet lines, columns meet columns, and the words of a
 * column meet the words of another. No keys are packed after the sort, so that coordinates may be
 * anything up to 2**61 in size.
 *
 * Pairs are listed as _sparse.c describes. The caller owns all memory, but for the pairs between the two
 * calls that find neighbours; see core.py.
 */

#include "_sparse.h"

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
    int done = 1;
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = (uint64_t)batch[i];
        for (int a = 0; a < 3; a++)
            key = (bits[a] < 64 ? key << bits[a] : 0) | (uint64_t)(coords[3 * i + a] - low[a]);
        entries[i] = (Entry){key, i};
        done &= !i || key >= entries[i - 1].key;
    }
    const Entry *sorted = done ? entries : radix_sort(entries, entries + n, n, total);
    for (int64_t i = 0; i < n; i++) order[i] = sorted[i].row;
    free(entries);
    return 0;
}

/* ---- lines and columns --------------------------------------------------------------------------- */

typedef struct {
    const int64_t *batch, *x, *y, *z; /* of each line; the y of each column, the z of each voxel */
    const int32_t *columns, *lines; /* first voxel of each column, first column of each line; + end */
    const uint64_t *bits; /* voxels of a column by words: bit b is the voxel of z = 64 * place + b */
    const int64_t *places;
    const int32_t *rows, *words; /* first voxel of each word; first word of each column; + end */
    int64_t column_count, line_count;
} Grid;

#define GRID_PARAMETERS                                                                            \
    const int64_t *batch, const int64_t *x, const int64_t *y, const int64_t *z,                    \
        const int32_t *columns, const int32_t *lines, const uint64_t *bits, const int64_t *places, \
        const int32_t *rows, const int32_t *words, int64_t column_count, int64_t line_count
#define GRID {batch, x, y, z, columns, lines, bits, places, rows, words, column_count, line_count}

/* Fills the arrays of a Grid (n or n + 1 each); counts (3): of columns, lines and words. */
int pointzoo_sparse_columns(const int64_t *batch, const int64_t *coords, int64_t n, int64_t *cloud,
                            int64_t *x, int64_t *y, int64_t *z, int32_t *columns, int32_t *lines,
                            uint64_t *bits, int64_t *places, int32_t *rows, int32_t *words,
                            int64_t *counts, int threads) {
    int64_t c = 0, l = 0, w = 0;
    (void)threads;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *v = coords + 3 * i;
        int line = !i || batch[i] != batch[i - 1] || v[0] != v[-3], column = line || v[1] != v[-2];
        if (line) cloud[l] = batch[i], x[l] = v[0], lines[l++] = (int32_t)c;
        if (column) y[c] = v[1], words[c] = (int32_t)w, columns[c++] = (int32_t)i;
        if (column || v[2] >> 6 != places[w - 1])
            places[w] = v[2] >> 6, bits[w] = 0, rows[w++] = (int32_t)i;
        bits[w - 1] |= (uint64_t)1 << (v[2] & 63);
        z[i] = v[2];
    }
    columns[c] = (int32_t)n, lines[l] = (int32_t)c, words[c] = (int32_t)w;
    rows[w] = (int32_t)n;
    counts[0] = c, counts[1] = l, counts[2] = w;
    return 0;
}

/* ---- the next coarser level ---------------------------------------------------------------------- */

typedef struct {
    const Grid *g;
    int64_t count;
    int64_t *batch, *coords, *parent;
} Coarse;

/* Merge the z of up to 4 columns, the first of them in `line`, whose halves are one column. */
static void halve_columns(Coarse *c, int64_t line, const int64_t *columns, int count) {
    const Grid *g = c->g;
    int64_t at[4], end[4], x = g->x[line] >> 1, y = g->y[columns[0]] >> 1;
    for (int q = 0; q < count; q++) {
        at[q] = g->columns[columns[q]], end[q] = g->columns[columns[q] + 1];
    }
    for (;;) {
        int64_t z = INT64_MAX;
        for (int q = 0; q < count; q++)
            if (at[q] < end[q]) z = least(z, g->z[at[q]] >> 1);
        if (z == INT64_MAX) return;
        for (int q = 0; q < count; q++)
            while (at[q] < end[q] && g->z[at[q]] >> 1 == z) c->parent[at[q]++] = c->count;
        int64_t *to = c->coords + 3 * c->count;
        to[0] = x, to[1] = y, to[2] = z;
        c->batch[c->count++] = g->batch[line];
    }
}

/* Merge the y of lines `line` and, where it halves to the same, the next; returns the line after. */
static int64_t halve_lines(Coarse *c, int64_t line) {
    const Grid *g = c->g;
    int64_t at[2] = {g->lines[line], g->lines[line + 1]}, end[2] = {at[1], at[1]}, next = line + 1;
    if (next < g->line_count && g->batch[next] == g->batch[line] && g->x[next] >> 1 == g->x[line] >> 1)
        end[1] = g->lines[++next];
    while (at[0] < end[0] || at[1] < end[1]) {
        int64_t y = INT64_MAX, columns[4];
        int count = 0;
        for (int q = 0; q < 2; q++)
            if (at[q] < end[q]) y = least(y, g->y[at[q]] >> 1);
        for (int q = 0; q < 2; q++)
            while (at[q] < end[q] && g->y[at[q]] >> 1 == y) columns[count++] = at[q]++;
        halve_columns(c, line, columns, count);
    }
    return next;
}

/* The coarse voxels, in order, and the parent of each voxel; count: how many there are. */
int pointzoo_sparse_halve(GRID_PARAMETERS, int64_t *coarse_batch, int64_t *coarse_coords,
                          int64_t *parent, int64_t *count, int threads) {
    Grid g = GRID;
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
        int64_t cloud = g->batch[line], x = g->x[line] + dx, at = 0, end = 0;
        for (; other < g->line_count; other++)
            if (g->batch[other] > cloud || (g->batch[other] == cloud && g->x[other] >= x)) break;
        if (other < g->line_count && g->batch[other] == cloud && g->x[other] == x)
            at = g->lines[other], end = g->lines[other + 1];
        for (int64_t c = g->lines[line]; c < g->lines[line + 1]; c++) {
            int64_t y = g->y[c] + dy;
            while (at < end && g->y[at] < y) at++;
            near[c] = at < end && g->y[at] == y ? (int32_t)at : -1;
        }
    }
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

#define COUNT(bits) __builtin_popcountll(bits)
#define BELOW(bit) (((uint64_t)1 << (bit)) - 1)

/* What lies near a word of voxels in another column, seen from `low` steps in z further on: bit b is
 * the voxel at b + low, the first of `more` follows the last of `bits`; and the row of the first. */
typedef struct { uint64_t bits, more; int64_t row; } Near;

/* Three words of a column, one after the other, and the row of their first voxel. */
typedef struct { uint64_t before, here, after; int64_t row; } Words;

/* The words from place - 1 to place + 1; *at moves to the first of them that the column has. */
INLINE Words words_at(const Grid *g, int64_t place, int64_t *at, int64_t end) {
    while (*at < end && g->places[*at] < place - 1) ++*at;
    int64_t w = *at;
    Words found = {.row = g->rows[w]};
    if (w < end && g->places[w] == place - 1) found.before = g->bits[w++];
    if (w < end && g->places[w] == place) found.here = g->bits[w++];
    if (w < end && g->places[w] == place + 1) found.after = g->bits[w];
    return found;
}

INLINE Near seen_from(const Words *w, int64_t low) {
    uint64_t up = low < 0 ? 0 : (uint64_t)low, down = low < 0 ? (uint64_t)-low : 0;
    if (!low) return (Near){w->here, w->after, w->row + COUNT(w->before)};
    if (!up) {
        return (Near){w->here << down | w->before >> (64 - down),
                      w->after << down | w->here >> (64 - down),
                      w->row + COUNT(w->before & BELOW(64 - down))};
    }
    return (Near){w->here >> up | w->after << (64 - up), w->after >> up,
                  w->row + COUNT(w->before) + COUNT(w->here & BELOW(up))};
}

/* Steps in z that are looked at together. */
enum { WINDOW = 5 };

/* A pair: the row of the output from the first of the tile, the row of the input. */
#define PAIR(out, in) ((uint64_t)(out) << 32 | (uint64_t)(in))

/* Add the pairs of voxels `own` (bits of a word) with those seen in another column, to a list for each
 * step. A voxel is written to all lists and counted in those where it belongs, as no processor
 * foresees which; lists have room for one pair more than the rows of a tile. */
INLINE void add_pairs(uint64_t **lists, uint64_t own, int64_t row, const Near *near,
                      uint64_t wanted) {
    uint64_t *end[WINDOW];
    UNROLL for (int k = 0; k < WINDOW; k++) end[k] = lists[k];
    for (; own; own &= own - 1, row++) {
        int b = __builtin_ctzll(own);
        uint64_t found = (near->bits >> b | near->more << 1 << (63 - b)) & wanted;
        uint64_t pair = PAIR(row, near->row + COUNT(near->bits & BELOW(b)));
        UNROLL for (int k = 0; k < WINDOW; k++, found >>= 1) {
            *end[k] = pair;
            end[k] += found & 1, pair += found & 1;
        }
    }
    UNROLL for (int k = 0; k < WINDOW; k++) lists[k] = end[k];
}

/* The bits of word w that are rows [from, to); *row: the first of them. */
INLINE uint64_t rows_of(const Grid *g, int64_t w, int64_t from, int64_t to, int64_t *row) {
    uint64_t own = g->bits[w];
    for (*row = g->rows[w]; *row < from && own; ++*row) own &= own - 1;
    for (int64_t over = g->rows[w + 1] - to; over > 0 && own; over--)
        own ^= (uint64_t)1 << (63 - __builtin_clzll(own));
    return own;
}

/* The pairs of rows [from, to) with the columns `near` them in x and y, by step in z (lists). */
INLINE void sweep(const Grid *g, const int32_t *near, int64_t radius, int64_t from, int64_t to,
                  uint64_t **lists) {
    for (int64_t c = column_at(g, from); c < g->column_count && g->columns[c] < to; c++) {
        int64_t other = near[c];
        if (other < 0) continue;
        int64_t at = g->words[other], end = g->words[other + 1];
        for (int64_t w = g->words[c]; w < g->words[c + 1]; w++) {
            int64_t row;
            uint64_t own = rows_of(g, w, from, to, &row);
            Words theirs = words_at(g, g->places[w], &at, end);
            for (int64_t low = -radius; low <= radius; low += WINDOW) {
                Near seen = seen_from(&theirs, low);
                uint64_t wanted = BELOW(least(WINDOW, radius - low + 1));
                add_pairs(lists + low + radius, own, row - from, &seen, wanted);
            }
        }
    }
}

typedef void (*Sweep)(const Grid *, const int32_t *, int64_t, int64_t, int64_t, uint64_t **);

#define SWEEP(name, target)                                                                        \
    target static void name(const Grid *g, const int32_t *near, int64_t radius, int64_t from,      \
                            int64_t to, uint64_t **lists) {                                        \
        if (radius == 2) sweep(g, near, 2, from, to, lists);                                       \
        else sweep(g, near, radius, from, to, lists);                                              \
    }
SWEEP(sweep_plain, )
#if defined(__x86_64__)
SWEEP(sweep_popcnt, __attribute__((target("popcnt"))))
#endif

static Sweep fastest_sweep(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt")) return sweep_popcnt;
#endif
    return sweep_plain;
}

/* The pairs that a thread found, tile after tile, and the lists that it works on. */
typedef struct {
    int64_t filled, room;
    uint64_t *pairs, *listed, **lists;
} Found;

/* All pairs, between the two calls. */
typedef struct {
    int64_t side, tile, tiles, threads;
    Found *found; /* of each thread */
    int64_t *owner, *begin; /* of each tile: whose, and where in it */
} Pairs;

static void free_pairs(Pairs *p) {
    for (int64_t i = 0; p->found && i < p->threads; i++)
        free(p->found[i].pairs), free(p->found[i].listed), free(p->found[i].lists);
    free(p->found), free(p->owner), free(p->begin), free(p);
}

static Pairs *new_pairs(int64_t side, int64_t tile, int64_t tiles, int64_t threads) {
    size_t lists = (size_t)(ceil_div(side, WINDOW) * WINDOW), some = (size_t)tiles + 1;
    Pairs *p = malloc(sizeof *p);
    if (!p) return NULL;
    *p = (Pairs){side, tile, tiles, threads, calloc((size_t)threads, sizeof *p->found),
                 malloc(some * sizeof *p->owner), malloc(some * sizeof *p->begin)};
    int failed = !p->found || !p->owner || !p->begin;
    for (int64_t i = 0; i < threads && !failed; i++) {
        Found *f = &p->found[i];
        f->listed = malloc(lists * (size_t)(tile + 1) * sizeof *f->listed);
        f->lists = malloc(lists * sizeof *f->lists);
        failed = !f->listed || !f->lists;
    }
    if (failed) return free_pairs(p), NULL;
    return p;
}

/* Append n pairs; 0 when it worked. */
static int append(Found *f, const uint64_t *pairs, int64_t n) {
    if (f->filled + n > f->room) {
        int64_t room = 2 * (f->filled + n) + (1 << 16), size = (int64_t)sizeof *f->pairs;
        uint64_t *more = realloc(f->pairs, (size_t)(room * size));
        if (!more) return 1;
        expect(more + f->filled, (room - f->filled) * size);
        f->pairs = more, f->room = room;
    }
    memcpy(f->pairs + f->filled, pairs, (size_t)n * sizeof *pairs);
    f->filled += n;
    return 0;
}

/* Append the pairs of tile t; counts (offsets). 0 when it worked. */
static int list_tile(const Grid *g, const int32_t *near, Sweep run, const Pairs *p, int64_t t,
                     Found *f, int64_t *counts) {
    int64_t step = p->tile + 1, to = least((t + 1) * p->tile, g->columns[g->column_count]);
    for (int64_t d = 0; d < p->side * p->side; d++) {
        for (int64_t k = 0; k < ceil_div(p->side, WINDOW) * WINDOW; k++)
            f->lists[k] = f->listed + k * step;
        run(g, near + d * g->column_count, p->side / 2, t * p->tile, to, f->lists);
        for (int64_t k = 0; k < p->side; k++) {
            int64_t n = f->lists[k] - (f->listed + k * step);
            counts[d * p->side + k] = n;
            if (append(f, f->listed + k * step, n)) return 1;
        }
    }
    return 0;
}

/* First call: near (side**2, columns) is room to work in; starts (tiles * offsets + 1); *pairs is for
 * the second call, which has to follow. */
int pointzoo_sparse_neighbours(GRID_PARAMETERS, int64_t radius, int64_t tile, int32_t *near,
                               int64_t *starts, void **pairs, int threads) {
    Grid g = GRID;
    Sweep run = fastest_sweep();
    int64_t side = 2 * radius + 1, offsets = side * side * side, failed = 0;
    int64_t tiles = ceil_div(columns[column_count], tile);
    Pairs *p = *pairs = new_pairs(side, tile, tiles, threads);
    if (!p) return 1;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        Found *own = &p->found[thread_number()];
#pragma omp for schedule(dynamic)
        for (int64_t d = 0; d < side * side; d++)
            find_columns(&g, d / side - radius, d % side - radius, near + d * column_count);
#pragma omp for schedule(dynamic, 8)
        for (int64_t t = 0; t < tiles; t++) {
            p->owner[t] = own - p->found, p->begin[t] = own->filled;
            failed |= list_tile(&g, near, run, p, t, own, starts + 1 + t * offsets);
        }
    }
    if (failed) return free_pairs(p), 1;
    starts[0] = 0;
    for (int64_t i = 0; i < tiles * offsets; i++) starts[i + 1] += starts[i];
    return 0;
}

/* Second call: in, out (pairs), NULL to give the pairs up. */
int pointzoo_sparse_collect(void *pairs, const int64_t *starts, int32_t *in, int32_t *out,
                            int threads) {
    Pairs *p = pairs;
    int64_t offsets = p->side * p->side * p->side, all = starts[p->tiles * offsets];
    if (in) {
        expect(in, all * (int64_t)sizeof *in);
        expect(out, all * (int64_t)sizeof *out);
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t t = 0; t < p->tiles; t++) {
            const uint64_t *pair = p->found[p->owner[t]].pairs + p->begin[t];
            for (int64_t i = starts[t * offsets]; i < starts[(t + 1) * offsets]; i++, pair++)
                in[i] = (int32_t)*pair, out[i] = (int32_t)(*pair >> 32);
        }
    }
    free_pairs(p);
    return 0;
}

/* The lists of a kernel that is 2 narrower, out of those of one of `side`: the same pairs, the outer
 * offsets left out. inner_starts (tiles * (side - 2)**3 + 1) is given; inner_in, inner_out (pairs). */
int pointzoo_sparse_narrow(const int64_t *starts, const int32_t *in, const int32_t *out,
                           int64_t tiles, int64_t side, const int64_t *inner_starts,
                           int32_t *inner_in, int32_t *inner_out, int threads) {
    int64_t inner = side - 2, offsets = side * side * side;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t *to = inner_starts + t * inner * inner * inner;
        for (int64_t k = 0; k < inner * inner * inner; k++) {
            int64_t x = k / (inner * inner), y = k / inner % inner, z = k % inner;
            int64_t from = starts[t * offsets + ((x + 1) * side + y + 1) * side + z + 1];
            size_t bytes = (size_t)(to[k + 1] - to[k]) * sizeof *in;
            memcpy(inner_in + to[k], in + from, bytes);
            memcpy(inner_out + to[k], out + from, bytes);
        }
    }
    return 0;
}
