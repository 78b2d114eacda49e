/* What _core.c and _graph.c share: functions per instruction set, and the k smallest distances.
 *
 * Candidates are compared as 64-bit keys, the bits of a distance (never negative, so that its bits
 * are ordered as it is) above its row: equal distances are ordered by row.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs GCC or Clang; without this file pointzoo computes in PyTorch"
#endif

/* Compiled once per instruction set, chosen when the library is loaded. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#define KERNEL __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define KERNEL __attribute__((noinline))
#endif
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 32 };
#define REAL 1e36f /* above every squared distance between points of size 1e15 */

/* ---- small pieces ---------------------------------------------------------------------------- */

INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

INLINE int64_t key_of(float distance, uint32_t row) {
    uint32_t bits;
    memcpy(&bits, &distance, 4);
    return (int64_t)((uint64_t)bits << 32 | row);
}

INLINE float distance_of(int64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    float distance;
    memcpy(&distance, &bits, 4);
    return distance;
}

/* Bit l is set where d[l] <= bound; written so that compilers make one vector operation of it. */
INLINE uint32_t at_most(const float *d, float bound, int lanes) {
    uint32_t mask = 0;
    for (int l = 0; l < lanes; l++) mask |= d[l] <= bound ? 1u << l : 0u;
    return mask;
}

/* Put a key into the ascending list best[0..k), dropping the largest. */
INLINE void insert(int64_t *best, int64_t k, int64_t key) {
    int64_t i = k - 1;
    if (key >= best[i]) return;
    for (; i > 0 && best[i - 1] > key; i--) best[i] = best[i - 1];
    best[i] = key;
}

/* The k smallest of n distinct keys in order, by counting: no branch that depends on the data. */
INLINE void rank_keys(const int64_t *keys, int64_t n, int64_t *best, int64_t k) {
    for (int64_t i = 0; i < n; i++) {
        int64_t rank = 0, key = keys[i];
        for (int64_t j = 0; j < n; j++) rank += keys[j] < key;
        if (rank < k) best[rank] = key;
    }
}

/* Shell sort: short, in place, no bad case that matters. */
static void sort_keys(int64_t *a, int64_t n) {
    static const int64_t gaps[] = {32913, 14628, 6501, 2889, 1284, 701, 301, 132, 57, 23, 10, 4, 1};
    for (int g = 0; g < (int)(sizeof gaps / sizeof *gaps); g++)
        for (int64_t i = gaps[g]; i < n; i++) {
            int64_t key = a[i];
            int64_t j = i;
            for (; j >= gaps[g] && a[j - gaps[g]] > key; j -= gaps[g]) a[j] = a[j - gaps[g]];
            a[j] = key;
        }
}

/* The key of rank k (from 0) among n keys; reorders them. */
static int64_t select_key(int64_t *a, int64_t n, int64_t k) {
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        int64_t x = a[lo], y = a[lo + (hi - lo) / 2], z = a[hi];
        int64_t low = x < y ? x : y, high = x < y ? y : x;
        int64_t pivot = z < low ? low : z > high ? high : z; /* median of three */
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (a[i] < pivot) i++;
            while (a[j] > pivot) j--;
            if (i <= j) {
                int64_t t = a[i];
                a[i++] = a[j], a[j--] = t;
            }
        }
        if (k <= j) hi = j;
        else if (k >= i) lo = i;
        else break;
    }
    return a[k];
}

enum { FEW = 128 }; /* up to here counting beats partitioning */

/* The k-th smallest of n distances; reorders nothing. */
INLINE float kth_distance(const float *d, int64_t n, int64_t k, int64_t *spare) {
    float kth = 0;
    if (n > FEW) {
        for (int64_t i = 0; i < n; i++) spare[i] = key_of(d[i], 0);
        return distance_of(select_key(spare, n, k - 1));
    }
    for (int64_t i = 0; i < n; i++) {
        int32_t below = 0;
        for (int64_t j = 0; j < n; j++) below += d[j] < d[i];
        kth = below < k && d[i] > kth ? d[i] : kth;
    }
    return kth;
}

/* The k nearest of n distances d, which are padded with large ones to whole blocks; `minima` are the
 * least distances of disjoint sets of them: k of those bound the k-th. Reorders kept, n words. */
INLINE void nearest_of(const float *d, int64_t n, float *minima, int64_t sets, int64_t k,
                       int64_t *best, int64_t *kept) {
    float reach = sets >= k ? kth_distance(minima, sets, k, kept) : REAL;
    int64_t size = 0;
    for (int64_t from = 0; from < n; from += LANES)
        for (uint32_t mask = at_most(d + from, reach, LANES); mask; mask &= mask - 1) {
            int64_t i = from + __builtin_ctz(mask);
            if (i < n) kept[size++] = key_of(d[i], (uint32_t)i);
        }
    if (size <= FEW) {
        rank_keys(kept, size, best, k);
    } else {
        select_key(kept, size, k - 1); /* leaves the k smallest in front */
        memcpy(best, kept, (size_t)k * sizeof *best);
        sort_keys(best, k);
    }
}
