/** Products with matrices as they are stored, for one kind of processor each; see `product_kernels.cpp`. */
#pragma once

#include <cstddef>
#include <cstdint>

namespace axon {

/** What the numbers of a matrix are. `affine` is w = s q + b for the s and b of a group of whole numbers q, `mxfp4` are
 * numbers of 4 bits, with a power of two for each group (Open Compute Project 2023, "Microscaling Formats"). */
enum class Kind { float32, bfloat16, float16, affine, mxfp4 };

/** A matrix whose rows lie side by side. */
struct Stored {
  Kind kind;
  /** Bits of a whole number and how many share a scale; 0 where there are none. */
  int bits, group;
  /** Numbers of a row, bytes of a row, and how many rows there are in memory. */
  size_t width, row_bytes, count;
  const uint8_t* rows;
  /** (rows, width / group), numbers of the kind `scale`, or bytes with mxfp4, which has no biases. */
  Kind scale;
  const uint8_t *scales, *biases;
};

/** The products for a kind of processor. */
struct Kernels {
  const char* name;
  /** Floats of scratch that `multiply` needs. */
  size_t (*scratch)(const Stored& matrix);
  /** y[m][n] = sum_k x[m][k] W[n][k] for m < count and first <= n < last. Reads and writes float32.
   *
   * W begins with the row `origin` of `matrix`; `first` and `last` count from there.
   */
  void (*multiply)(const Stored& matrix, size_t origin, size_t first, size_t last, const float* const* x,
                   float* const* y, size_t count, float* scratch);
};

#ifdef __x86_64__
extern const Kernels AVX512VBMI, AVX512, AVX2;
#endif
/** Vectors of the compiler, which are NEON on ARM. */
extern const Kernels PORTABLE;

}  // namespace axon
