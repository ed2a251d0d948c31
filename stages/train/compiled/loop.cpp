// Takes steps of gradient descent. training.h is written for one training, by program.py. It has the functions
//
//     add_gradients   adds the gradients of the loss at some blocks of points
//     collect         adds these sums to the gradient
//     take_step       takes a step of the optimizer: changes parameters and its state, given a gradient
//
// A block is LANES points, or LANES parameters, computed together. A value of a block is an array of LANES floats, one
// after the other. So a vector instruction computes the same for several points, however few the neurons are.

#include <cmath>
#include <cstdint>
#include <sched.h>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

constexpr int LANES = 32;
#if defined(__AVX512F__)
constexpr int VECTOR = 16, TILE = 12;  // floats in a vector; 2 * TILE vectors are kept in registers
#elif defined(__AVX__)
constexpr int VECTOR = 8, TILE = 6;
#else
constexpr int VECTOR = 4, TILE = 6;
#endif

#if defined(__GLIBC__) && defined(__x86_64__) && !defined(__clang__)  // glibc has these for vectors
extern "C" {
__attribute__((simd("notinbranch"))) float expf(float) noexcept;
__attribute__((simd("notinbranch"))) float logf(float) noexcept;
__attribute__((simd("notinbranch"))) float powf(float, float) noexcept;
__attribute__((simd("notinbranch"))) float sinf(float) noexcept;
__attribute__((simd("notinbranch"))) float cosf(float) noexcept;
#if __GLIBC_PREREQ(2, 35)
__attribute__((simd("notinbranch"))) float tanhf(float) noexcept;
__attribute__((simd("notinbranch"))) float erff(float) noexcept;
__attribute__((simd("notinbranch"))) float expm1f(float) noexcept;
__attribute__((simd("notinbranch"))) float log1pf(float) noexcept;
#endif
}
#endif

template <int WIDTH>
struct Vector {
    typedef float Type __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
};

// How many floats of a row are computed together, and how many a row has in memory.
constexpr int width_of(int columns) {
    int width = 4;
    while (width < columns && width < VECTOR) width *= 2;
    return width;
}
constexpr int padded(int columns) { return (columns + width_of(columns) - 1) / width_of(columns) * width_of(columns); }

// out[j] = sum of weights[j * J + k * K] * in[k] over k < INPUTS, for OUTPUTS values.
// Few outputs are computed in PARTS sums each, since every addition waits for the one before.
template <int OUTPUTS, int PARTS, int INPUTS, int J, int K>
static inline void product_tile(float* out, const float* in, const float* weights) {
    typedef typename Vector<VECTOR>::Type Values;
    for (int lane = 0; lane < LANES; lane += 2 * VECTOR) {
        Values sums[PARTS][OUTPUTS][2] = {};
        constexpr int EVEN = INPUTS / PARTS * PARTS;
        for (int k = 0; k < EVEN; k += PARTS)
#pragma GCC unroll 16
            for (int part = 0; part < PARTS; ++part) {
                const Values* values = (const Values*)(in + (k + part) * LANES + lane);
#pragma GCC unroll 16
                for (int j = 0; j < OUTPUTS; ++j) {
                    const float factor = weights[j * J + (k + part) * K];
                    sums[part][j][0] += factor * values[0];
                    sums[part][j][1] += factor * values[1];
                }
            }
        for (int k = EVEN; k < INPUTS; ++k)
#pragma GCC unroll 16
            for (int j = 0; j < OUTPUTS; ++j)
                for (int half = 0; half < 2; ++half)
                    sums[0][j][half] += weights[j * J + k * K] * ((const Values*)(in + k * LANES + lane))[half];
#pragma GCC unroll 16
        for (int j = 0; j < OUTPUTS; ++j)
            for (int half = 0; half < 2; ++half) {
                Values sum = sums[0][j][half];
                for (int part = 1; part < PARTS; ++part) sum += sums[part][j][half];
                ((Values*)(out + j * LANES + lane))[half] = sum;
            }
    }
}

// out, [OUTPUTS][LANES] = the product of weights, whose outputs are J apart and inputs K, and in, [INPUTS][LANES].
template <int OUTPUTS, int INPUTS, int J, int K>
static void product(float* __restrict out, const float* __restrict in, const float* __restrict weights) {
    constexpr int REST = OUTPUTS % TILE, EVEN = OUTPUTS - REST, PARTS = REST == 1 ? 4 : REST == 2 ? 2 : 1;
    for (int j = 0; j < EVEN; j += TILE) product_tile<TILE, 1, INPUTS, J, K>(out + j * LANES, in, weights + j * J);
    if constexpr (REST > 0)
        product_tile<REST, PARTS, INPUTS, J, K>(out + EVEN * LANES, in, weights + EVEN * J);
}

// sums, a tile of ROWS rows and VECTORS * WIDTH columns, += the sum of a[i][r] * b[r][k] over the lanes r.
template <int ROWS, int VECTORS, int WIDTH, int STRIDE>
static inline void outer_tile(float* __restrict sums, const float* __restrict a, const float* __restrict b) {
    typedef typename Vector<WIDTH>::Type Values;
    Values tile[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) tile[i][v] = ((const Values*)(sums + i * STRIDE))[v];
    for (int r = 0; r < LANES; ++r) {
        const Values* values = (const Values*)(b + r * STRIDE);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) tile[i][v] += a[i * LANES + r] * values[v];
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) ((Values*)(sums + i * STRIDE))[v] = tile[i][v];
}

template <int ROWS, int COLUMNS>
static inline void outer_rows(float* sums, const float* a, const float* b) {
    constexpr int STRIDE = padded(COLUMNS), WIDTH = width_of(COLUMNS), PAIRS = STRIDE / (2 * WIDTH) * 2 * WIDTH;
    for (int k = 0; k < PAIRS; k += 2 * WIDTH) outer_tile<ROWS, 2, WIDTH, STRIDE>(sums + k, a, b + k);
    if constexpr (PAIRS < STRIDE) outer_tile<ROWS, 1, WIDTH, STRIDE>(sums + PAIRS, a, b + PAIRS);
}

// sums, [ROWS][padded(COLUMNS)] += the product of a, [ROWS][LANES], and b, [LANES][padded(COLUMNS)].
template <int ROWS, int COLUMNS>
static void add_outer_products(float* __restrict sums, const float* __restrict a, const float* __restrict b) {
    constexpr int STRIDE = padded(COLUMNS), REST = ROWS % TILE;
    for (int i = 0; i + TILE <= ROWS; i += TILE) outer_rows<TILE, COLUMNS>(sums + i * STRIDE, a + i * LANES, b);
    if constexpr (REST > 0)
        outer_rows<REST, COLUMNS>(sums + (ROWS - REST) * STRIDE, a + (ROWS - REST) * LANES, b);
}

// out[k * TO + r] = in[r * FROM + k], for r < ROWS and k < COLUMNS.
template <int ROWS, int COLUMNS, int FROM, int TO>
static void transpose(float* __restrict out, const float* __restrict in) {
#ifdef __SSE__
    constexpr int EVEN = COLUMNS / 4 * 4;  // of the columns, and of the rows
    constexpr int FULL = ROWS / 4 * 4;
    for (int r = 0; r < FULL; r += 4)
        for (int k = 0; k < EVEN; k += 4) {
            __m128 lines[4];
            for (int i = 0; i < 4; ++i) lines[i] = _mm_loadu_ps(in + (r + i) * FROM + k);
            _MM_TRANSPOSE4_PS(lines[0], lines[1], lines[2], lines[3]);
            for (int i = 0; i < 4; ++i) _mm_storeu_ps(out + (k + i) * TO + r, lines[i]);
        }
#else
    constexpr int EVEN = 0, FULL = 0;
#endif
    for (int r = 0; r < ROWS; ++r)
        for (int k = r < FULL ? EVEN : 0; k < COLUMNS; ++k) out[k * TO + r] = in[r * FROM + k];
}

// rows, [LANES][padded(COLUMNS)] = values, [COLUMNS][LANES], and the other way round.
template <int COLUMNS>
static inline void values_to_rows(float* rows, const float* values) {
    transpose<COLUMNS, LANES, LANES, padded(COLUMNS)>(rows, values);
}
template <int COLUMNS>
static inline void rows_to_values(float* values, const float* rows) {
    transpose<LANES, COLUMNS, padded(COLUMNS), LANES>(values, rows);
}

// block[r * ROW + k * COLUMN] = value k of the point of lane r, whose row is given, of all points, (n, COLUMNS).
template <int COLUMNS, int ROW, int COLUMN>
static void gather(float* __restrict block, const float* __restrict points, const int64_t* rows) {
    for (int r = 0; r < LANES; ++r)
        for (int k = 0; k < COLUMNS; ++k) block[r * ROW + k * COLUMN] = points[rows[r] * COLUMNS + k];
}

// total, [SIZE] += the sums over the lanes of sums, [SIZE][LANES].
template <int SIZE>
static void add_lanes(float* __restrict total, const float* __restrict sums) {
    for (int i = 0; i < SIZE; ++i) {
        float sum = 0;
        for (int r = 0; r < LANES; ++r) sum += sums[i * LANES + r];
        total[i] += sum;
    }
}

// total, [ROWS][COLUMNS] += sums, [ROWS][padded(COLUMNS)].
template <int ROWS, int COLUMNS>
static void add_rows(float* __restrict total, const float* __restrict sums) {
    for (int i = 0; i < ROWS; ++i)
        for (int k = 0; k < COLUMNS; ++k) total[i * COLUMNS + k] += sums[i * padded(COLUMNS) + k];
}

// The points of a batch: `count` in an order of rows of x and y, from its position `first` on; without one, all rows.
struct Points {
    const float *x, *y;
    const void* order;
    int64_t wide;  // whether the order is int64, else it is int32
    int64_t first, count;

    int64_t row(int64_t position) const {
        const int64_t at = first + position;
        return !order ? at : wide ? ((const int64_t*)order)[at] : ((const int32_t*)order)[at];
    }
    // Find the rows of a block and what each weighs in the mean: lanes beyond the last point repeat it, with weight 0.
    void locate(int64_t block, int64_t* rows, float* weights) const {
        for (int r = 0; r < LANES; ++r) {
            const int64_t position = block * LANES + r, last = count - 1;
            rows[r] = row(position < last ? position : last);
            weights[r] = position < count ? 1.0f / float(count) : 0;
        }
    }
};

#include "training.h"

constexpr int64_t CHUNK = 256;  // blocks added up before they are added to the others: float32 sums of many lose digits

// Compute the gradient of the mean loss over some blocks of a batch, followed by their part of the loss.
static void gradient_of(const Points& points, int64_t from, int64_t to, const float* parameters, const float* fixed,
                        float* work, float* gradient) {
    float* sums = work + TEMPORARY;
    for (int64_t i = 0; i < GRADIENT; ++i) gradient[i] = 0;
    for (int64_t chunk = from; chunk < to; chunk += CHUNK) {
        for (int64_t i = 0; i < SUMS; ++i) sums[i] = 0;
        add_gradients(points, chunk, chunk + CHUNK < to ? chunk + CHUNK : to, parameters, fixed, work, sums);
        collect(sums, gradient);
    }
}

// Wait until all threads have arrived.
static void meet(int32_t* barrier, int64_t threads) {
    if (threads == 1) return;
    const int32_t round = __atomic_load_n(&barrier[1], __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&barrier[0], 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&barrier[0], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier[1], round + 1, __ATOMIC_RELEASE);
    } else
        for (int spins = 0; __atomic_load_n(&barrier[1], __ATOMIC_ACQUIRE) == round; ++spins)
            if (spins > 10000) sched_yield();
}

extern "C" {
// How many floats a thread needs to work with.
int64_t floats_of_work() { return TEMPORARY + SUMS + GRADIENT; }

// Compute a gradient and behind it, at PARAMETERS, the loss.
void gradient(const float* x, const float* y, int64_t n, const float* parameters, const float* fixed, float* work,
              float* result) {
    const Points points{x, y, nullptr, 0, 0, n};
    gradient_of(points, 0, (n + LANES - 1) / LANES, parameters, fixed, work, result);
}

// Take a step with a gradient that is given. The entries of the state come after the parameters, each `stride` further.
void step(double rate, const float* gradient, float* parameters, int64_t stride, double* scalars) {
    double after[SCALARS + 1];
    take_step(rate, gradient, parameters, stride, scalars, after, 0, PARAMETERS / LANES);
    for (int i = 0; i < SCALARS; ++i) scalars[i] = after[i];
}

// Take steps with batches of n points in an order; with a single batch, the steps begin at the first point again.
// losses: one for each step, `losses_stride` apart. Several threads call this at once, each with its number.
void take_steps(int64_t thread, int64_t threads, int32_t* barrier, float* work, float* parameters, int64_t stride,
                double* scalars, const float* fixed, const float* x, const float* y, const void* order, int64_t wide,
                int64_t n, int64_t batch, double rate, int64_t steps, float* losses, int64_t losses_stride) {
    const int64_t share = floats_of_work();
    float* const gradients = work + TEMPORARY + SUMS;  // of thread 0; those of the others are a share further
    double now[SCALARS + 1], after[SCALARS + 1];
    for (int i = 0; i < SCALARS; ++i) now[i] = scalars[i];
    for (int64_t s = 0; s < steps; ++s) {
        const int64_t first = s * batch % n, count = first + batch < n ? batch : n - first;
        const int64_t blocks = (count + LANES - 1) / LANES, changed = PARAMETERS / LANES;
        const Points points{x, y, order, wide, first, count};
        gradient_of(points, blocks * thread / threads, blocks * (thread + 1) / threads, parameters, fixed,
                    work + thread * share, gradients + thread * share);
        meet(barrier, threads);
        const int64_t from = changed * thread / threads, to = changed * (thread + 1) / threads;
        if (thread == 0) {
            losses[s * losses_stride] = 0;
            for (int64_t t = 0; t < threads; ++t) losses[s * losses_stride] += gradients[t * share + PARAMETERS];
        }
        for (int64_t t = 1; t < threads; ++t)
            for (int64_t i = from * LANES; i < to * LANES; ++i) gradients[i] += gradients[t * share + i];
        take_step(rate, gradients, parameters, stride, now, after, from, to);
        for (int i = 0; i < SCALARS; ++i) now[i] = after[i];
        meet(barrier, threads);
    }
    if (thread == 0)
        for (int i = 0; i < SCALARS; ++i) scalars[i] = now[i];
}
}
