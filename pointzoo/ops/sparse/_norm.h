/* The loops of _norm.c, compiled once per instruction set (ISA, a suffix; TARGET, an attribute).
 *
 * Rows are float32 or, where `half`, bfloat16; sums are float64, added up row by row.
 */

#define NAME_(f, isa) f##isa
#define NAME_OF(f, isa) NAME_(f, isa)
#define NAME(f) NAME_OF(f, ISA)

/* sum[c] and square[c] of rows of x. */
INLINE TARGET void NAME(moments)(const void *x, int64_t from, int64_t to, int64_t columns,
                                 double *restrict sum, double *restrict square, const int half) {
    for (int64_t r = from; r < to; r++)
        for (int64_t c = 0; c < columns; c++) {
            double v = get(x, r * columns + c, half);
            sum[c] += v;
            square[c] += v * v;
        }
}

/* sum[c] of the gradient behind the ReLU, and product[c] of it and x - mean. */
INLINE TARGET void NAME(slopes)(const Backward *b, int64_t from, int64_t to, double *restrict sum,
                                double *restrict product, const int relu, const int half) {
    const void *restrict x = b->x, *restrict y = b->y, *restrict grad = b->grad;
    const float *restrict mean = b->mean;
    int64_t columns = b->columns;
    for (int64_t r = from; r < to; r++)
        for (int64_t c = 0, i = r * columns; c < columns; c++, i++) {
            float g = get(grad, i, half);
            if (relu) g = behind(g, get(y, i, half));
            sum[c] += g;
            product[c] += (double)g * (get(x, i, half) - mean[c]);
        }
}

/* y = x * scale + shift, plus more, above 0. */
INLINE TARGET void NAME(apply)(const Forward *f, int64_t from, int64_t to, const int more,
                               const int relu, const int half) {
    const void *restrict x = f->x, *restrict other = f->more;
    const float *restrict scale = f->scale, *restrict shift = f->shift;
    void *restrict y = f->y;
    int64_t columns = f->columns;
    for (int64_t r = from; r < to; r++)
        for (int64_t c = 0, i = r * columns; c < columns; c++, i++) {
            float v = get(x, i, half) * scale[c] + shift[c];
            if (more) v += get(other, i, half);
            if (relu) v = v < 0 ? 0 : v; /* a NaN stays */
            put(y, i, v, half);
        }
}

/* dx = g * scale - (x - mean) * slope - level; g, the gradient behind the ReLU, goes to dmore. */
INLINE TARGET void NAME(turn)(const Backward *b, int64_t from, int64_t to, const int more,
                              const int relu, const int half) {
    const void *restrict x = b->x, *restrict y = b->y, *restrict grad = b->grad;
    const float *restrict mean = b->mean, *restrict scale = b->scale;
    const float *restrict slope = b->slope, *restrict level = b->level;
    void *restrict dx = b->dx, *restrict dmore = b->dmore;
    int64_t columns = b->columns;
    for (int64_t r = from; r < to; r++)
        for (int64_t c = 0, i = r * columns; c < columns; c++, i++) {
            float g = get(grad, i, half);
            if (relu) g = behind(g, get(y, i, half));
            if (more) put(dmore, i, g, half);
            put(dx, i, g * scale[c] - (get(x, i, half) - mean[c]) * slope[c] - level[c], half);
        }
}

#define CHOOSE(f, ...)                                                                             \
    do {                                                                                           \
        if (half) f(__VA_ARGS__, 1);                                                               \
        else f(__VA_ARGS__, 0);                                                                    \
    } while (0)

static TARGET void NAME(moments_of)(const void *x, int64_t from, int64_t to, int64_t columns,
                                    double *sum, double *square, int half) {
    CHOOSE(NAME(moments), x, from, to, columns, sum, square);
}

static TARGET void NAME(slopes_of)(const Backward *b, int64_t from, int64_t to, double *sum,
                                   double *product, int half) {
    if (b->relu) CHOOSE(NAME(slopes), b, from, to, sum, product, 1);
    else CHOOSE(NAME(slopes), b, from, to, sum, product, 0);
}

static TARGET void NAME(apply_to)(const Forward *f, int64_t from, int64_t to, int half) {
    if (f->more && f->relu) CHOOSE(NAME(apply), f, from, to, 1, 1);
    else if (f->more) CHOOSE(NAME(apply), f, from, to, 1, 0);
    else if (f->relu) CHOOSE(NAME(apply), f, from, to, 0, 1);
    else CHOOSE(NAME(apply), f, from, to, 0, 0);
}

static TARGET void NAME(turn_to)(const Backward *b, int64_t from, int64_t to, int half) {
    if (b->dmore && b->relu) CHOOSE(NAME(turn), b, from, to, 1, 1);
    else if (b->dmore) CHOOSE(NAME(turn), b, from, to, 1, 0);
    else if (b->relu) CHOOSE(NAME(turn), b, from, to, 0, 1);
    else CHOOSE(NAME(turn), b, from, to, 0, 0);
}

static const Loops NAME(loops) = {NAME(moments_of), NAME(slopes_of), NAME(apply_to), NAME(turn_to)};

#undef CHOOSE
#undef NAME
#undef NAME_OF
#undef NAME_
#undef ISA
#undef TARGET
