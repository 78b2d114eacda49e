/* Farthest point sampling, nearest neighbours and ball crops on the CPU, 3 x float32.
 *
 * Plain C with GCC or Clang; loaded with ctypes on tensor.data_ptr(), no torch or numpy headers.
 * The results equal the PyTorch functions of sampling.py and neighbors.py bit for bit:
 *   - a squared distance is (dx*dx + dy*dy) + dz*dz, rounded after each operation (no FMA), and
 *   - equal distances are ordered by row: candidates are compared as 64-bit keys, the bits of the
 *     distance (never negative, so that its bits are ordered as it is) above the row.
 * The caller has checked sizes and rows, and that coordinates are finite and at most 1e15 in size.
 *
 * Large clouds are sorted along a Morton curve and cut into blocks of LANES points. Blocks, and
 * groups of FAN blocks, and groups of those, have bounding boxes. The distance to a box is computed
 * by the same operations as one to a point; as rounding is monotonic, it never exceeds the computed
 * distance to a point inside, so that skipping a box changes nothing.
 *
 * Parallel loops run over clouds or queries, never inside a sum: results do not depend on the
 * number of threads. OpenMP because torch's workers spin for a while after each of its operations:
 * the same runtime (same soname) hands them our work; any other pool would compete with them.
 */

#include "_select.h"

#ifdef _OPENMP
#include <omp.h>
#define thread_number() omp_get_thread_num()
#else
#define thread_number() 0
#endif

enum { FAN = 16, LEVELS = 8, STRIDE = 256, CHUNK = 64 };
enum { DIRECT_FPS = 4096, DIRECT_KNN = 4096 }; /* points up to which boxes do not pay */
#define FAR 1e18f              /* padding: farther than any point, its square still finite */
#define NOTHING 0x7f800000ffffffff /* key of an infinite distance */

/* ---- small pieces ---------------------------------------------------------------------------- */

INLINE float square_distance(float ax, float ay, float az, float bx, float by, float bz) {
    float dx = ax - bx, dy = ay - by, dz = az - bz;
    return dx * dx + dy * dy + dz * dz;
}

INLINE uint32_t at_least(const float *d, float bound) {
    uint32_t mask = 0;
    for (int l = 0; l < LANES; l++) mask |= d[l] >= bound ? 1u << l : 0u;
    return mask;
}

/* ---- a cloud, its axes apart, in Morton order with boxes where it is large ---------------------- */

typedef struct { float *lo[3], *hi[3]; } Boxes;

typedef struct {
    int64_t n, padded;          /* points; rounded up to whole blocks */
    float *axis[3];             /* padded coordinates */
    uint32_t *row;              /* row within the cloud; NULL where order is that of the input */
    int levels;                 /* 0: no boxes */
    int64_t count[LEVELS];      /* boxes per level; level 0 holds one per block of points */
    Boxes boxes[LEVELS];
    uint32_t *code;             /* Morton code of the first point of each block */
    float low[3], scale;        /* of the codes */
    void *memory;
} Cloud;

INLINE uint32_t spread(uint32_t v) { /* 10 bits -> every third bit */
    v = (v | v << 16) & 0x030000ff;
    v = (v | v << 8) & 0x0300f00f;
    v = (v | v << 4) & 0x030c30c3;
    return (v | v << 2) & 0x09249249;
}

static uint32_t morton(const Cloud *c, const float *p) {
    uint32_t code = 0;
    for (int a = 0; a < 3; a++) {
        float cell = (p[a] - c->low[a]) * c->scale;
        cell = cell > 0 ? cell : 0;
        code |= spread(cell < 1023 ? (uint32_t)cell : 1023) << a;
    }
    return code;
}

/* Rows in order of (Morton code, row), as keys; `spare` is as large as `keys`. */
static void morton_sort(const Cloud *c, const float *p, int64_t n, int64_t *keys, int64_t *spare) {
    for (int64_t i = 0; i < n; i++) keys[i] = (int64_t)morton(c, p + 3 * i) << 32 | (uint32_t)i;
    for (int shift = 32; shift < 62; shift += 10) {
        int64_t first[1025] = {0};
        for (int64_t i = 0; i < n; i++) first[(keys[i] >> shift & 1023) + 1]++;
        for (int d = 0; d < 1024; d++) first[d + 1] += first[d];
        for (int64_t i = 0; i < n; i++) spare[first[keys[i] >> shift & 1023]++] = keys[i];
        int64_t *t = keys;
        keys = spare, spare = t;
    }
    memcpy(spare, keys, (size_t)n * sizeof *keys); /* three passes: the result lies in `spare` */
}

static void frame(Cloud *c, const float *p) {
    float hi[3], extent = 0;
    for (int a = 0; a < 3; a++) c->low[a] = hi[a] = p[a];
    for (int64_t i = 0; i < c->n; i++)
        for (int a = 0; a < 3; a++) {
            float v = p[3 * i + a];
            c->low[a] = v < c->low[a] ? v : c->low[a];
            hi[a] = v > hi[a] ? v : hi[a];
        }
    for (int a = 0; a < 3; a++) extent = hi[a] - c->low[a] > extent ? hi[a] - c->low[a] : extent;
    c->scale = extent > 1e-30f ? 1024.0f / extent : 0.0f;
}

static void bound(Cloud *c) {
    for (int level = 0; level < c->levels; level++) {
        int64_t width = level ? FAN : LANES, below = level ? c->count[level - 1] : c->n;
        for (int a = 0; a < 3; a++) {
            const float *lo = level ? c->boxes[level - 1].lo[a] : c->axis[a];
            const float *hi = level ? c->boxes[level - 1].hi[a] : c->axis[a];
            for (int64_t b = 0; b < round_up(c->count[level], FAN); b++) {
                float least = FAR, most = -FAR; /* an empty box is far from everything */
                for (int64_t i = b * width; i < (b + 1) * width && i < below; i++) {
                    least = lo[i] < least ? lo[i] : least;
                    most = hi[i] > most ? hi[i] : most;
                }
                c->boxes[level].lo[a][b] = least, c->boxes[level].hi[a][b] = most;
            }
        }
    }
}

/* Build from n points (n, 3); with boxes when `boxed`. Returns 0, or 1 when memory is short. */
static int build(Cloud *c, const float *p, int64_t n, int boxed) {
    memset(c, 0, sizeof *c);
    c->n = n, c->padded = round_up(n, LANES);
    int64_t blocks = c->padded / LANES, floats = 3 * c->padded, words = 0;
    if (boxed) {
        int64_t b = blocks;
        do {
            c->count[c->levels++] = b;
            floats += 6 * round_up(b, FAN);
            b = round_up(b, FAN) / FAN;
        } while (c->count[c->levels - 1] > FAN);
        words = c->padded + blocks;
    }
    float *f = c->memory = malloc((size_t)(floats + words) * 4);
    int64_t *keys = boxed ? malloc((size_t)n * 16) : NULL;
    if (!f || (boxed && !keys)) {
        free(f), free(keys), c->memory = NULL;
        return 1;
    }
    for (int a = 0; a < 3; a++, f += c->padded) c->axis[a] = f;
    for (int level = 0; level < c->levels; level++)
        for (int a = 0; a < 3; a++) {
            c->boxes[level].lo[a] = f, f += round_up(c->count[level], FAN);
            c->boxes[level].hi[a] = f, f += round_up(c->count[level], FAN);
        }
    if (boxed) {
        c->row = (uint32_t *)f, c->code = c->row + c->padded;
        frame(c, p);
        morton_sort(c, p, n, keys, keys + n);
        for (int64_t i = 0; i < n; i++) c->row[i] = (uint32_t)keys[i];
        for (int64_t i = n; i < c->padded; i++) c->row[i] = UINT32_MAX;
        for (int64_t b = 0; b < blocks; b++) c->code[b] = (uint32_t)(keys[b * LANES] >> 32);
        free(keys);
    }
    for (int64_t i = 0; i < c->padded; i++)
        for (int a = 0; a < 3; a++)
            c->axis[a][i] = i >= n ? FAR : p[3 * (boxed ? (int64_t)c->row[i] : i) + a];
    bound(c);
    return 0;
}

/* Squared distances from a point to FAN boxes. */
INLINE void box_distances(const Boxes *b, int64_t at, const float *p, float *out) {
    for (int l = 0; l < FAN; l++) {
        float d[3];
        for (int a = 0; a < 3; a++) {
            float under = b->lo[a][at + l] - p[a], over = p[a] - b->hi[a][at + l];
            float outside = under > over ? under : over;
            d[a] = outside > 0 ? outside : 0;
        }
        out[l] = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    }
}

/* ---- farthest point sampling -------------------------------------------------------------------- */

/* Lower nearest[] by the distances to p over [from, to), whole LANES, and return its maximum. */
INLINE float lower(
    const Cloud *c, float *restrict nearest, int64_t from, int64_t to, const float *p) {
    const float *restrict x = c->axis[0], *restrict y = c->axis[1], *restrict z = c->axis[2];
    float px = p[0], py = p[1], pz = p[2];
    int32_t most = -1; /* compared as bits: an order of float that needs no relaxed arithmetic */
    float top = -1.0f;
    for (int64_t i = from; i < to; i++) {
        float d = square_distance(x[i], y[i], z[i], px, py, pz);
        float m = nearest[i] < d ? nearest[i] : d;
        int32_t bits;
        memcpy(&bits, &m, 4);
        nearest[i] = m;
        most = bits > most ? bits : most;
    }
    if (most >= 0) memcpy(&top, &most, 4);
    return top;
}

/* One step over all points; returns the row of the farthest, the lowest of several. */
KERNEL static int64_t fps_step(const Cloud *c, float *nearest, const float *p) {
    float best = -1.0f;
    int64_t at = 0;
    for (int64_t i = 0; i < c->padded; i += STRIDE) {
        int64_t end = i + STRIDE < c->padded ? i + STRIDE : c->padded;
        float top = lower(c, nearest, i, end, p);
        if (top > best) best = top, at = i;
    }
    uint32_t mask;
    while (!(mask = at_least(nearest + at, best))) at += LANES;
    return at + __builtin_ctz(mask);
}

/* The same, skipping blocks that p is too far from; top[level][b] is the maximum inside a box. */
KERNEL static int64_t fps_step_boxed(
    const Cloud *c, float *nearest, float *top, float *top_of_group, const float *p) {
    float d[FAN], e[FAN], best = -1.0f;
    int64_t groups = (c->count[0] + FAN - 1) / FAN, padded = round_up(groups, FAN);
    for (int64_t s = 0; s < padded; s += FAN) {
        box_distances(&c->boxes[1], s, p, d);
        for (int i = 0; i < FAN; i++) {
            if (d[i] >= top_of_group[s + i]) continue;
            int64_t first = (s + i) * FAN;
            box_distances(&c->boxes[0], first, p, e);
            for (int j = 0; j < FAN; j++)
                if (e[j] < top[first + j])
                    top[first + j] =
                        lower(c, nearest, (first + j) * LANES, (first + j + 1) * LANES, p);
            float most = -1.0f;
            for (int j = 0; j < FAN; j++) most = top[first + j] > most ? top[first + j] : most;
            top_of_group[s + i] = most;
        }
    }
    for (int64_t s = 0; s < padded; s++) best = top_of_group[s] > best ? top_of_group[s] : best;
    int64_t at = -1;
    for (int64_t s = 0; s < groups; s++) {
        if (top_of_group[s] != best) continue;
        for (int64_t b = s * FAN; b < (s + 1) * FAN; b++) {
            if (top[b] != best) continue;
            for (int64_t i = b * LANES; i < (b + 1) * LANES; i++)
                if (nearest[i] == best && (at < 0 || c->row[i] < c->row[at])) at = i;
        }
    }
    return at;
}

/* The row farthest from the mean, which is summed in double in the order of the rows. */
static int64_t central_start(const float *p, int64_t n) {
    double sum[3] = {0, 0, 0};
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 3; a++) sum[a] += (double)p[3 * i + a];
    float m[3], best = -1.0f;
    for (int a = 0; a < 3; a++) m[a] = (float)(sum[a] / (double)n);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        float d = square_distance(p[3 * i], p[3 * i + 1], p[3 * i + 2], m[0], m[1], m[2]);
        if (d > best) best = d, at = i;
    }
    return at;
}

static int fps_cloud(
    const float *p, int64_t n, int64_t count, int64_t first, int64_t shift, int64_t *out) {
    Cloud c;
    int boxed = n > DIRECT_FPS && count >= 16;
    if (build(&c, p, n, boxed)) return 1;
    int64_t blocks = boxed ? round_up(c.count[0], FAN * FAN) : 0, groups = blocks / FAN;
    float *nearest = malloc((size_t)(c.padded + blocks + groups) * sizeof *nearest);
    if (!nearest) {
        free(c.memory);
        return 1;
    }
    float *top = nearest + c.padded, *top_of_group = top + blocks;
    for (int64_t i = 0; i < c.padded; i++) nearest[i] = i < n ? __builtin_inff() : -1.0f;
    for (int64_t b = 0; b < blocks; b++) top[b] = b < c.count[0] ? __builtin_inff() : -1.0f;
    for (int64_t g = 0; g < groups; g++) top_of_group[g] = g * FAN < c.count[0] ? __builtin_inff() : -1.0f;
    int64_t row = first, at = first;
    for (int64_t i = 0; boxed && i < n; i++)
        if (c.row[i] == (uint32_t)first) at = i;
    for (int64_t s = 0;; s++) {
        out[s] = shift + row;
        if (s + 1 == count) break;
        nearest[at] = -1.0f; /* below every distance: never picked again, even with duplicates */
        at = boxed ? fps_step_boxed(&c, nearest, top, top_of_group, p + 3 * row)
                   : fps_step(&c, nearest, p + 3 * row);
        row = boxed ? (int64_t)c.row[at] : at;
    }
    free(nearest);
    free(c.memory);
    return 0;
}

/* coords (N, 3); offsets, counts (B,); start (B,) or NULL; out (sum counts,). 0 when it worked. */
int pointzoo_fps(const float *coords, const int64_t *offsets, const int64_t *counts,
                 const int64_t *start, int64_t clouds, int64_t *out, int threads) {
    int failed = 0;
    int64_t *ends = malloc((size_t)clouds * sizeof *ends);
    if (!ends) return 1;
    for (int64_t b = 0, sum = 0; b < clouds; b++) ends[b] = sum += counts[b];
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (int64_t b = 0; b < clouds; b++) {
        int64_t from = b ? offsets[b - 1] : 0, n = offsets[b] - from;
        const float *p = coords + 3 * from;
        int64_t first = start ? start[b] : central_start(p, n);
        failed |= fps_cloud(p, n, counts[b], first, from, out + ends[b] - counts[b]);
    }
    free(ends);
    return failed;
}

/* ---- nearest neighbours -------------------------------------------------------------------------- */

INLINE void offer(int64_t *best, int64_t k, const Cloud *c, int64_t from, const float *d) {
    uint32_t mask = at_most(d, distance_of(best[k - 1]), LANES);
    for (; mask; mask &= mask - 1) {
        int l = __builtin_ctz(mask);
        insert(best, k, key_of(d[l], c->row ? c->row[from + l] : (uint32_t)(from + l)));
    }
}

INLINE void block_distances(const Cloud *c, int64_t from, const float *q, float *d) {
    const float *x = c->axis[0] + from, *y = c->axis[1] + from, *z = c->axis[2] + from;
    for (int l = 0; l < LANES; l++) d[l] = square_distance(q[0], q[1], q[2], x[l], y[l], z[l]);
}

/* All distances, then a bound for the k-th: k of the sets of points hold one that near. Scratch:
 * 2 * padded words. */
KERNEL static void nearest_direct(
    const Cloud *c, const float *q, int64_t k, int64_t *best, int64_t *scratch) {
    float *d = (float *)scratch, *minima = d + c->padded;
    int64_t *kept = scratch + c->padded, sets = 0;
    int64_t blocks = c->padded / LANES, depth = c->padded / (2 * k) > 1 ? c->padded / (2 * k) : 1;
    for (int64_t b = 0; b < blocks; b += depth) { /* a set is one lane of `depth` blocks */
        float *least = minima + sets;
        int64_t end = b + depth < blocks ? b + depth : blocks;
        for (int l = 0; l < LANES; l++) least[l] = REAL;
        for (int64_t e = b; e < end; e++) {
            float *own = d + e * LANES;
            block_distances(c, e * LANES, q, own);
            for (int l = 0; l < LANES; l++) least[l] = own[l] < least[l] ? own[l] : least[l];
        }
        sets += LANES;
    }
    nearest_of(d, c->n, minima, sets, k, best, kept);
}

/* Blocks around q on the Morton curve first; then those that may hold something nearer, by boxes. */
KERNEL static void nearest_boxed(
    const Cloud *c, const float *q, int64_t k, int64_t *best, int64_t *queue) {
    float d[LANES];
    int64_t blocks = c->count[0], lo = 0, hi = blocks, size = 0, depth = 0;
    uint32_t code = morton(c, q);
    while (hi - lo > 1) {
        int64_t middle = (lo + hi) / 2;
        if (c->code[middle] <= code) lo = middle;
        else hi = middle;
    }
    hi = lo - 1; /* blocks lo .. hi have been looked at */
    while (!(distance_of(best[k - 1]) < REAL)) {
        int64_t from = (hi + 1 < blocks ? ++hi : --lo) * LANES;
        block_distances(c, from, q, d);
        offer(best, k, c, from, d);
    }
    struct { int level; int64_t group; } stack[LEVELS * FAN];
    stack[depth].level = c->levels - 1, stack[depth++].group = 0;
    size = 0;
    while (depth) {
        int level = stack[--depth].level;
        int64_t first = stack[depth].group * FAN;
        float e[FAN], reach = distance_of(best[k - 1]);
        box_distances(&c->boxes[level], first, q, e);
        for (uint32_t mask = at_most(e, reach, FAN); mask; mask &= mask - 1) {
            int l = __builtin_ctz(mask);
            int64_t box = first + l;
            if (level) stack[depth].level = level - 1, stack[depth++].group = box;
            else if (box < lo || box > hi) queue[size++] = key_of(e[l], (uint32_t)box);
        }
    }
    sort_keys(queue, size);
    for (int64_t i = 0; i < size && distance_of(queue[i]) <= distance_of(best[k - 1]); i++) {
        int64_t from = (int64_t)(uint32_t)queue[i] * LANES;
        block_distances(c, from, q, d);
        offer(best, k, c, from, d);
    }
}

typedef struct {
    const float *query;
    const int64_t *query_offsets, *offsets;
    int64_t clouds, k;
    Cloud *cloud;
    int64_t *order; /* queries of each cloud, those of boxed ones along its Morton curve */
    int64_t *index;
    float *distance;
} Knn;

static int knn_prepare(Knn *t, const float *coords, int64_t b, int64_t *spare) {
    int64_t from = b ? t->offsets[b - 1] : 0, n = t->offsets[b] - from;
    int64_t first = b ? t->query_offsets[b - 1] : 0, m = t->query_offsets[b] - first;
    if (m == 0) return 0;
    int boxed = n > DIRECT_KNN && m > CHUNK;
    if (build(&t->cloud[b], coords + 3 * from, n, boxed)) return 1;
    if (boxed) morton_sort(&t->cloud[b], t->query + 3 * first, m, t->order + first, spare + first);
    else for (int64_t i = 0; i < m; i++) t->order[first + i] = (int64_t)i;
    return 0;
}

/* Scratch of one thread in 8-byte words: the list, then the queue of boxes or nearest_direct's. */
static int64_t knn_scratch(const Knn *t) {
    int64_t most = 0;
    for (int64_t b = 0; b < t->clouds; b++) {
        const Cloud *c = &t->cloud[b];
        int64_t words = c->levels ? c->count[0] : 2 * c->padded;
        most = words > most ? words : most;
    }
    return round_up(t->k + most, 8);
}

static void knn_chunk(const Knn *t, int64_t from, int64_t to, int64_t *best) {
    int64_t b = 0;
    for (int64_t i = from; i < to; i++) {
        while (t->query_offsets[b] <= i) b++;
        const Cloud *c = &t->cloud[b];
        int64_t first = b ? t->query_offsets[b - 1] : 0, shift = b ? t->offsets[b - 1] : 0;
        int64_t row = first + (int64_t)(uint32_t)t->order[i], k = t->k < c->n ? t->k : c->n;
        const float *q = t->query + 3 * row;
        int64_t *scratch = best + t->k;
        for (int64_t j = 0; j < k; j++) best[j] = NOTHING;
        if (c->levels) nearest_boxed(c, q, k, best, scratch);
        else nearest_direct(c, q, k, best, scratch);
        for (int64_t j = 0; j < t->k; j++) {
            t->index[row * t->k + j] = shift + (int64_t)(uint32_t)best[j % k];
            t->distance[row * t->k + j] = distance_of(best[j % k]);
        }
    }
}

/* query (Q, 3), coords (N, 3), both offsets (B,); out: index, distance (Q, k). 0 when it worked. */
int pointzoo_knn(const float *query, const int64_t *query_offsets, const float *coords,
                 const int64_t *offsets, int64_t clouds, int64_t k, int64_t *index,
                 float *distance, int threads) {
    int64_t queries = query_offsets[clouds - 1];
    Knn t = {query, query_offsets, offsets, clouds, k, NULL, NULL, index, distance};
    t.cloud = calloc((size_t)clouds, sizeof *t.cloud);
    t.order = malloc((size_t)queries * 16);
    int64_t *scratch = NULL;
    int failed = !t.cloud || !t.order;
    if (!failed) {
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
        for (int64_t b = 0; b < clouds; b++)
            failed |= knn_prepare(&t, coords, b, t.order + queries);
        int64_t words = knn_scratch(&t);
        scratch = failed ? NULL : malloc((size_t)words * 8 * (size_t)threads);
        failed |= !scratch;
        if (!failed) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
            for (int64_t i = 0; i < queries; i += CHUNK) {
                int64_t *own = scratch + words * thread_number();
                knn_chunk(&t, i, i + CHUNK < queries ? i + CHUNK : queries, own);
            }
        }
    }
    for (int64_t b = 0; t.cloud && b < clouds; b++) free(t.cloud[b].memory);
    free(scratch);
    free(t.order);
    free(t.cloud);
    return failed;
}

/* ---- ball crops ---------------------------------------------------------------------------------- */

KERNEL static void all_keys(const float *p, int64_t n, const float *center, int64_t *keys) {
    for (int64_t i = 0; i < n; i++) {
        const float *a = p + 3 * i;
        float d = square_distance(a[0], a[1], a[2], center[0], center[1], center[2]);
        keys[i] = key_of(d, (uint32_t)i);
    }
}

/* coords (N, 3); offsets, centers (flat rows), counts (B,); out (sum counts,). 0 when it worked. */
int pointzoo_ball_crop(const float *coords, const int64_t *offsets, const int64_t *centers,
                       const int64_t *counts, int64_t clouds, int64_t *out, int threads) {
    int failed = 0;
    int64_t *ends = malloc((size_t)clouds * sizeof *ends);
    if (!ends) return 1;
    for (int64_t b = 0, sum = 0; b < clouds; b++) ends[b] = sum += counts[b];
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (int64_t b = 0; b < clouds; b++) {
        int64_t from = b ? offsets[b - 1] : 0, n = offsets[b] - from;
        int64_t *target = out + ends[b] - counts[b];
        int64_t *keys = malloc((size_t)n * 16);
        failed |= !keys;
        if (!keys) continue;
        all_keys(coords + 3 * from, n, coords + 3 * centers[b], keys);
        memcpy(keys + n, keys, (size_t)n * sizeof *keys);
        int64_t last = select_key(keys + n, n, counts[b] - 1);
        for (int64_t i = 0; i < n; i++)
            if (keys[i] <= last) *target++ = from + i;
        free(keys);
    }
    free(ends);
    return failed;
}

/* ---- a module, so that the file may be imported like any other ----------------------------------- */

#if defined(__has_include) && __has_include(<Python.h>)
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", NULL, 0, NULL, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__core(void) { return PyModule_Create(&module); }
#else
void *PyInit__core(void) { return NULL; }
#endif
