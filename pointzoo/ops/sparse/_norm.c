/* Batch normalisation in training, with the addition and the ReLU behind it, and their gradients.
 *
 * Layer by layer, PyTorch reads and writes each of these rows two to three times as often; on the
 * voxels of a scene that costs as much as a quarter of a training step. Here x is read twice in either
 * direction. Sums are float64, in parts whose number depends on the rows alone: results are
 * equal to the bit at any number of threads.
 */

#include "_sparse.h"

INLINE float get(const void *from, int64_t i, const int half) {
    if (!half) return ((const float *)from)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE void put(void *to, int64_t i, float value, const int half) {
    if (!half) {
        ((float *)to)[i] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1); /* to the nearest, to even */
    ((uint16_t *)to)[i] = value != value ? 0x7fc0 : (uint16_t)(bits >> 16);
}

/* The gradient of a ReLU that gave y; as bits, since compilers do not vectorise the choice. */
INLINE float behind(float gradient, float y) {
    uint32_t bits;
    memcpy(&bits, &gradient, sizeof bits);
    bits &= -(uint32_t)(y > 0);
    memcpy(&gradient, &bits, sizeof bits);
    return gradient;
}

typedef struct {
    const void *x, *more; /* more NULL: nothing is added */
    const float *scale, *shift;
    int64_t columns;
    int relu;
    void *y;
} Forward;

typedef struct {
    const void *x, *y, *grad;
    const float *mean, *scale, *slope, *level;
    int64_t columns;
    int relu;
    void *dx, *dmore; /* dmore NULL: nobody asks */
} Backward;

typedef struct {
    void (*moments)(const void *, int64_t, int64_t, int64_t, double *, double *, int);
    void (*slopes)(const Backward *, int64_t, int64_t, double *, double *, int);
    void (*apply)(const Forward *, int64_t, int64_t, int);
    void (*turn)(const Backward *, int64_t, int64_t, int);
} Loops;

#if defined(__x86_64__)
#define ISA _avx512
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#include "_norm.h"
#define ISA _avx2
#define TARGET __attribute__((target("avx2,fma")))
#include "_norm.h"
#endif
#define ISA _plain
#define TARGET
#include "_norm.h"

int pointzoo_sparse_level(int level); /* the instruction set in use, _sparse.c */

static const Loops *loops(void) {
#if defined(__x86_64__)
    int level = pointzoo_sparse_level(-1);
    if (level >= 2) return &loops_avx512;
    if (level == 1) return &loops_avx2;
#endif
    return &loops_plain;
}

/* ---- sums over rows -------------------------------------------------------------------------------- */

enum { SHARE = 2048, MOST_SHARES = 64, CHUNK = 256 };

/* Two sums for each column: of x and its square, or, where there is b, of the gradient and its product
 * with x. `sums` (2, columns). 0 when it worked. */
static int add_up(const void *x, const Backward *b, int64_t rows, int64_t columns, int half,
                  double *sums, int threads) {
    int64_t shares = least(ceil_div(rows, SHARE), MOST_SHARES), size = 2 * columns;
    double *parts = calloc((size_t)(shares * size), sizeof *parts);
    const Loops *loop = loops();
    if (!parts) return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t s = 0; s < shares; s++) {
        int64_t from = rows * s / shares, to = rows * (s + 1) / shares;
        double *sum = parts + s * size;
        if (b) loop->slopes(b, from, to, sum, sum + columns, half);
        else loop->moments(x, from, to, columns, sum, sum + columns, half);
    }
    memset(sums, 0, (size_t)size * sizeof *sums);
    for (int64_t s = 0; s < shares; s++)
        for (int64_t c = 0; c < size; c++) sums[c] += parts[s * size + c];
    free(parts);
    return 0;
}

/* sums (2, columns): of the rows of x and of their squares. */
int pointzoo_sparse_moments(const void *x, int64_t rows, int64_t columns, int64_t half,
                            double *sums, int threads) {
    return add_up(x, NULL, rows, columns, (int)half, sums, threads);
}

/* y = x * scale + shift + more, above 0 where there is `relu`; more may be NULL. */
int pointzoo_sparse_normalise(const void *x, const void *more, const float *scale,
                              const float *shift, int64_t rows, int64_t columns, int64_t relu,
                              int64_t half, void *y, int threads) {
    Forward f = {x, more, scale, shift, columns, (int)relu, y};
    const Loops *loop = loops();
    expect(y, rows * columns * (half ? 2 : 4));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < ceil_div(rows, CHUNK); i++)
        loop->apply(&f, i * CHUNK, least((i + 1) * CHUNK, rows), (int)half);
    return 0;
}

/* sums (2, columns): of the gradient behind the ReLU, and of its product with x - mean. */
int pointzoo_sparse_slopes(const void *x, const void *y, const void *grad, const float *mean,
                           int64_t rows, int64_t columns, int64_t relu, int64_t half, double *sums,
                           int threads) {
    Backward b = {.x = x, .y = y, .grad = grad, .mean = mean, .columns = columns, .relu = (int)relu};
    return add_up(x, &b, rows, columns, (int)half, sums, threads);
}

/* dx = g * scale - (x - mean) * slope - level, g being the gradient behind the ReLU, which also goes to
 * dmore unless that is NULL. */
int pointzoo_sparse_turn(const void *x, const void *y, const void *grad, const float *mean,
                         const float *scale, const float *slope, const float *level, int64_t rows,
                         int64_t columns, int64_t relu, int64_t half, void *dx, void *dmore,
                         int threads) {
    Backward b = {x, y, grad, mean, scale, slope, level, columns, (int)relu, dx, dmore};
    const Loops *loop = loops();
    expect(dx, rows * columns * (half ? 2 : 4));
    if (dmore) expect(dmore, rows * columns * (half ? 2 : 4));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < ceil_div(rows, CHUNK); i++)
        loop->turn(&b, i * CHUNK, least((i + 1) * CHUNK, rows), (int)half);
    return 0;
}
