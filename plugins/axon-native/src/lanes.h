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

/** exp(x) - 1 for x at most zero, to 1.2e-7 of it; NaN stays NaN.
 *
 * A decay is kept as what it takes away: next to one, decays are 6e-8 apart, which over the thousands of tokens that a
 * decay of 0.9999 remembers becomes an error of 1e-4.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2: exp(r) - 1 by its Taylor polynomial of degree 7, and n into the exponent (Cody and
 * Waite 1980, "Software Manual for the Elementary Functions", chapter 6).
 */
inline Lanes decay_less_one(Lanes x) {
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
  return p * scale + (scale - 1.0f);
}

}  // namespace axon
