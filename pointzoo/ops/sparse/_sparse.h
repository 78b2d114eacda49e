/* What the C files of sparse convolution share. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#define thread_number() omp_get_thread_num()
#else
#define thread_number() 0
#endif

#if !defined(__GNUC__)
#error "needs GCC or Clang; without this file pointzoo computes in PyTorch"
#endif

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t ceil_div(int64_t n, int64_t step) { return (n + step - 1) / step; }

/* Memory that starts with a cache line, so that no vector lies across two; NULL where there is none. */
INLINE void *reserve(int64_t bytes) {
    char *memory = malloc((size_t)bytes + 64), *from;
    if (!memory) return NULL;
    from = memory + 64 - (uintptr_t)memory % 64; /* malloc aligns: there is room for a pointer */
    ((void **)from)[-1] = memory;
    return from;
}

INLINE void release(void *from) {
    if (from) free(((void **)from)[-1]);
}

/* Ask for large pages where fresh memory is about to be written: page by page, the system would spend
 * a tenth of the time of a network on handing it out. Advice only: nothing depends on it. */
INLINE void expect(void *from, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t page = (uintptr_t)1 << 21, start = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)from + (uintptr_t)bytes) / page * page;
    if (start < end) madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)from, (void)bytes;
#endif
}

/* Run kernels over `n` rows, as few and as equal blocks as registers allow. */
#define IN_BLOCKS(n, most, at, size)                                                               \
    for (int64_t blocks_ = ceil_div(n, most), b_ = 0, at = 0, size;                                \
         b_ < blocks_ && (size = (n) * (b_ + 1) / blocks_ - at, 1); at += size, b_++)

/* Pairs by tile and offset, as _sparse.c describes. */
typedef struct {
    int64_t rows, tile, offsets;
    const int64_t *starts;
    const int32_t *in;
    const int32_t *out;
} Tiles;

/* The rows are cut into parts for the gradient of the weights, whose number does not depend on that
 * of the threads: each part adds to weights of its own, which are summed in order at the end. A unit
 * of work is a part and a group of kernel offsets: a large group finds its rows in the cache, small
 * ones can be shared out. */
enum { PART = 4096, MOST_PARTS = 8 };

typedef struct {
    int64_t count, tiles; /* parts; tiles of a part */
    int64_t group, groups; /* offsets of a unit; units of a part */
} Parts;

INLINE Parts parts_of(const Tiles *t, int threads) {
    int64_t tiles = ceil_div(t->rows, t->tile), parts = least(ceil_div(t->rows, PART), MOST_PARTS);
    int64_t each = ceil_div(tiles, parts), count = ceil_div(tiles, each);
    int64_t group = count >= 4 * threads ? t->offsets : ceil_div(t->offsets * count, 8 * threads);
    return (Parts){count, each, group, ceil_div(t->offsets, group)};
}

/* Whether this CPU and system have AMX tiles of bfloat16 (_bfloat16.c). */
int has_amx(void);
