/* Components of points within a radius of each other, 3 x float32: clustering.py's _components.
 *
 * Plain C with GCC or Clang; loaded with ctypes on tensor.data_ptr(), no torch or numpy headers.
 * Two points are linked when (dx*dx + dy*dy) + dz*dz <= bound, rounded after each operation (no
 * FMA). The least and the largest distance of two boxes are computed by the same operations; as
 * rounding is monotonic they bound every computed distance of their points, so that pairs of boxes
 * may be left out or linked as a whole without changing the result.
 *
 * The points of a group are sorted into a balanced tree of medians with a box per node, and the
 * tree is joined with itself (dual-tree search, as in March, Ram, Gray, "Fast Euclidean minimum
 * spanning tree", KDD 2010): two nodes need no look when they are far apart, or when each of them
 * lies in one component already and it is the same. A heap of points much denser than the radius,
 * as offsets to the centre of an object make it, therefore costs no more than a sparse one.
 *
 * A component is named by its lowest row: results do not depend on the number of threads.
 */

#include <stdint.h>
#include <stdlib.h>

#if !defined(__GNUC__)
#error "needs GCC or Clang; without this file pointzoo computes with scipy"
#endif

enum { LEAF = 16 }; /* most points of a leaf */

typedef struct { float x[3]; int32_t row; } Point;
typedef struct { float lo[3], hi[3]; int one; } Node; /* one: all its points in one component */

typedef struct {
    Point *point;    /* in order of the tree */
    int32_t *parent; /* of each place; a root is the lowest place of its component */
    Node *node;      /* children of node i: 2i + 1 and 2i + 2 */
    float bound;     /* squared radius */
} Tree;

typedef struct { int64_t node, from, to; } Part; /* a node and the places of its points */

static inline int is_leaf(Part p) { return p.to - p.from <= LEAF; }

static inline Part half(Part p, int right) {
    int64_t middle = p.from + (p.to - p.from) / 2;
    return (Part){2 * p.node + 1 + right, right ? middle : p.from, right ? p.to : middle};
}

static int32_t root(Tree *t, int64_t place) {
    int32_t *parent = t->parent, i = (int32_t)place;
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
}

static void link(Tree *t, int64_t a, int64_t b) {
    int32_t i = root(t, a), j = root(t, b);
    if (i < j) t->parent[j] = i;
    else t->parent[i] = j;
}

/* Reorder so that no point before `middle` is larger along the axis than one from there on. */
static void split(Point *p, int64_t lo, int64_t hi, int64_t middle, int axis) {
    for (hi--; lo < hi;) {
        float pivot = p[lo + (hi - lo) / 2].x[axis];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (p[i].x[axis] < pivot) i++;
            while (p[j].x[axis] > pivot) j--;
            if (i <= j) {
                Point swap = p[i];
                p[i++] = p[j], p[j--] = swap;
            }
        }
        if (middle <= j) hi = j;
        else if (middle >= i) lo = i;
        else return;
    }
}

static void build(Tree *t, Part p) {
    Node *n = &t->node[p.node];
    int widest = 0;
    for (int a = 0; a < 3; a++) n->lo[a] = n->hi[a] = t->point[p.from].x[a];
    for (int64_t i = p.from + 1; i < p.to; i++)
        for (int a = 0; a < 3; a++) {
            float v = t->point[i].x[a];
            n->lo[a] = v < n->lo[a] ? v : n->lo[a];
            n->hi[a] = v > n->hi[a] ? v : n->hi[a];
        }
    for (int a = 1; a < 3; a++)
        if (n->hi[a] - n->lo[a] > n->hi[widest] - n->lo[widest]) widest = a;
    if (is_leaf(p)) return;
    split(t->point, p.from, p.to, p.from + (p.to - p.from) / 2, widest);
    build(t, half(p, 0));
    build(t, half(p, 1));
}

/* Least and largest squared distance between points of two boxes. */
static float least(const Node *a, const Node *b) {
    float d[3];
    for (int k = 0; k < 3; k++) {
        float under = b->lo[k] - a->hi[k], over = a->lo[k] - b->hi[k];
        float gap = under > over ? under : over;
        d[k] = gap > 0 ? gap : 0;
    }
    return d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
}

static float largest(const Node *a, const Node *b) {
    float d[3];
    for (int k = 0; k < 3; k++) {
        float under = b->hi[k] - a->lo[k], over = a->hi[k] - b->lo[k];
        d[k] = under > over ? under : over;
    }
    return d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
}

static int in_one(Tree *t, Part p) {
    Node *n = &t->node[p.node];
    if (!n->one && !is_leaf(p)) {
        Part a = half(p, 0), b = half(p, 1);
        n->one = t->node[a.node].one && t->node[b.node].one && root(t, a.from) == root(t, b.from);
    }
    return n->one;
}

static void join_leaves(Tree *t, Part a, Part b) {
    for (int64_t i = a.from; i < a.to; i++) {
        const float *p = t->point[i].x;
        for (int64_t j = b.from == a.from ? i + 1 : b.from; j < b.to; j++) {
            const float *q = t->point[j].x;
            float dx = p[0] - q[0], dy = p[1] - q[1], dz = p[2] - q[2];
            if (dx * dx + dy * dy + dz * dz <= t->bound) link(t, i, j);
        }
    }
}

/* Link the points of two nodes that have no point in common. */
static void join(Tree *t, Part a, Part b) {
    const Node *m = &t->node[a.node], *n = &t->node[b.node];
    if (least(m, n) > t->bound) return;
    if (in_one(t, a) && in_one(t, b)) {
        if (root(t, a.from) == root(t, b.from)) return;
        if (largest(m, n) <= t->bound) {
            link(t, a.from, b.from);
            return;
        }
    }
    if (is_leaf(a) && is_leaf(b)) {
        join_leaves(t, a, b);
        return;
    }
    int first = is_leaf(b) || (!is_leaf(a) && a.to - a.from >= b.to - b.from);
    for (int right = 0; right < 2; right++)
        if (first) join(t, half(a, right), b);
        else join(t, a, half(b, right));
}

/* Link the points of a node. */
static void connect(Tree *t, Part p) {
    Node *n = &t->node[p.node];
    if (!is_leaf(p)) {
        connect(t, half(p, 0));
        connect(t, half(p, 1));
        join(t, half(p, 0), half(p, 1));
        in_one(t, p);
    } else {
        join_leaves(t, p, p);
        n->one = 1;
        for (int64_t i = p.from + 1; i < p.to; i++) n->one &= root(t, i) == root(t, p.from);
    }
}

/* Components of n points (n, 3); out: the lowest row of each point's. 0 when it worked. */
static int components(const float *coords, int64_t n, float bound, int64_t *out) {
    int64_t nodes = 1, leaf = n;
    while (leaf > LEAF) leaf = (leaf + 1) / 2, nodes = 2 * nodes + 1;
    Tree t = {malloc((size_t)n * sizeof *t.point), malloc((size_t)n * sizeof *t.parent),
              calloc((size_t)nodes, sizeof *t.node), bound};
    int failed = !t.point || !t.parent || !t.node;
    if (!failed) {
        Part all = {0, 0, n};
        for (int64_t i = 0; i < n; i++) {
            t.point[i].row = t.parent[i] = (int32_t)i;
            for (int a = 0; a < 3; a++) t.point[i].x[a] = coords[3 * i + a];
        }
        build(&t, all);
        connect(&t, all);
        for (int64_t i = 0; i < n; i++) out[i] = n;
        for (int64_t i = 0; i < n; i++) t.parent[i] = root(&t, i);
        for (int64_t i = 0; i < n; i++) { /* at the place of each root the lowest row */
            int64_t at = t.parent[i], row = t.point[i].row;
            out[at] = row < out[at] ? row : out[at];
        }
        for (int64_t i = 0; i < n; i++) t.parent[i] = (int32_t)out[t.parent[i]];
        for (int64_t i = 0; i < n; i++) out[t.point[i].row] = t.parent[i];
    }
    free(t.point), free(t.parent), free(t.node);
    return failed;
}

/* coords (N, 3) in groups; offsets (groups,); bound: the squared radius, one float; out (N,): the
 * lowest row of its component, counted over all groups. 0 when it worked. */
int pointzoo_components(const float *coords, const int64_t *offsets, int64_t groups,
                        const float *bound, int64_t *out, int threads) {
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (int64_t g = 0; g < groups; g++) {
        int64_t from = g ? offsets[g - 1] : 0, n = offsets[g] - from;
        failed |= components(coords + 3 * from, n, *bound, out + from);
        for (int64_t i = 0; i < n; i++) out[from + i] += from;
    }
    return failed;
}
