/** Reading stored numbers as vectors of float32. Everything here is compiled once for each kind of processor, so it is
 * in a namespace without a name, and takes nothing from the standard library that could be compiled only once.
 */
#pragma once

#include <cstring>

#include "pairs.h"
#include "product_kernels.h"
#ifdef __x86_64__
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace axon {

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
#ifdef __AVX2__
typedef float Lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));
#else
typedef Pair<float> Lanes;
typedef Pair<int32_t> Whole;
typedef Pair<uint32_t> Bits;
#endif

template <class T>
inline T read(const void* from) {
  T found;
  std::memcpy(&found, from, sizeof(T));
  return found;
}

#ifdef __AVX2__
inline void write(float* to, Lanes x) { std::memcpy(to, &x, sizeof(x)); }
#else
template <>
inline Lanes read<Lanes>(const void* from) {
  const auto at = static_cast<const float*>(from);
  return {read<Lanes::Half>(at), read<Lanes::Half>(at + 4)};
}

inline void write(float* to, Lanes x) {
  std::memcpy(to, &x.low, sizeof(x.low));
  std::memcpy(to + 4, &x.high, sizeof(x.high));
}
#endif

inline Lanes floats(Whole x) {
#ifdef __AVX2__
  return __builtin_convertvector(x, Lanes);
#else
  return {__builtin_convertvector(x.low, Lanes::Half), __builtin_convertvector(x.high, Lanes::Half)};
#endif
}

// Compilers take these apart when they are asked to convert vectors of 8 or 16 bits. Zeros between them do it, too.

/** LANES whole numbers of 16 bits. */
inline Bits halves(const uint8_t* from) {
#if defined(__AVX512F__)
  return (Bits)_mm512_cvtepu16_epi32(read<__m256i>(from));
#elif defined(__AVX2__)
  return (Bits)_mm256_cvtepu16_epi32(read<__m128i>(from));
#else
  typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));
  const Halves x = read<Halves>(from), zero{};
  return {(Bits::Half)__builtin_shufflevector(x, zero, 0, 8, 1, 9, 2, 10, 3, 11),
          (Bits::Half)__builtin_shufflevector(x, zero, 4, 12, 5, 13, 6, 14, 7, 15)};
#endif
}

/** LANES whole numbers of 8 bits. */
inline Bits bytes(const uint8_t* from) {
#if defined(__AVX512F__)
  return (Bits)_mm512_cvtepu8_epi32(read<__m128i>(from));
#elif defined(__AVX2__)
  return (Bits)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
#else
  typedef uint8_t Bytes __attribute__((vector_size(LANES * 2)));
  Bytes x{}, zero{};
  std::memcpy(&x, from, LANES);
  x = __builtin_shufflevector(x, zero, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  return halves(reinterpret_cast<const uint8_t*>(&x));
#endif
}

/** LANES numbers of 32 or 16 bits. */
template <Kind KIND>
inline Lanes numbers(const uint8_t* from) {
  if constexpr (KIND == Kind::float32) {
    return read<Lanes>(from);
  } else if constexpr (KIND == Kind::bfloat16) {
    return (Lanes)(halves(from) << 16);
  } else {
#if defined(__AVX512F__)
    return (Lanes)_mm512_cvtph_ps(read<__m256i>(from));
#elif defined(__AVX2__) && defined(__F16C__)
    return (Lanes)_mm256_cvtph_ps(read<__m128i>(from));
#elif defined(__aarch64__)
    const auto half = read<float16x8_t>(from);
    return {(Lanes::Half)vcvt_f32_f16(vget_low_f16(half)), (Lanes::Half)vcvt_high_f32_f16(half)};
#else
    // The exponent and the places of a float16 in those of a float32, which a product makes right, also of numbers below
    // the smallest normal one; what becomes 2^16 or more was infinite or no number.
    const Bits half = halves(from);
    const Lanes size = (Lanes)((half & 0x7fff) << 13) * 0x1p112f;
    const Bits endless = (Bits)(size >= 65536.0f) & 0x7f800000u;
    return (Lanes)((Bits)size | endless | (half & 0x8000) << 16);
#endif
  }
}

#if defined(__AVX512BW__) || defined(__AVX2__)
/** To every lane the two bytes that its BITS bits begin in, shifted to where they belong; bits above them stay. */
template <int BITS>
inline Bits spread(const uint8_t* from) {
  alignas(64) static constexpr auto PLACES = [] {
    struct {
      uint8_t bytes[LANES * 4];
      int32_t shifts[LANES];
    } places{};
    for (int i = 0; i < LANES; ++i) {
      places.shifts[i] = i * BITS % 8;
      for (int byte = 0; byte < 4; ++byte) {
        places.bytes[4 * i + byte] = byte < 2 ? i * BITS / 8 + byte : 0x80;
      }
    }
    return places;
  }();
#ifdef __AVX512BW__
  const auto bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(read<__m128i>(from)), read<__m512i>(PLACES.bytes));
#else
  const auto bytes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(read<__m128i>(from)), read<__m256i>(PLACES.bytes));
#endif
  return (Bits)bytes >> read<Bits>(PLACES.shifts);
}
#endif

/** LANES whole numbers of BITS bits each, one after the other from the lowest bit of the first byte on.
 *
 * May read up to 16 bytes.
 */
template <int BITS>
inline Whole whole(const uint8_t* from) {
  if constexpr (BITS == 8) {
    return (Whole)bytes(from);
  } else {
#if defined(__AVX512BW__) || defined(__AVX2__)
    return (Whole)(spread<BITS>(from) & ((1 << BITS) - 1));
#else
    static_assert(LANES == 8);
    const uint64_t bits = read<uint64_t>(from);
    const uint32_t low = bits, high = bits >> 4 * BITS;  // four numbers fit into each
    constexpr Bits::Half PLACES = {0, BITS, 2 * BITS, 3 * BITS};
    const Bits spread{(Bits::Half{} + low) >> PLACES, (Bits::Half{} + high) >> PLACES};
    return (Whole)(spread & ((1 << BITS) - 1));
#endif
  }
}

#ifdef __AVX512F__
/** LANES numbers of BITS bits, 4 at most, in the lowest bits of each lane; those above are anything. */
template <int BITS>
inline Whole lowest(const uint8_t* from) {
#ifdef __AVX512VBMI__
  alignas(64) static constexpr auto PLACES = [] {
    struct {
      uint8_t bits[64];
    } places{};
    for (int i = 0; i < LANES; ++i) {
      places.bits[4 * i] = i * BITS;
    }
    return places;
  }();
  return (Whole)_mm512_multishift_epi64_epi8(read<__m512i>(PLACES.bits), _mm512_set1_epi64(read<int64_t>(from)));
#else
  return (Whole)spread<BITS>(from);
#endif
}

/** What the lowest BITS bits of 0, 1, 2, ... stand for as a whole number, for `looked_up`. */
template <int BITS>
inline Whole counted() {
  return Whole{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} & ((1 << BITS) - 1);
}

/** Of 16 values, the ones that the lowest 4 bits of each lane say. */
inline Lanes looked_up(Lanes values, Whole which) {
  return (Lanes)_mm512_permutexvar_ps((__m512i)which, (__m512)values);
}
#endif

/** The numbers of 4 bits that the lowest bits stand for: a sign, two bits of the exponent, one place. */
inline Lanes tiny(Whole code) {
#if defined(__AVX512F__)
  const auto table = _mm512_setr_ps(0, .5, 1, 1.5, 2, 3, 4, 6, -0.f, -.5, -1, -1.5, -2, -3, -4, -6);
  return (Lanes)_mm512_permutexvar_ps((__m512i)code, table);
#elif defined(__AVX2__)
  const auto table = _mm256_setr_ps(0, .5, 1, 1.5, 2, 3, 4, 6);
  return (Lanes)((Whole)_mm256_permutevar8x32_ps(table, (__m256i)code) ^ (code & 8) << 28);
#else
  // Twice the number is whole: the place, with the bit above it unless the exponent is 0, shifted by what is left of it.
  const Whole exponent = code >> 1 & 3, normal = exponent > 0;  // -1 where it is so
  const Whole twice = ((code & 1) | (normal & 2)) << (exponent + normal);
  return (Lanes)((Whole)(floats(twice) * 0.5f) ^ (code & 8) << 28);
#endif
}

/** Bytes of a scale. */
inline size_t scale_bytes(Kind kind) { return kind == Kind::mxfp4 ? 1 : kind == Kind::float32 ? 4 : 2; }

template <Kind KIND>
inline void widen(const uint8_t* from, const uint8_t* end, size_t count, float* to) {
  constexpr size_t SIZE = KIND == Kind::float32 ? 4 : 2;
  for (size_t i = 0; i < count; i += LANES) {
    const uint8_t* next = from + i * SIZE;
    uint8_t padded[LANES * SIZE];
    if (next + sizeof(padded) > end) {
      std::memcpy(padded, next, end - next);
      next = padded;
    }
    write(to + i, numbers<KIND>(next));
  }
}

/** Some scales in float32, and what comes after them up to a whole vector. Those of mxfp4 are exponents.
 *
 * Nothing is read from `end` on.
 */
inline void widen(Kind kind, const uint8_t* from, const uint8_t* end, size_t count, float* to) {
  switch (kind) {
    case Kind::float32:
      return widen<Kind::float32>(from, end, count, to);
    case Kind::bfloat16:
      return widen<Kind::bfloat16>(from, end, count, to);
    case Kind::float16:
      return widen<Kind::float16>(from, end, count, to);
    default:
      for (size_t i = 0; i < count; ++i) {
        const uint32_t power = from[i] == 0 ? 1u << 22 : uint32_t(from[i]) << 23;
        std::memcpy(to + i, &power, sizeof(power));
      }
  }
}

}  // namespace

}  // namespace axon
