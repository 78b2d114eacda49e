/* Sparse convolution on the CPU: sorting, pyramids, kernel maps, products and weight gradients.
 *
 * Plain C with GCC or Clang; loaded with ctypes on tensor.data_ptr(), no torch or numpy headers.
 * The caller has checked sizes, types and coordinates (at most 2**61 in size).
 *
 * Pairs. Row in[p] of the input, times the weights of a kernel offset, is added to row out[p] of the
 * output. Pairs are listed by tile of `tile` output rows, then by kernel offset, and ascend within
 * that; out[p] counts from the first row of the tile. starts[t * offsets + k] is where the list of
 * tile t and offset k begins.
 *
 * Products. For a tile: for each offset, a few rows at a time are read in place, multiplied by the
 * weights (packed once per call in panels of a few vectors of columns) in registers, and added to
 * the tile, which stays in cache and is written once. No thread adds to what another writes, and
 * each sum has one order, whatever the number of threads: results are equal to the bit.
 *
 * OpenMP because torch's workers spin for a while after each of its operations: the same runtime
 * (same soname) hands them our work; any other pool would compete with them.
 */

#include "_sparse.h"

enum { MOST_ROWS = 12, MOST_VECS = 4, AHEAD = 12 /* rows of a panel to prefetch */ };

/* ---- kernels for each instruction set ----------------------------------------------------------- */

/* What a kernel works on; x, w and y are moved to the rows and columns in question. */
typedef struct {
    const float *x;
    float *w, *y;
    int64_t x_step, w_step, y_step; /* floats from row to row */
    const int32_t *in;
    const int32_t *out;
    int64_t depth; /* channels of x, or pairs */
} Product;

typedef void (*Kernel)(const Product *);

/* What follows the sums of a row. */
typedef struct {
    const float *scale, *shift, *residual; /* scale NULL: nothing but the sums; residual NULL: none */
    int relu;
} Epilogue;

typedef struct {
    int lanes, most_vecs, most_rows[MOST_VECS + 1]; /* rows that fit in registers, per vectors */
    void (*gather)(float *to, int64_t to_step, const float *from, int64_t step, const int32_t *rows,
                   int64_t n, int64_t width);
    void (*finish)(const Epilogue *epilogue, const float *sum, float *y, int64_t n);
    Kernel multiply[MOST_VECS + 1][MOST_ROWS + 1];
    Kernel accumulate[MOST_VECS + 1][MOST_ROWS + 1];
} Kernels;

#if defined(__x86_64__)
#define ISA _avx512
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define BYTES 64
#define REGISTERS 32
#include "_kernels.h"

#define ISA _avx2
#define TARGET __attribute__((target("avx2,fma")))
#define BYTES 32
#define REGISTERS 16
#include "_kernels.h"
#endif

#define ISA _plain
#define TARGET
#define BYTES 16
#if defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#include "_kernels.h"

static int ceiling = 3; /* the best instruction set that may be used; lowered by tests */

/* Allow instruction sets up to `level` (0 what the compiler assumes, 1 AVX2, 2 AVX-512, 3 AMX with
 * bfloat16), or leave it so below 0; returns the one in use from now on. */
int pointzoo_sparse_level(int level) {
    int best = 0;
    if (level >= 0) ceiling = level;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = 1;
    if (__builtin_cpu_supports("avx512f")) best = 2;
    if (has_amx()) best = 3;
#endif
    return best < ceiling ? best : ceiling;
}

static const Kernels *kernels(void) {
#if defined(__x86_64__)
    int level = pointzoo_sparse_level(ceiling);
    if (level >= 2) return &kernels_avx512;
    if (level == 1) return &kernels_avx2;
#endif
    return &kernels_plain;
}

/* ---- panels of columns --------------------------------------------------------------------------- */

/* Columns are cut into panels of `vecs` vectors, the last of `last`; its last vector is padded. */
typedef struct {
    const Kernels *kernels;
    int64_t count, vecs, last;
    int64_t width; /* columns of all panels, with the padding */
} Panels;

static Panels panels_of(int64_t columns) {
    const Kernels *k = kernels();
    int64_t all = ceil_div(columns, k->lanes), vecs = ceil_div(all, ceil_div(all, k->most_vecs));
    int64_t count = ceil_div(all, vecs);
    return (Panels){k, count, vecs, all - (count - 1) * vecs, all * k->lanes};
}

INLINE int64_t panel_start(const Panels *p, int64_t panel) {
    return panel < p->count ? panel * p->vecs * p->kernels->lanes : p->width;
}
INLINE int64_t panel_vecs(const Panels *p, int64_t panel) {
    return panel < p->count - 1 ? p->vecs : p->last;
}

/* ---- products ------------------------------------------------------------------------------------ */

typedef struct {
    Tiles tiles;
    Panels panels;
    const float *x;
    float *packed, *y;
    int64_t depth, columns, y_step; /* floats from row to row of y */
    Epilogue epilogue;
} Convolution;

/* Weights of one offset, panel by panel: (depth, panel width) each, padded with zeros. */
static void pack(const Convolution *c, const float *w, const int64_t *step, int64_t k) {
    float *to = c->packed + k * c->depth * c->panels.width;
    w += k * step[0];
    for (int64_t p = 0; p < c->panels.count; p++) {
        int64_t from = panel_start(&c->panels, p), end = panel_start(&c->panels, p + 1);
        int64_t last = least(end, c->columns);
        for (int64_t i = 0; i < c->depth; i++, to += end - from) {
            const float *row = w + i * step[1];
            if (step[2] == 1) memcpy(to, row + from, (size_t)(last - from) * sizeof *to);
            else
                for (int64_t j = from; j < last; j++) to[j - from] = row[j * step[2]];
            for (int64_t j = last; j < end; j++) to[j - from] = 0;
        }
    }
}

/* Write finished sums (rows, width) to rows of y from column `from` on. */
static void finish(const Convolution *c, const float *sum, int64_t width, int64_t row, int64_t rows,
                   int64_t from, int64_t end) {
    for (int64_t r = 0; r < rows; r++, sum += width) {
        float *y = c->y + (row + r) * c->y_step + from;
        Epilogue e = c->epilogue;
        if (!e.scale) {
            memcpy(y, sum, (size_t)(end - from) * sizeof *sum);
            continue;
        }
        e.scale += from, e.shift += from;
        if (e.residual) e.residual += (row + r) * c->columns + from;
        c->panels.kernels->finish(&e, sum, y, end - from);
    }
}

/* Send for the rows of x of some pairs: they lie anywhere, and no hardware foresees them. */
INLINE void prefetch(const Convolution *c, int64_t pair, int64_t end) {
    int64_t bytes = c->depth * (int64_t)sizeof *c->x;
    for (int64_t i = pair; i < end; i++) {
        const char *row = (const char *)(c->x + c->tiles.in[i] * c->depth);
        for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b, 0, 2);
    }
}

/* One tile of output rows and some panels of columns. */
static void convolve_tile(const Convolution *c, int64_t tile, int64_t panel, int64_t panels,
                          float *sum) {
    const Tiles *t = &c->tiles;
    const Kernels *kernels = c->panels.kernels;
    int64_t all = c->panels.width, first = panel_start(&c->panels, panel);
    int64_t width = panel_start(&c->panels, panels) - first;
    int64_t row = tile * t->tile, rows = least(t->tile, t->rows - row);
    int64_t last = t->starts[(tile + 1) * t->offsets]; /* of the pairs of this tile */
    memset(sum, 0, (size_t)(rows * width) * sizeof *sum);
    for (int64_t k = 0; k < t->offsets; k++) {
        int64_t from = t->starts[tile * t->offsets + k];
        int64_t n = t->starts[tile * t->offsets + k + 1] - from;
        for (int64_t p = panel; n && p < panels; p++) {
            int64_t column = panel_start(&c->panels, p);
            int64_t vecs = panel_vecs(&c->panels, p);
            Product product = {.x = c->x, .x_step = c->depth, .depth = c->depth,
                               .w = c->packed + (k * all + column) * c->depth,
                               .y = sum + column - first, .y_step = width};
            IN_BLOCKS(n, kernels->most_rows[vecs], at, size) {
                product.in = t->in + from + at;
                product.out = t->out + from + at;
                if (p == panel) prefetch(c, from + n + at, least(from + n + at + size, last));
                kernels->multiply[vecs][size](&product);
            }
        }
    }
    finish(c, sum, width, row, rows, first, least(first + width, c->columns));
}

/* Memory that the caller is about to write, and that is fresh. */
int pointzoo_sparse_expect(void *from, int64_t bytes, int threads) {
    (void)threads;
    expect(from, bytes);
    return 0;
}

/* y (rows, columns) = the sums over pairs of x (., depth) times w (offsets, depth, columns), which
 * lies in memory with w_steps[3]. Rows of y are y_step apart, those of the residual `columns`. The
 * epilogue is left out where scale is NULL. 0 when it worked. */
int pointzoo_sparse_convolve(const float *x, const float *w, const int64_t *w_steps, int64_t depth,
                             int64_t columns, int64_t rows, int64_t tile, int64_t offsets,
                             const int64_t *starts, const int32_t *in, const int32_t *out,
                             const float *scale, const float *shift, const float *residual,
                             int64_t relu, float *y, int64_t y_step, int threads) {
    Convolution c = {{rows, tile, offsets, starts, in, out}, panels_of(columns), x, NULL, y, depth,
                     columns, y_step, {scale, shift, residual, (int)relu}};
    int64_t width = c.panels.width, tiles = ceil_div(rows, tile);
    int64_t groups = tiles >= 16 * threads ? 1 : c.panels.count; /* few tiles: share out panels */
    c.packed = reserve(offsets * depth * width * (int64_t)sizeof *c.packed);
    float *sums = reserve(threads * tile * width * (int64_t)sizeof *sums);
    int failed = !c.packed || !sums;
    if (y_step == columns) expect(y, rows * columns * (int64_t)sizeof *y);
    if (!failed) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < offsets; k++) pack(&c, w, w_steps, k);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < tiles * groups; i++) {
                int64_t group = i % groups, count = c.panels.count;
                convolve_tile(&c, i / groups, count * group / groups, count * (group + 1) / groups,
                              sums + thread_number() * tile * width);
            }
        }
    }
    release(c.packed);
    release(sums);
    return failed;
}

/* ---- gradient of the weights --------------------------------------------------------------------- */

enum { BATCH = 256, SKEW = 16 };

typedef struct {
    Convolution c;
    Parts parts;
    float *weights; /* of all parts; where there is one, the result */
} Gradient;

/* Rows of some pairs side by side: x with SKEW floats between rows, as strides of a power of two
 * would make rows evict each other from the cache; y panel by panel. */
typedef struct {
    float *x, *y;
    int64_t count;
} Batch;

static void collect(const Convolution *c, int64_t tile, int64_t from, int64_t n, Batch *b) {
    const Tiles *t = &c->tiles;
    const Panels *panels = &c->panels;
    const float *y = c->y + tile * t->tile * c->columns;
    int64_t step = c->depth + SKEW;
    panels->kernels->gather(b->x, step, c->x, c->depth, t->in + from, n, c->depth);
    for (int64_t p = 0; p < panels->count; p++) {
        int64_t column = panel_start(panels, p), width = panel_start(panels, p + 1) - column;
        panels->kernels->gather(b->y + column * BATCH, width, y + column, c->columns, t->out + from,
                                n, width);
    }
    b->count = n;
}

/* Add what was collected to w (depth, columns). */
static void accumulate_batch(const Convolution *c, const Batch *b, float *w) {
    const Kernels *kernels = c->panels.kernels;
    Product product = {.x_step = c->depth + SKEW, .w_step = c->columns, .depth = b->count};
    for (int64_t p = 0; p < c->panels.count; p++) {
        int64_t column = panel_start(&c->panels, p);
        int64_t vecs = panel_vecs(&c->panels, p);
        product.y = b->y + column * BATCH;
        IN_BLOCKS(c->depth, kernels->most_rows[vecs], at, size) {
            product.x = b->x + at;
            product.w = w + at * c->columns + column;
            kernels->accumulate[vecs][size](&product);
        }
    }
}

static void accumulate_unit(const Gradient *g, int64_t unit, float *room) {
    const Convolution *c = &g->c;
    const Tiles *t = &c->tiles;
    const Parts *parts = &g->parts;
    int64_t size = c->depth * c->columns, part = unit / parts->groups;
    int64_t first = unit % parts->groups * parts->group;
    int64_t tile = part * parts->tiles, end = least(tile + parts->tiles, ceil_div(t->rows, t->tile));
    float *w = g->weights + part * t->offsets * size;
    Batch b = {room, room + BATCH * (c->depth + SKEW), 0};
    for (; tile < end; tile++)
        for (int64_t k = first; k < least(first + parts->group, t->offsets); k++) {
            const int64_t *starts = t->starts + tile * t->offsets + k;
            for (int64_t from = starts[0]; from < starts[1]; from += b.count) {
                collect(c, tile, from, least(starts[1] - from, BATCH), &b);
                accumulate_batch(c, &b, w + k * size);
            }
        }
}

/* w = the weights of all parts added up, for one offset. */
static void add_parts(const Gradient *g, int64_t k, float *w) {
    int64_t size = g->c.depth * g->c.columns, all = g->c.tiles.offsets * size;
    for (int64_t i = k * size; i < (k + 1) * size; i++) {
        float sum = 0;
        for (int64_t part = 0; part < g->parts.count; part++) sum += g->weights[part * all + i];
        w[i] = sum;
    }
}

/* Columns that w and y of pointzoo_sparse_gradient must have for `columns`: whole vectors. */
int64_t pointzoo_sparse_width(int64_t columns) {
    return panels_of(columns).width;
}

/* w (offsets, depth, columns) = the sums over pairs of x (., depth) transposed times y (rows,
 * columns), columns being whole vectors. 0 when it worked. */
int pointzoo_sparse_gradient(const float *x, float *y, int64_t depth, int64_t columns, int64_t rows,
                             int64_t tile, int64_t offsets, const int64_t *starts,
                             const int32_t *in, const int32_t *out, float *w, int threads) {
    if (!rows) return memset(w, 0, (size_t)(offsets * depth * columns) * sizeof *w), 0;
    Gradient g = {.c = {{rows, tile, offsets, starts, in, out}, panels_of(columns), x, NULL, y,
                        depth, columns, columns, {0}}};
    int64_t size = depth * columns, space = BATCH * (depth + SKEW + ceil_div(columns, 16) * 16);
    g.parts = parts_of(&g.c.tiles, threads);
    int64_t parts = g.parts.count;
    g.weights = parts > 1 ? reserve(parts * offsets * size * (int64_t)sizeof *w) : w;
    float *room = reserve(threads * space * (int64_t)sizeof *room);
    int failed = !g.weights || !room;
    if (!failed) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < parts * offsets; i++)
                memset(g.weights + i * size, 0, (size_t)size * sizeof *w);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < parts * g.parts.groups; i++)
                accumulate_unit(&g, i, room + thread_number() * space);
#pragma omp for schedule(static)
            for (int64_t k = 0; k < (parts > 1 ? offsets : 0); k++) add_parts(&g, k, w);
        }
    }
    if (g.weights != w) release(g.weights);
    release(room);
    return failed;
}

/* ---- a module, so that the file may be imported like any other ----------------------------------- */

#if defined(__has_include) && __has_include(<Python.h>)
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_sparse", NULL, 0, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__sparse(void) { return PyModule_Create(&module); }
#else
void *PyInit__sparse(void) { return NULL; }
#endif
