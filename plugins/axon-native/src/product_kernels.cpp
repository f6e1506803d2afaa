/** Products with matrices as they are stored. Compiled once for each kind of processor, which `AXON_TARGET` names.
 *
 * Numbers along a row are worked on together: a sum for each lane, added up at the end. A matrix that meets a few rows of
 * x is read once for each few of them and multiplied as it comes; for more, some of its rows are unpacked into scratch
 * that stays in the cache, and tiles of sums are kept in registers. Stored numbers become float32 as MLX's `dequantize`
 * makes them, with one rounding.
 */
#include "stored_numbers.h"

namespace axon {

namespace {

/** Rows of x in a tile of sums, whose other side are COLUMNS rows of the matrix; and up to which it is not unpacked. */
constexpr int TILE = LANES == 16 ? 6 : 3, FEW = LANES == 16 ? 4 : 2;
constexpr size_t COLUMNS = 4;
/** Rows of the matrix that are unpacked together, and how much of them. */
constexpr size_t UNPACKED = 16, STRETCH = 768;
/** What may be read beyond the end of a row. */
constexpr size_t BEYOND = LANES * 4;

typedef float Four __attribute__((vector_size(16)));

inline Four folded(Lanes x) {
#if defined(__AVX512F__)
  const auto half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  return (Four)_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
#else
  return x.low + x.high;
#endif
}

/** The sums over the lanes of four vectors. */
inline Four totals(const Lanes* x) {
  const Four a = folded(x[0]), b = folded(x[1]), c = folded(x[2]), d = folded(x[3]);
#if defined(__SSE3__)
  return (Four)_mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
#elif defined(__aarch64__)
  return (Four)vpaddq_f32(vpaddq_f32((float32x4_t)a, (float32x4_t)b), vpaddq_f32((float32x4_t)c, (float32x4_t)d));
#else
  return Four{(a[0] + a[1]) + (a[2] + a[3]), (b[0] + b[1]) + (b[2] + b[3]), (c[0] + c[1]) + (c[2] + c[3]),
              (d[0] + d[1]) + (d[2] + d[3])};
#endif
}

inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

// -- Kinds of numbers -------------------------------------------------------------------------------------------------

/** COLUMNS rows that may be read BEYOND the end of the last one, with their scales and biases in float32. */
struct Rows {
  const uint8_t* numbers;
  const float *scales, *biases;
  /** From a row to the next one: bytes of numbers, and groups. */
  size_t bytes, groups;
};

/** Numbers that are read as they are. */
template <Kind KIND>
struct Plain {
  static constexpr bool GROUPED = false;
  static constexpr int BITS = KIND == Kind::float32 ? 32 : 16;
  struct Group {};
  static Group group(float, float) { return {}; }
  static Lanes weights(const uint8_t* row, size_t k, Group) {
    return numbers<KIND>(row + k * BITS / 8);
  }
};

/** Whole numbers q of a group, which stand for s q + b. */
template <int BITS_>
struct Affine {
  static constexpr bool GROUPED = true;
  static constexpr int BITS = BITS_;
  struct Group {
    Lanes scale, bias;
  };
  static Group group(float scale, float bias) { return {Lanes{} + scale, Lanes{} + bias}; }
  static Lanes weights(const uint8_t* row, size_t k, Group group) {
    return floats(whole<BITS>(row + k * BITS / 8)) * group.scale + group.bias;
  }
};

#ifdef __AVX512F__
/** Numbers of 4 bits at most: a vector holds all that they stand for in a group, and they say which of it. */
template <int BITS_>
struct Looked {
  static constexpr bool GROUPED = true;
  static constexpr int BITS = BITS_;
  struct Group {
    Lanes values;
  };
  static Lanes weights(const uint8_t* row, size_t k, Group group) {
    return looked_up(group.values, lowest<BITS>(row + k * BITS / 8));
  }
};

template <int BITS>
  requires(BITS <= 4)
struct Affine<BITS> : Looked<BITS> {
  static Looked<BITS>::Group group(float scale, float bias) { return {floats(counted<BITS>()) * scale + bias}; }
};

struct Mxfp4 : Looked<4> {
  static Group group(float scale, float) { return {tiny(counted<4>()) * scale}; }
};
#else
struct Mxfp4 {
  static constexpr bool GROUPED = true;
  static constexpr int BITS = 4;
  struct Group {
    Lanes scale;
  };
  static Group group(float scale, float) { return {Lanes{} + scale}; }
  static Lanes weights(const uint8_t* row, size_t k, Group group) {
    return tiny(whole<4>(row + k / 2)) * group.scale;
  }
};
#endif

/** Numbers that are worked on without a branch; groups are of one or a few times as many. */
constexpr size_t CHUNK = 32;

/** Calls `each(k)` for the numbers from `begin` on, LANES at a time, and `group(at)` before those of a group; where
 * there are no groups, before those of a CHUNK, and numbers after the last whole vector are left out. */
template <class Format, class Group, class Each>
inline void walk(const Stored& matrix, size_t begin, size_t end, Group group, Each each) {
  if constexpr (Format::GROUPED) {
    for (size_t k = begin, at = begin / matrix.group; k < end; ++at) {
      group(at);
      for (const size_t last = k + matrix.group; k < last; k += CHUNK) {
#pragma GCC unroll 4
        for (size_t i = 0; i < CHUNK; i += LANES) {
          each(k + i);
        }
      }
    }
  } else {
    for (size_t k = begin; k + LANES <= end; k += LANES) {
      if ((k - begin) % CHUNK == 0) {
        group(k / CHUNK);
      }
      each(k);
    }
  }
}

/** Where things lie in the scratch: scales, biases and copies of COLUMNS rows, and unpacked numbers of UNPACKED. */
struct Scratch {
  size_t groups, room, row;
  float *scales, *biases, *copies, *unpacked;

  Scratch(const Stored& matrix, float* all)
      : groups(matrix.group == 0 ? 0 : matrix.width / matrix.group),
        room((COLUMNS * groups + LANES - 1) / LANES * LANES),
        row((matrix.row_bytes + 3) / 4),
        scales(all),
        biases(scales + room),
        copies(biases + room),
        unpacked(copies + row * COLUMNS + BEYOND / 4) {}

  size_t size() const { return 2 * room + row * COLUMNS + BEYOND / 4 + UNPACKED * STRETCH; }

  /** The rows from `n` on; what is beyond the last one of the matrix is anything. */
  Rows prepared(const Stored& matrix, size_t n) const {
    const uint8_t *numbers = matrix.rows + n * matrix.row_bytes, *end = matrix.rows + matrix.count * matrix.row_bytes;
    size_t bytes = matrix.row_bytes;
    if (numbers + COLUMNS * bytes + BEYOND > end) {
      const auto copy = reinterpret_cast<uint8_t*>(copies);
      bytes = row * 4;
      std::memset(copy, 0, COLUMNS * bytes + BEYOND);
      for (size_t at = 0; at < COLUMNS && n + at < matrix.count; ++at) {
        std::memcpy(copy + at * bytes, numbers + at * matrix.row_bytes, matrix.row_bytes);
      }
      numbers = copy;
    }
    return {numbers, in_float32(matrix, matrix.scales, n, scales), in_float32(matrix, matrix.biases, n, biases), bytes,
            groups};
  }

 private:
  /** Scales or biases of the rows from `n` on, in the scratch `to` unless they can be read where they are. */
  const float* in_float32(const Stored& matrix, const uint8_t* stored, size_t n, float* to) const {
    if (stored == nullptr || groups == 0) {
      return to;
    }
    const size_t bytes = groups * scale_bytes(matrix.scale);
    if (matrix.scale == Kind::float32 && n + COLUMNS <= matrix.count) {
      return reinterpret_cast<const float*>(stored + n * bytes);
    }
    const size_t rows = least(COLUMNS, matrix.count - n);
    widen(matrix.scale, stored + n * bytes, stored + matrix.count * bytes, rows * groups, to);
    return to;
  }
};

size_t scratch(const Stored& matrix) { return Scratch(matrix, nullptr).size(); }

/** The sums of some rows of x beyond the last whole vector, for which `w` gives numbers of a row of the matrix. */
template <class Weight>
inline float rest(const float* x, size_t begin, size_t end, Weight w) {
  float sum = 0;
  for (size_t k = begin; k < end; ++k) {
    sum += x[k] * w(k);
  }
  return sum;
}

// -- A few rows of x --------------------------------------------------------------------------------------------------

/** Sums of ROWS rows of x and COLUMNS of the matrix. */
template <class Format, int ROWS>
inline void sums(const Stored& matrix, const Rows& rows, const float* const* x, Four* found) {
  constexpr size_t LINE = 64, EACH = COLUMNS * CHUNK * Format::BITS / 8;
  Lanes sum[ROWS][COLUMNS] = {};
  typename Format::Group group[COLUMNS] = {};
  const float* factors[ROWS];
  std::memcpy(factors, x, sizeof(factors));
  const size_t chunks = Format::GROUPED ? matrix.group / CHUNK : 1;
  // Several rows at once are no stream that the processor would see coming: memory is asked for those that come next.
  const uint8_t* next = rows.numbers + COLUMNS * rows.bytes;
  walk<Format>(
      matrix, 0, matrix.width,
      [&](size_t at) {
        for (size_t line = 0; line < chunks * EACH; line += LINE) {
          __builtin_prefetch(next + line);
        }
        next += chunks * EACH;
        for (size_t column = 0; column < COLUMNS; ++column) {
          group[column] = Format::group(rows.scales[column * rows.groups + at], rows.biases[column * rows.groups + at]);
        }
      },
      [&](size_t k) {
#pragma GCC unroll 4
        for (size_t column = 0; column < COLUMNS; ++column) {
          const Lanes w = Format::weights(rows.numbers + column * rows.bytes, k, group[column]);
#pragma GCC unroll 4
          for (int row = 0; row < ROWS; ++row) {
            sum[row][column] += w * read<Lanes>(factors[row] + k);
          }
        }
      });
  for (int row = 0; row < ROWS; ++row) {
    found[row] = totals(sum[row]);
  }
  if constexpr (!Format::GROUPED) {
    if (const size_t begin = matrix.width / LANES * LANES; begin < matrix.width) {
      for (size_t column = 0; column < COLUMNS; ++column) {
        const Lanes last = Format::weights(rows.numbers + column * rows.bytes, begin, {});
        for (int row = 0; row < ROWS; ++row) {
          found[row][column] += rest(x[row], begin, matrix.width, [&](size_t k) { return last[k - begin]; });
        }
      }
    }
  }
}

/** Calls `some` with the largest constant up to MOST that `count` allows. */
template <int MOST, class Some>
inline void with_constant(size_t count, Some some) {
  if constexpr (MOST > 1) {
    if (count < MOST) {
      return with_constant<MOST - 1>(count, some);
    }
  }
  some.template operator()<MOST>();
}

/** Writes as many sums as there are rows left. */
inline void put(Four found, float* to, size_t left) { std::memcpy(to, &found, least(left, COLUMNS) * sizeof(float)); }

template <class Format>
void multiply_few(const Stored& matrix, size_t origin, size_t first, size_t last, const float* const* x,
                  float* const* y, size_t count, const Scratch& scratch) {
  for (size_t n = first; n < last; n += COLUMNS) {
    const Rows rows = scratch.prepared(matrix, origin + n);
    for (size_t m = 0; m < count;) {
      with_constant<FEW>(count - m, [&]<int ROWS>() {
        Four found[ROWS];
        sums<Format, ROWS>(matrix, rows, x + m, found);
        for (int row = 0; row < ROWS; ++row) {
          put(found[row], y[m + row] + n, last - n);
        }
        m += ROWS;
      });
    }
  }
}

// -- Many rows of x ---------------------------------------------------------------------------------------------------

/** Puts some numbers of a row into `to`, and what comes after them up to a whole vector. */
template <class Format>
void unpack(const Stored& matrix, const Rows& rows, size_t column, size_t begin, size_t end, float* to) {
  const uint8_t* const numbers = rows.numbers + column * rows.bytes;
  const float *scales = rows.scales + column * rows.groups, *biases = rows.biases + column * rows.groups;
  typename Format::Group group{};
  walk<Format>(
      matrix, begin, end,
      [&](size_t at) { group = Format::group(scales[at], biases[at]); },
      [&](size_t k) { write(to + k - begin, Format::weights(numbers, k, group)); });
  if constexpr (!Format::GROUPED) {
    if (const size_t k = begin + (end - begin) / LANES * LANES; k < end) {
      write(to + k - begin, Format::weights(numbers, k, {}));
    }
  }
}

/** Sums of ROWS rows of x, from `begin` on, and COLUMNS unpacked rows. */
template <int ROWS>
void tile(const float* const* x, size_t begin, size_t length, const float* w, Four* found) {
  Lanes sum[ROWS][COLUMNS] = {};
  size_t k = 0;
  for (; k + LANES <= length; k += LANES) {
    Lanes weights[COLUMNS];
#pragma GCC unroll 4
    for (int column = 0; column < COLUMNS; ++column) {
      weights[column] = read<Lanes>(w + column * STRETCH + k);
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row) {
      const Lanes factor = read<Lanes>(x[row] + begin + k);
#pragma GCC unroll 4
      for (int column = 0; column < COLUMNS; ++column) {
        sum[row][column] += factor * weights[column];
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < ROWS; ++row) {
    found[row] = totals(sum[row]);
    if (k < length) {
      for (int column = 0; column < COLUMNS; ++column) {
        found[row][column] += rest(x[row] + begin, k, length, [&](size_t at) { return w[column * STRETCH + at]; });
      }
    }
  }
}

using Unpack = void(const Stored& matrix, const Rows& rows, size_t column, size_t begin, size_t end, float* to);

void multiply_many(Unpack* unpack, const Stored& matrix, size_t origin, size_t first, size_t last,
                   const float* const* x, float* const* y, size_t count, const Scratch& scratch) {
  for (size_t n = first; n < last; n += UNPACKED) {
    const size_t rows = least(UNPACKED, last - n);
    for (size_t begin = 0, length; begin < matrix.width; begin += length) {
      length = least(STRETCH, matrix.width - begin);
      for (size_t four = 0; four < rows; four += COLUMNS) {
        const Rows prepared = scratch.prepared(matrix, origin + n + four);
        for (size_t column = 0; column < COLUMNS; ++column) {
          unpack(matrix, prepared, column, begin, begin + length, scratch.unpacked + (four + column) * STRETCH);
        }
      }
      for (size_t m = 0; m < count;) {
        with_constant<TILE>(count - m, [&]<int ROWS>() {
          for (size_t column = 0; column < rows; column += COLUMNS) {
            Four found[ROWS];
            tile<ROWS>(x + m, begin, length, scratch.unpacked + column * STRETCH, found);
            for (int row = 0; row < ROWS; ++row) {
              float* to = y[m + row] + n + column;
              if (begin > 0) {
                Four before{};
                std::memcpy(&before, to, least(rows - column, COLUMNS) * sizeof(float));
                found[row] += before;
              }
              put(found[row], to, rows - column);
            }
          }
          m += ROWS;
        });
      }
    }
  }
}

// -- Which of them ----------------------------------------------------------------------------------------------------

template <class Format>
void multiply(const Stored& matrix, size_t origin, size_t first, size_t last, const float* const* x, float* const* y,
              size_t count, float* all) {
  const Scratch scratch(matrix, all);
  if (count <= 2 * FEW) {
    multiply_few<Format>(matrix, origin, first, last, x, y, count, scratch);
  } else {
    multiply_many(unpack<Format>, matrix, origin, first, last, x, y, count, scratch);
  }
}

void multiply_any(const Stored& matrix, size_t origin, size_t first, size_t last, const float* const* x,
                  float* const* y, size_t count, float* all) {
  const auto chosen = [&] {
    switch (matrix.kind) {
      case Kind::float32:
        return multiply<Plain<Kind::float32>>;
      case Kind::bfloat16:
        return multiply<Plain<Kind::bfloat16>>;
      case Kind::float16:
        return multiply<Plain<Kind::float16>>;
      case Kind::mxfp4:
        return multiply<Mxfp4>;
      default:
        switch (matrix.bits) {
          case 2:
            return multiply<Affine<2>>;
          case 3:
            return multiply<Affine<3>>;
          case 4:
            return multiply<Affine<4>>;
          case 5:
            return multiply<Affine<5>>;
          case 6:
            return multiply<Affine<6>>;
          default:
            return multiply<Affine<8>>;
        }
    }
  }();
  chosen(matrix, origin, first, last, x, y, count, all);
}

}  // namespace

#define AS_TEXT(name) #name
#define TEXT(name) AS_TEXT(name)
const Kernels AXON_TARGET{TEXT(AXON_TARGET), scratch, multiply_any};

}  // namespace axon
