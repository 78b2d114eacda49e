/* Nearest neighbours in many dimensions, and reductions over neighbours, on the CPU in float32.
 *
 * Loaded and called like _core.c, whose conventions hold here too. The results equal the PyTorch
 * functions of neighbors.py and graph.py bit for bit: a squared distance adds the squares in the
 * order of the coordinates, a total adds the neighbours in their order, each operation rounded.
 *
 * A cloud is laid out in blocks of LANES points, coordinate by coordinate, so that the distances of
 * a block to TILE queries stay in registers. Parallel loops run over queries, targets or clouds,
 * never inside a sum: results do not depend on the number of threads.
 */

#include "_select.h"

enum { WIDTH = 16, TILE = 4, BATCH = 64 };
typedef float Lanes __attribute__((vector_size(4 * WIDTH), aligned(4)));
#define PAD 1e18f /* a coordinate of padding: farther than any point, its square still finite */

/* ---- nearest neighbours ----------------------------------------------------------------------- */

typedef struct {
    const float *query;
    const int64_t *query_offsets, *offsets;
    int64_t clouds, channels, k;
    const float *blocks; /* of all clouds */
    const int64_t *starts; /* of the blocks of each cloud, in floats */
    int64_t widest;      /* padded points of the largest cloud */
    int64_t *index;
    float *distance;
} Search;

/* (n, channels) -> (blocks, channels, LANES), padded. */
static void lay_out(const float *rows, int64_t n, int64_t channels, float *blocks) {
    for (int64_t i = 0; i < round_up(n, LANES); i++) {
        float *lane = blocks + i / LANES * LANES * channels + i % LANES;
        for (int64_t a = 0; a < channels; a++) lane[a * LANES] = i < n ? rows[i * channels + a] : PAD;
    }
}

/* Distances of TILE queries to every block; d holds one row of `padded` distances per query. */
KERNEL static void tile_distances(const float *const *query, const float *blocks, int64_t padded,
                                  int64_t channels, float *d) {
    for (int64_t from = 0; from < padded; from += LANES, blocks += LANES * channels) {
        Lanes low[TILE], high[TILE];
        for (int t = 0; t < TILE; t++) low[t] = high[t] = (Lanes){0};
        for (int64_t a = 0; a < channels; a++) {
            Lanes x = *(const Lanes *)(blocks + a * LANES);
            Lanes y = *(const Lanes *)(blocks + a * LANES + WIDTH);
            for (int t = 0; t < TILE; t++) {
                Lanes dx = query[t][a] - x, dy = query[t][a] - y;
                low[t] += dx * dx;
                high[t] += dy * dy;
            }
        }
        for (int t = 0; t < TILE; t++) {
            *(Lanes *)(d + t * padded + from) = low[t];
            *(Lanes *)(d + t * padded + from + WIDTH) = high[t];
        }
    }
}

/* The k nearest from a row of distances; minima and kept are scratch of `padded` entries. */
KERNEL static void nearest_in_row(const float *d, int64_t n, int64_t padded, int64_t k,
                                  float *minima, int64_t *kept, int64_t *best) {
    int64_t sets = 0, blocks = padded / LANES;
    int64_t depth = padded / (2 * k) > 1 ? padded / (2 * k) : 1; /* a set: one lane of as many blocks */
    for (int64_t b = 0; b < blocks; b += depth, sets += LANES) {
        float *least = minima + sets;
        int64_t end = b + depth < blocks ? b + depth : blocks;
        memcpy(least, d + b * LANES, LANES * sizeof *least);
        for (int64_t e = b + 1; e < end; e++)
            for (int l = 0; l < LANES; l++)
                least[l] = d[e * LANES + l] < least[l] ? d[e * LANES + l] : least[l];
    }
    nearest_of(d, n, minima, sets, k, best, kept);
}

static int search_batch(const Search *s, int64_t from, int64_t to) {
    float *d = malloc((size_t)(s->widest * (TILE + 1)) * sizeof *d);
    int64_t *kept = malloc((size_t)(s->widest + s->k) * sizeof *kept), b = 0;
    if (!d || !kept) {
        free(d), free(kept);
        return 1;
    }
    float *minima = d + s->widest * TILE;
    int64_t *best = kept + s->widest;
    for (int64_t i = from, some; i < to; i += some) {
        while (s->query_offsets[b] <= i) b++;
        int64_t shift = b ? s->offsets[b - 1] : 0, n = s->offsets[b] - shift;
        int64_t end = to < s->query_offsets[b] ? to : s->query_offsets[b];
        int64_t padded = round_up(n, LANES), k = s->k < n ? s->k : n;
        const float *query[TILE];
        some = end - i < TILE ? end - i : TILE;
        for (int64_t t = 0; t < TILE; t++)
            query[t] = s->query + (i + (t < some ? t : 0)) * s->channels;
        tile_distances(query, s->blocks + s->starts[b], padded, s->channels, d);
        for (int64_t t = 0; t < some; t++) {
            nearest_in_row(d + t * padded, n, padded, k, minima, kept, best);
            for (int64_t j = 0; j < s->k; j++) {
                s->index[(i + t) * s->k + j] = shift + (int64_t)(uint32_t)best[j % k];
                s->distance[(i + t) * s->k + j] = distance_of(best[j % k]);
            }
        }
    }
    free(d), free(kept);
    return 0;
}

/* query (Q, C), coords (N, C), both offsets (B,); out: index, distance (Q, k). 0 when it worked. */
int pointzoo_knn_wide(const float *query, const int64_t *query_offsets, const float *coords,
                      const int64_t *offsets, int64_t clouds, int64_t channels, int64_t k,
                      int64_t *index, float *distance, int threads) {
    int64_t *starts = malloc((size_t)clouds * sizeof *starts), total = 0, widest = 0;
    if (!starts) return 1;
    for (int64_t b = 0; b < clouds; b++) {
        int64_t padded = round_up(offsets[b] - (b ? offsets[b - 1] : 0), LANES);
        starts[b] = total;
        total += padded * channels;
        widest = padded > widest ? padded : widest;
    }
    float *blocks = malloc((size_t)total * sizeof *blocks);
    int failed = !blocks;
    if (!failed) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t b = 0; b < clouds; b++) {
            int64_t from = b ? offsets[b - 1] : 0;
            lay_out(coords + from * channels, offsets[b] - from, channels, blocks + starts[b]);
        }
        Search s = {query, query_offsets, offsets, clouds, channels, k,
                    blocks, starts, widest, index, distance};
        int64_t queries = query_offsets[clouds - 1];
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
        for (int64_t i = 0; i < queries; i += BATCH)
            failed |= search_batch(&s, i, i + BATCH < queries ? i + BATCH : queries);
    }
    free(blocks);
    free(starts);
    return failed;
}

/* ---- reductions over neighbours ---------------------------------------------------------------- */

/* One target: the largest of sign * value over its neighbours and whose it is, in every channel. */
KERNEL static void pool_target(const float *values, const int64_t *index, const float *sign,
                               int64_t channels, int64_t k, float *best, int32_t *rows) {
    const float *first = values + index[0] * channels;
    for (int64_t c = 0; c < channels; c++) best[c] = first[c] * sign[c], rows[c] = (int32_t)index[0];
    for (int64_t j = 1; j < k; j++) {
        const float *value = values + index[j] * channels;
        int32_t row = (int32_t)index[j];
        for (int64_t c = 0; c < channels; c++) {
            float v = value[c] * sign[c];
            rows[c] = v > best[c] ? row : rows[c];
            best[c] = v > best[c] ? v : best[c];
        }
    }
    for (int64_t c = 0; c < channels; c++) best[c] *= sign[c];
}

KERNEL static void total_target(
    const float *values, const int64_t *index, int64_t channels, int64_t k, float *total) {
    memcpy(total, values + index[0] * channels, (size_t)channels * sizeof *total);
    for (int64_t j = 1; j < k; j++) {
        const float *value = values + index[j] * channels;
        for (int64_t c = 0; c < channels; c++) total[c] += value[c];
    }
}

/* values (N, C), index (T, k), sign (C,) of 1 and -1; out: best, total (T, C), rows (T, C) of the
 * best. `total` may be NULL. */
int pointzoo_pool(const float *values, const int64_t *index, const float *sign, int64_t targets,
                  int64_t channels, int64_t k, float *best, int32_t *rows, float *total,
                  int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < targets; i++) {
        int64_t at = i * channels;
        pool_target(values, index + i * k, sign, channels, k, best + at, rows + at);
        if (total) total_target(values, index + i * k, channels, k, total + at);
    }
    return 0;
}

KERNEL static void spread_totals(const int64_t *index, const float *gradient, int64_t targets,
                                 int64_t channels, int64_t k, float *out) {
    for (int64_t j = 0; j < k; j++)
        for (int64_t i = 0; i < targets; i++) {
            float *to = out + index[i * k + j] * channels;
            for (int64_t c = 0; c < channels; c++) to[c] += gradient[i * channels + c];
        }
}

/* The backward pass: adds to out (N, C) at the rows of the best and, unless to_total is NULL, at all
 * neighbours. offsets (B,) cut the targets into clouds, whose neighbours are disjoint. */
int pointzoo_pool_backward(const int64_t *index, const int32_t *rows, const float *to_best,
                           const float *to_total, const int64_t *offsets, int64_t clouds,
                           int64_t channels, int64_t k, float *out, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t b = 0; b < clouds; b++) {
        int64_t from = b ? offsets[b - 1] : 0;
        for (int64_t i = from; i < offsets[b]; i++)
            for (int64_t at = i * channels, c = 0; c < channels; c++)
                out[rows[at + c] * channels + c] += to_best[at + c];
        if (to_total)
            spread_totals(index + from * k, to_total + from * channels, offsets[b] - from, channels,
                          k, out);
    }
    return 0;
}
