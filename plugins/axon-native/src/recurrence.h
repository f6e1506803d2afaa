/** A recurrence, or its gradient, as an operation of MLX: float32 arrays in, float32 arrays out. */
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/primitives.h"
#include "recurrences.h"
#include "threads.h"

namespace axon {

/** An array without gaps, in C order. */
struct View {
  const float* data;
  mx::Shape shape;
};

using Views = std::vector<View>;

/** What is known of an operation.
 *
 * `run` computes it and writes every number of every output. These are shaped like the inputs with the numbers `like`.
 */
struct Definition {
  const char* name;
  void (*run)(const Views& inputs, const std::vector<float*>& outputs);
  std::vector<size_t> like;
};

class Recurrence : public mx::Primitive {
 public:
  Recurrence(mx::Stream stream, const Definition& definition) : Primitive(stream), definition_(definition) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override;
  // MLX asks for both of these before it takes the rules that `axon_core` has for a recurrence.
  /** Not a number: there is none. */
  std::vector<mx::array> jvp(const std::vector<mx::array>& primals, const std::vector<mx::array>& tangents,
                             const std::vector<int>& argnums) override;
  /** One after the other. */
  std::pair<std::vector<mx::array>, std::vector<int>> vmap(const std::vector<mx::array>& inputs,
                                                           const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override;
  const char* name() const override { return definition_.name; }
  bool is_equivalent(const Primitive& other) const override;

 private:
  const Definition& definition_;
};

/** The graph of an operation on the CPU; its inputs may have gaps and any type, its outputs are float32. */
std::vector<mx::array> recurrence(const Definition& definition, std::vector<mx::array> inputs);

/** Memory of an operation that counts among MLX's; not set to anything. */
class Scratch {
 public:
  explicit Scratch(size_t count) : memory_(mx::allocator::malloc(count * sizeof(float))) {}
  float* data() { return static_cast<float*>(memory_.buffer().raw_ptr()); }

 private:
  mx::allocator::Data memory_;
};

/** Copies `rows` rows of `count` numbers, which lie `from_stride` and then `to_stride` apart. */
inline void copy(float* to, size_t to_stride, const float* from, size_t from_stride, size_t rows, size_t count) {
  for (size_t row = 0; row < rows; ++row) {
    std::copy_n(from + row * from_stride, count, to + row * to_stride);
  }
}

/** Throws std::invalid_argument unless an input has this shape. */
void expect(const mx::array& input, const char* name, const mx::Shape& shape);

}  // namespace axon
