/** Eight numbers in two vectors of 16 bytes. GCC keeps vectors that are longer than those of the processor in memory,
 * sums in loops included. Like `stored_numbers.h` it is compiled once for each kind of processor.
 */
#pragma once

#include <cstddef>
#include <cstdint>

namespace axon {

namespace {

/** What one writes with vectors of the compiler: operators on each number, a single one for all, casts of the bits. */
template <class T>
struct Pair {
  typedef T Half __attribute__((vector_size(16)));

  Pair() = default;
  Pair(Half a, Half b) : low(a), high(b) {}
  Pair(T all) : low(Half{} + all), high(low) {}
  template <class U>
  explicit Pair(Pair<U> x) : low((Half)x.low), high((Half)x.high) {}

  T operator[](size_t i) const { return i < 4 ? low[i] : high[i - 4]; }
  Pair& operator+=(Pair x) { return *this = *this + x; }

  friend Pair operator+(Pair a, Pair b) { return {a.low + b.low, a.high + b.high}; }
  friend Pair operator*(Pair a, Pair b) { return {a.low * b.low, a.high * b.high}; }
  friend Pair operator&(Pair a, Pair b) { return {a.low & b.low, a.high & b.high}; }
  friend Pair operator|(Pair a, Pair b) { return {a.low | b.low, a.high | b.high}; }
  friend Pair operator^(Pair a, Pair b) { return {a.low ^ b.low, a.high ^ b.high}; }
  friend Pair operator<<(Pair a, Pair b) { return {a.low << b.low, a.high << b.high}; }
  friend Pair operator>>(Pair a, Pair b) { return {a.low >> b.low, a.high >> b.high}; }
  friend Pair operator<<(Pair a, int places) { return {a.low << places, a.high << places}; }
  friend Pair operator>>(Pair a, int places) { return {a.low >> places, a.high >> places}; }
  /** -1 where it is so. */
  friend Pair<int32_t> operator>(Pair a, Pair b) { return {a.low > b.low, a.high > b.high}; }
  friend Pair<int32_t> operator>=(Pair a, Pair b) { return {a.low >= b.low, a.high >= b.high}; }

  Half low, high;
};

}  // namespace

}  // namespace axon
