/** Neighbouring numbers that are worked on together, in the vector types of GCC and Clang. */
#pragma once

#include <cstddef>
#include <cstring>

namespace axon {

constexpr int LANES = 8;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int Whole __attribute__((vector_size(LANES * sizeof(int))));

inline Lanes load(const float* from) {
  Lanes x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

inline void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof(x)); }

/** The sums of four vectors, always in the same order. */
inline void totals(const Lanes x[4], float* sums) {
  const Lanes a = __builtin_shufflevector(x[0], x[1], 0, 8, 2, 10, 4, 12, 6, 14) +
                  __builtin_shufflevector(x[0], x[1], 1, 9, 3, 11, 5, 13, 7, 15);
  const Lanes b = __builtin_shufflevector(x[2], x[3], 0, 8, 2, 10, 4, 12, 6, 14) +
                  __builtin_shufflevector(x[2], x[3], 1, 9, 3, 11, 5, 13, 7, 15);
  const Lanes halves = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
                       __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  const Lanes whole = halves + __builtin_shufflevector(halves, halves, 4, 5, 6, 7, 0, 1, 2, 3);
  std::memcpy(sums, &whole, 4 * sizeof(float));
}

inline float total(Lanes x) {
  const Lanes one[4] = {x};
  float sums[4];
  totals(one, sums);
  return sums[0];
}

/** exp(x) for x at most zero, in two parts, so that it is known to 1.2e-7 of itself and of its difference from one:
 * the exponential is `base + rest`, where the base is 1 from one half on and 0 below. NaN stays NaN.
 *
 * Next to one, decays are 6e-8 apart, which over the thousands of tokens that a decay of 0.9999 remembers becomes an
 * error of 1e-4: there it counts what a decay takes away, and where almost nothing is left, what it leaves.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2: exp(r) - 1 by its Taylor polynomial of degree 7, and n into the exponent (Cody and
 * Waite 1980, "Software Manual for the Elementary Functions", chapter 6).
 */
struct Decay {
  explicit Decay(Lanes x) {
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: sums with it have no places behind the point
    x = x < -87.0f ? Lanes{} - 87.0f : x;
    const Lanes shifted = x * 1.44269504088896341f + ROUND;
    const Lanes n = shifted - ROUND;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    const Lanes scale = (Lanes)(((Whole)shifted - (Whole)(Lanes{} + ROUND) + 127) << 23);
    lost = p * scale + (scale - 1.0f);
    const Lanes left = p * scale + scale;
    const Whole near = left >= 0.5f;
    base = near ? Lanes{} + 1.0f : Lanes{};
    rest = near ? lost : left;
  }

  Lanes lost, base, rest;  // lost: its difference from one, always
};

/** exp(x) - 1. */
inline Lanes decay_less_one(Lanes x) { return Decay(x).lost; }

}  // namespace axon
