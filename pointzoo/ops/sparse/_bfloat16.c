/* Products and weight gradients in bfloat16 with float32 sums, on CPUs with AMX tiles.
 *
 * The same flow as _sparse.c. A tile register holds 16 rows of 64 bytes. TDPBF16PS adds to a tile
 * of 16 x 16 float32 the product of 16 rows x 32 bfloat16 and of 16 pairs of rows x 16 columns, in
 * which the two values of a pair lie side by side. Tiles have one stride, so that rows are gathered
 * first. Blocks are 2 x 2 tiles: 32 rows x 32 columns; depths and columns are padded with zeros.
 */

#include "_sparse.h"

#if defined(__x86_64__) && defined(__linux__) &&                                                   \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11))

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))

enum { BLOCK = 32, SIDE = 16, TILE_VALUES = 512, BATCH = 512, SPAN = 4 };

typedef uint16_t bf16;

static int find_amx(void) {
    unsigned a, b, c, d, e;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !__get_cpuid_count(7, 1, &e, &a, &a, &a)) return 0;
    int tiles = d >> 22 & 1 && d >> 24 & 1, vectors = b >> 30 & 1 && e >> 5 & 1;
    return tiles && vectors && !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18);
}

/* The kernel keeps tile registers only for processes that have asked for it: once is enough. */
int has_amx(void) {
    static int found = -1;
    if (found < 0) found = find_amx();
    return found;
}

/* ---- tiles --------------------------------------------------------------------------------------- */

typedef struct { uint8_t palette, row, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } TileConfig;

/* All 8 tile registers at full size. What was configured comes back in `saved`; the empty statements
 * tell GCC that all of it is written and read, of which its intrinsics name 8 bytes. */
static TARGET void start_tiles(TileConfig *saved) {
    static const TileConfig full = {
        .palette = 1,
        .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE},
    };
    _tile_storeconfig(saved);
    __asm__ volatile("" : "+m"(*saved));
    _tile_loadconfig(&full);
}

static TARGET void end_tiles(TileConfig *saved) {
    __asm__ volatile("" : "+m"(*saved));
    if (saved->palette) _tile_loadconfig(saved);
    else _tile_release();
}

/* Add to the 2 x 2 tiles 0..3 products of `steps` tiles of a (a_step values apart, with the lower
 * half at a_below and rows of a_bytes) and of b (whole tiles, with the right half at b_right). */
INLINE TARGET void multiply_tiles(const bf16 *a, int64_t a_step, int64_t a_below, int64_t a_bytes,
                                  const bf16 *b, int64_t b_right, int64_t steps) {
    for (int64_t i = 0; i < steps; i++, a += a_step, b += TILE_VALUES) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + b_right, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + a_below, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE TARGET __m512i first_lanes(const void *p, int64_t n) { /* up to 32 bfloat16, zeros behind */
    return n >= 32 ? _mm512_loadu_si512(p)
                   : _mm512_maskz_loadu_epi16(n > 0 ? (1u << n) - 1 : 0, p);
}

INLINE TARGET __m512i to_bf16(__m512 low, __m512 high) {
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Rows p and q with their values side by side: 16 pairs in `low`, the next 16 in `high`. */
INLINE TARGET void interleave(__m512i p, __m512i q, __m512i *low, __m512i *high) {
    const __m512i step = _mm512_set1_epi32(0x00200000); /* 0, 32: the same lane of q */
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i pick = _mm512_or_si512(_mm512_or_si512(lane, _mm512_slli_epi32(lane, 16)), step);
    *low = _mm512_permutex2var_epi16(p, pick, q);
    *high = _mm512_permutex2var_epi16(p, _mm512_add_epi16(pick, _mm512_set1_epi16(16)), q);
}

/* Transpose 16 x 16 pairs. */
INLINE TARGET void transpose(__m512i *r) {
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        UNROLL for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
        }
    }
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* ---- products ------------------------------------------------------------------------------------ */

typedef struct {
    Tiles tiles;
    const bf16 *x, *residual;
    bf16 *packed, *y;
    int64_t depth, columns, deep, wide; /* the latter two padded to whole blocks */
    int64_t y_step; /* numbers from row to row of y */
    const float *scale, *shift;
    int relu;
} Convolution;

typedef struct { /* memory of one thread */
    float *sum, *block;
    bf16 *rows;
} Room;

/* One tile of weights: rows i.. and columns j.. of w, whose columns lie side by side. */
INLINE TARGET void pack_rows(const Convolution *c, const float *w, int64_t step, int64_t i, int64_t j,
                             bf16 *to) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                           23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t n = c->columns - j;
    __mmask16 mask = n >= 16 ? 0xffff : n > 0 ? (1u << n) - 1 : 0;
    for (int r = 0; r < SIDE; r++, i += 2, to += 32) {
        __m512 even = _mm512_maskz_loadu_ps(i < c->depth ? mask : 0, w + i * step + j);
        __m512 odd = _mm512_maskz_loadu_ps(i + 1 < c->depth ? mask : 0, w + (i + 1) * step + j);
        _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, to_bf16(even, odd)));
    }
}

/* The same where the rows of w lie side by side, and columns are `step` apart. */
INLINE TARGET void pack_columns(const Convolution *c, const float *w, int64_t step, int64_t i,
                                int64_t j, bf16 *to) {
    int64_t n = c->depth - i;
    __mmask32 mask = n >= 32 ? 0xffffffff : n > 0 ? (1u << n) - 1 : 0;
    __m512i r[SIDE];
    UNROLL for (int s = 0; s < SIDE; s++) {
        const float *column = w + (j + s) * step + i;
        __mmask32 m = j + s < c->columns ? mask : 0;
        r[s] = to_bf16(_mm512_maskz_loadu_ps((__mmask16)m, column),
                       _mm512_maskz_loadu_ps((__mmask16)(m >> 16), column + 16));
    }
    transpose(r);
    UNROLL for (int s = 0; s < SIDE; s++) _mm512_storeu_si512(to + 32 * s, r[s]);
}

/* The weights of one offset as tiles: all depths of 16 columns after each other. */
static TARGET void pack(const Convolution *c, const float *w, const int64_t *step, int64_t k) {
    bf16 *to = c->packed + k * c->deep * c->wide;
    w += k * step[0];
    for (int64_t j = 0; j < c->wide; j += SIDE)
        for (int64_t i = 0; i < c->deep; i += BLOCK, to += TILE_VALUES) {
            if (step[2] == 1) pack_rows(c, w, step[1], i, j, to);
            else pack_columns(c, w, step[2], i, j, to);
        }
}

static TARGET void gather(const Convolution *c, const int32_t *in, int64_t n, bf16 *to) {
    for (int64_t p = 0; p < n; p++, to += c->deep) {
        const bf16 *row = c->x + in[p] * c->depth, *next = c->x + in[least(p + 8, n - 1)] * c->depth;
        for (int64_t i = 0; i < c->deep; i += BLOCK) {
            _mm_prefetch((const char *)(next + i), _MM_HINT_T0);
            _mm512_storeu_si512(to + i, first_lanes(row + i, c->depth - i));
        }
    }
}

/* sum[out[r]] += block[r], 32 columns. */
INLINE TARGET void scatter(const float *block, const int32_t *out, int64_t n, float *sum,
                           int64_t wide) {
    for (int64_t r = 0; r < n; r++, block += BLOCK) {
        float *to = sum + out[r] * wide;
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_loadu_ps(block)));
        _mm512_storeu_ps(to + 16, _mm512_add_ps(_mm512_loadu_ps(to + 16), _mm512_loadu_ps(block + 16)));
    }
}

static TARGET void multiply_list(const Convolution *c, const bf16 *w, const int32_t *in,
                                 const int32_t *out, int64_t n, const Room *room) {
    gather(c, in, n, room->rows);
    for (int64_t j = 0; j < c->wide; j += BLOCK)
        for (int64_t at = 0; at < n; at += BLOCK) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            multiply_tiles(room->rows + at * c->deep, BLOCK, SIDE * c->deep, 2 * c->deep,
                           w + j * c->deep, SIDE * c->deep, c->deep / BLOCK);
            _tile_stored(0, room->block, 4 * BLOCK);
            _tile_stored(1, room->block + SIDE, 4 * BLOCK);
            _tile_stored(2, room->block + SIDE * BLOCK, 4 * BLOCK);
            _tile_stored(3, room->block + SIDE * BLOCK + SIDE, 4 * BLOCK);
            scatter(room->block, out + at, least(n - at, BLOCK), room->sum + j, c->wide);
        }
}

/* 16 finished sums at a time, through the epilogue, rounded to bfloat16. */
static TARGET void finish(const Convolution *c, const float *sum, int64_t row, int64_t rows) {
    for (int64_t r = 0; r < rows; r++, sum += c->wide)
        for (int64_t j = 0; j < c->columns; j += 16) {
            int64_t at = (row + r) * c->columns + j, n = c->columns - j;
            __mmask16 mask = n >= 16 ? 0xffff : (1u << n) - 1;
            __m512 v = _mm512_loadu_ps(sum + j);
            if (c->scale)
                v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, c->scale + j),
                                    _mm512_maskz_loadu_ps(mask, c->shift + j));
            if (c->residual) {
                __m256i more = _mm256_maskz_loadu_epi16(mask, c->residual + at);
                v = _mm512_add_ps(v, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(more), 16));
            }
            if (c->relu) v = _mm512_max_ps(_mm512_setzero_ps(), v);
            _mm256_mask_storeu_epi16(c->y + (row + r) * c->y_step + j, mask, (__m256i)_mm512_cvtneps_pbh(v));
        }
}

static TARGET void convolve_tile(const Convolution *c, int64_t tile, const Room *room) {
    const Tiles *t = &c->tiles;
    int64_t row = tile * t->tile, rows = least(t->tile, t->rows - row);
    memset(room->sum, 0, (size_t)(rows * c->wide) * sizeof *room->sum);
    for (int64_t k = 0; k < t->offsets; k++) {
        int64_t from = t->starts[tile * t->offsets + k];
        int64_t n = t->starts[tile * t->offsets + k + 1] - from;
        const bf16 *w = c->packed + k * c->deep * c->wide;
        if (n) multiply_list(c, w, t->in + from, t->out + from, n, room);
    }
    finish(c, room->sum, row, rows);
}

static Room room_of(const Convolution *c, char *memory) {
    Room room = {(float *)memory, NULL, NULL};
    room.block = room.sum + c->tiles.tile * c->wide;
    room.rows = (bf16 *)(room.block + BLOCK * BLOCK);
    return room;
}

/* As pointzoo_sparse_convolve, for x, residual and y in bfloat16; only where has_amx(). */
int pointzoo_sparse_convolve_bf16(const bf16 *x, const float *w, const int64_t *w_steps,
                                  int64_t depth, int64_t columns, int64_t rows, int64_t tile,
                                  int64_t offsets, const int64_t *starts, const int32_t *in,
                                  const int32_t *out, const float *scale, const float *shift,
                                  const bf16 *residual, int64_t relu, bf16 *y, int64_t y_step,
                                  int threads) {
    int64_t deep = ceil_div(depth, BLOCK) * BLOCK, wide = ceil_div(columns, BLOCK) * BLOCK;
    Convolution c = {{rows, tile, offsets, starts, in, out}, x, residual, NULL, y, depth, columns,
                     deep, wide, y_step, scale, shift, scale && relu};
    int64_t space = tile * wide * 4 + BLOCK * BLOCK * 4 + (tile + BLOCK) * deep * 2; /* bytes */
    c.packed = reserve(offsets * deep * wide * (int64_t)sizeof *c.packed);
    char *memory = reserve(threads * space);
    int failed = !c.packed || !memory;
    if (y_step == columns) expect(y, rows * columns * (int64_t)sizeof *y);
    if (!failed) {
#pragma omp parallel num_threads(threads)
        {
            Room room = room_of(&c, memory + thread_number() * space);
            TileConfig saved;
            start_tiles(&saved);
#pragma omp for schedule(static)
            for (int64_t k = 0; k < offsets; k++) pack(&c, w, w_steps, k);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < ceil_div(rows, tile); i++) convolve_tile(&c, i, &room);
            end_tiles(&saved);
        }
    }
    release(c.packed);
    release(memory);
    return failed;
}

/* ---- gradient of the weights --------------------------------------------------------------------- */

/* Pairs are laid out as tiles, 32 pairs to each: x with one channel to a row, y with one pair of
 * pairs to a row. The tiles of 16 channels and all pairs of a batch follow each other. */
typedef struct {
    bf16 *x, *y;
    int32_t in[BATCH], out[BATCH];
    int64_t count;
} Batch;

/* Two rows of 32 channels from channel i on, side by side; rows beyond the batch are zero. */
INLINE TARGET void load_rows(const bf16 *from, const int32_t *rows, int64_t p, int64_t n,
                             int64_t width, int64_t i, __m512i *low, __m512i *high) {
    __m512i even = first_lanes(from + rows[p] * width + i, p < n ? width - i : 0);
    __m512i odd = p + 1 < n ? first_lanes(from + rows[p + 1] * width + i, width - i)
                            : _mm512_setzero_si512();
    interleave(even, odd, low, high);
}

static TARGET void collect_x(const Convolution *c, const Batch *b, int64_t steps) {
    for (int64_t s = 0; s < steps; s++)
        for (int64_t i = 0; i < c->deep; i += BLOCK) {
            __m512i low[SIDE], high[SIDE];
            bf16 *to = b->x + (i / SIDE * steps + s) * TILE_VALUES;
            for (int r = 0; r < SIDE; r++)
                load_rows(c->x, b->in, s * BLOCK + 2 * r, b->count, c->depth, i, low + r, high + r);
            transpose(low);
            transpose(high);
            for (int r = 0; r < SIDE; r++) {
                _mm512_storeu_si512(to + 32 * r, low[r]);
                _mm512_storeu_si512(to + steps * TILE_VALUES + 32 * r, high[r]);
            }
        }
}

static TARGET void collect_y(const Convolution *c, const Batch *b, int64_t steps) {
    for (int64_t s = 0; s < steps; s++)
        for (int64_t i = 0; i < c->wide; i += BLOCK) {
            bf16 *to = b->y + (i / SIDE * steps + s) * TILE_VALUES;
            for (int r = 0; r < SIDE; r++, to += 32) {
                __m512i low, high;
                load_rows(c->y, b->out, s * BLOCK + 2 * r, b->count, c->columns, i, &low, &high);
                _mm512_storeu_si512(to, low);
                _mm512_storeu_si512(to + steps * TILE_VALUES, high);
            }
        }
}

/* Add what was collected to w (deep, wide). */
static TARGET void accumulate(const Convolution *c, Batch *b, float *w) {
    int64_t steps = ceil_div(b->count, BLOCK), below = SIDE * c->wide;
    collect_x(c, b, steps);
    collect_y(c, b, steps);
    for (int64_t i = 0; i < c->deep; i += BLOCK)
        for (int64_t j = 0; j < c->wide; j += BLOCK) {
            float *to = w + i * c->wide + j;
            _tile_loadd(0, to, 4 * c->wide);
            _tile_loadd(1, to + SIDE, 4 * c->wide);
            _tile_loadd(2, to + below, 4 * c->wide);
            _tile_loadd(3, to + below + SIDE, 4 * c->wide);
            multiply_tiles(b->x + i / SIDE * steps * TILE_VALUES, TILE_VALUES, steps * TILE_VALUES,
                           64, b->y + j / SIDE * steps * TILE_VALUES, steps * TILE_VALUES, steps);
            _tile_stored(0, to, 4 * c->wide);
            _tile_stored(1, to + SIDE, 4 * c->wide);
            _tile_stored(2, to + below, 4 * c->wide);
            _tile_stored(3, to + below + SIDE, 4 * c->wide);
        }
    b->count = 0;
}

/* One part and group of offsets; the lists of a few tiles together fill a batch. */
static TARGET void accumulate_unit(const Convolution *c, const Parts *parts, int64_t unit, float *w,
                                   Batch *b) {
    const Tiles *t = &c->tiles;
    int64_t size = c->deep * c->wide, part = unit / parts->groups;
    int64_t first = unit % parts->groups * parts->group;
    int64_t tile = part * parts->tiles, end = least(tile + parts->tiles, ceil_div(t->rows, t->tile));
    w += part * t->offsets * size;
    for (; tile < end; tile += SPAN)
        for (int64_t k = first; k < least(first + parts->group, t->offsets); k++) {
            for (int64_t i = tile; i < least(tile + SPAN, end); i++) {
                const int64_t *starts = t->starts + i * t->offsets + k;
                for (int64_t p = starts[0]; p < starts[1]; p++) {
                    b->in[b->count] = t->in[p];
                    b->out[b->count++] = (int32_t)(t->out[p] + i * t->tile);
                    if (b->count == BATCH) accumulate(c, b, w + k * size);
                }
            }
            if (b->count) accumulate(c, b, w + k * size);
        }
}

/* w (offsets, depth, columns) = the padded weights of all parts added up, for one offset. */
static void add_parts(const Convolution *c, int64_t parts, const float *weights, int64_t k,
                      float *w) {
    int64_t size = c->deep * c->wide, all = c->tiles.offsets * size;
    w += k * c->depth * c->columns;
    for (int64_t i = 0; i < c->depth; i++)
        for (int64_t j = 0; j < c->columns; j++) {
            float sum = 0;
            for (int64_t p = 0; p < parts; p++) sum += weights[p * all + k * size + i * c->wide + j];
            *w++ = sum;
        }
}

/* As pointzoo_sparse_gradient, for x and y in bfloat16 and any number of columns. */
int pointzoo_sparse_gradient_bf16(const bf16 *x, bf16 *y, int64_t depth, int64_t columns,
                                  int64_t rows, int64_t tile, int64_t offsets,
                                  const int64_t *starts, const int32_t *in, const int32_t *out,
                                  float *w, int threads) {
    if (!rows) return memset(w, 0, (size_t)(offsets * depth * columns) * sizeof *w), 0;
    int64_t deep = ceil_div(depth, BLOCK) * BLOCK, wide = ceil_div(columns, BLOCK) * BLOCK;
    Convolution c = {{rows, tile, offsets, starts, in, out}, x, NULL, NULL, y, depth, columns, deep,
                     wide, columns, NULL, NULL, 0};
    Parts parts = parts_of(&c.tiles, threads);
    int64_t size = parts.count * offsets * deep * wide, space = BATCH * (deep + wide);
    float *weights = reserve(size * (int64_t)sizeof *weights);
    bf16 *memory = reserve(threads * space * (int64_t)sizeof *memory);
    int failed = !weights || !memory;
    if (!failed) {
#pragma omp parallel num_threads(threads)
        {
            Batch batch = {.x = memory + thread_number() * space};
            batch.y = batch.x + BATCH * deep;
            TileConfig saved;
            start_tiles(&saved);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < parts.count * offsets; i++)
                memset(weights + i * deep * wide, 0, (size_t)(deep * wide) * sizeof *weights);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < parts.count * parts.groups; i++)
                accumulate_unit(&c, &parts, i, weights, &batch);
#pragma omp for schedule(static)
            for (int64_t k = 0; k < offsets; k++) add_parts(&c, parts.count, weights, k, w);
            end_tiles(&saved);
        }
    }
    release(weights);
    release(memory);
    return failed;
}

#else

int has_amx(void) { return 0; }
int pointzoo_sparse_convolve_bf16(void) { return 1; }
int pointzoo_sparse_gradient_bf16(void) { return 1; }

#endif
