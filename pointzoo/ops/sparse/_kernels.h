/* The inner loops of _sparse.c, compiled once per instruction set.
 *
 * The including file defines ISA (a suffix), TARGET (a function attribute), BYTES (of a vector) and
 * REGISTERS (16 or 32 of them). Blocks of rows x vectors are kept in registers: their sizes are
 * constants where `multiply` and `accumulate` are inlined, so that all loops but the longest unroll.
 */

#define LANES (BYTES / 4)
#define NAME_(f, isa) f##isa
#define NAME_OF(f, isa) NAME_(f, isa)
#define NAME(f) NAME_OF(f, ISA)
#define vec NAME(vec)
#define unaligned NAME(unaligned)
#define bits NAME(bits)

typedef float vec __attribute__((vector_size(BYTES)));
typedef float unaligned __attribute__((vector_size(BYTES), aligned(4)));
typedef int32_t bits __attribute__((vector_size(BYTES)));

#define LOAD(p) (*(const unaligned *)(p))
#define STORE(p, v) (*(unaligned *)(p) = (v))

/* y[out[r]] += x[in[r]] @ w, for a few rows and one panel of columns. */
INLINE TARGET void NAME(multiply)(const int rows, const int vecs, const Product *t) {
    const float *x[MOST_ROWS], *w = t->w;
    vec sum[MOST_ROWS][MOST_VECS];
    UNROLL for (int r = 0; r < rows; r++) {
        x[r] = t->x + t->in[r] * t->x_step;
        UNROLL for (int v = 0; v < vecs; v++) sum[r][v] = (vec){0};
    }
    for (int64_t i = 0, n = t->depth; i < n; i++, w += vecs * LANES) {
        vec b[MOST_VECS];
        UNROLL for (int v = 0; v < vecs; v++) {
            b[v] = LOAD(w + v * LANES);
            __builtin_prefetch(w + (AHEAD * vecs + v) * LANES);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            float a = x[r][i];
            UNROLL for (int v = 0; v < vecs; v++) sum[r][v] += a * b[v];
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        float *y = t->y + t->out[r] * t->y_step;
        UNROLL for (int v = 0; v < vecs; v++)
            STORE(y + v * LANES, LOAD(y + v * LANES) + sum[r][v]);
    }
}

/* w[0..rows) += the sum over p of x[p][0..rows) times y[p], one panel of columns. */
INLINE TARGET void NAME(accumulate)(const int rows, const int vecs, const Product *t) {
    const float *x = t->x, *y = t->y;
    vec sum[MOST_ROWS][MOST_VECS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vecs; v++) {
            __builtin_prefetch(t->w + r * t->w_step + v * LANES, 1);
            sum[r][v] = (vec){0};
        }
    for (int64_t p = 0, n = t->depth; p < n; p++, x += t->x_step, y += vecs * LANES) {
        vec b[MOST_VECS];
        UNROLL for (int v = 0; v < vecs; v++) {
            b[v] = LOAD(y + v * LANES);
            __builtin_prefetch(y + (AHEAD * vecs + v) * LANES);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            float a = x[r];
            UNROLL for (int v = 0; v < vecs; v++) sum[r][v] += a * b[v];
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        float *w = t->w + r * t->w_step;
        UNROLL for (int v = 0; v < vecs; v++)
            STORE(w + v * LANES, LOAD(w + v * LANES) + sum[r][v]);
    }
}

/* to[p] = from[rows[p]], `width` floats each. */
static TARGET void NAME(gather)(float *to, int64_t to_step, const float *from, int64_t step,
                                const int32_t *rows, int64_t n, int64_t width) {
    for (int64_t p = 0; p < n; p++, to += to_step) {
        const float *row = from + rows[p] * step, *next = from + rows[least(p + 8, n - 1)] * step;
        int64_t i = 0;
        for (int64_t j = 0; j < width; j += 16) __builtin_prefetch(next + j);
        for (; i + LANES <= width; i += LANES) STORE(to + i, LOAD(row + i));
        for (; i < width; i++) to[i] = row[i];
    }
}

INLINE TARGET vec NAME(ended)(const Epilogue *e, vec sum, int64_t j) {
    sum = sum * LOAD(e->scale + j) + LOAD(e->shift + j);
    if (e->residual) sum += LOAD(e->residual + j);
    return e->relu ? (vec)((bits)sum & ~(bits)(sum < 0.f)) : sum; /* NaN stays */
}

/* y (n) = the sums of a row, through the epilogue. */
static TARGET void NAME(finish)(const Epilogue *e, const float *sum, float *y, int64_t n) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) STORE(y + j, NAME(ended)(e, LOAD(sum + j), j));
    for (; j < n; j++) {
        float v = sum[j] * e->scale[j] + e->shift[j];
        if (e->residual) v += e->residual[j];
        y[j] = e->relu && v < 0 ? 0 : v;
    }
}

#define INSTANCE(vecs, rows)                                                                       \
    static TARGET void NAME(multiply_##vecs##_##rows)(const Product *t) {                          \
        NAME(multiply)(rows, vecs, t);                                                             \
    }                                                                                              \
    static TARGET void NAME(accumulate_##vecs##_##rows)(const Product *t) {                        \
        NAME(accumulate)(rows, vecs, t);                                                           \
    }
#define EACH_6(vecs, F) F(vecs, 1) F(vecs, 2) F(vecs, 3) F(vecs, 4) F(vecs, 5) F(vecs, 6)
#define EACH_8(vecs, F) EACH_6(vecs, F) F(vecs, 7) F(vecs, 8)
#define EACH_12(vecs, F) EACH_8(vecs, F) F(vecs, 9) F(vecs, 10) F(vecs, 11) F(vecs, 12)
#define MULTIPLY(vecs, rows) NAME(multiply_##vecs##_##rows),
#define ACCUMULATE(vecs, rows) NAME(accumulate_##vecs##_##rows),

#if REGISTERS == 32
EACH_12(1, INSTANCE)
EACH_12(2, INSTANCE)
EACH_8(3, INSTANCE)
EACH_6(4, INSTANCE)
static const Kernels NAME(kernels) = {
    LANES, 4, {0, 12, 12, 8, 6}, NAME(gather), NAME(finish),
    {{0}, {0, EACH_12(1, MULTIPLY)}, {0, EACH_12(2, MULTIPLY)}, {0, EACH_8(3, MULTIPLY)},
     {0, EACH_6(4, MULTIPLY)}},
    {{0}, {0, EACH_12(1, ACCUMULATE)}, {0, EACH_12(2, ACCUMULATE)}, {0, EACH_8(3, ACCUMULATE)},
     {0, EACH_6(4, ACCUMULATE)}},
};
#else
EACH_8(1, INSTANCE)
EACH_6(2, INSTANCE)
static const Kernels NAME(kernels) = {
    LANES, 2, {0, 8, 6}, NAME(gather), NAME(finish),
    {{0}, {0, EACH_8(1, MULTIPLY)}, {0, EACH_6(2, MULTIPLY)}},
    {{0}, {0, EACH_8(1, ACCUMULATE)}, {0, EACH_6(2, ACCUMULATE)}},
};
#endif

#undef INSTANCE
#undef EACH_6
#undef EACH_8
#undef EACH_12
#undef MULTIPLY
#undef ACCUMULATE
#undef LOAD
#undef STORE
#undef vec
#undef unaligned
#undef bits
#undef NAME
#undef NAME_OF
#undef NAME_
#undef LANES
#undef ISA
#undef TARGET
#undef BYTES
#undef REGISTERS
