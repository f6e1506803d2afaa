/** A recurrence as an operation of MLX: float32 arrays in, the outputs and the last state out. */
#pragma once

#include <string>
#include <vector>

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

/** What is known of a recurrence.
 *
 * `run` computes it: writes the outputs of all tokens to `y`, and the state after them to `last`. These are shaped like
 * the inputs with the numbers `like_y` and `like_last`.
 */
struct Definition {
  const char* name;
  void (*run)(const std::vector<View>& inputs, float* y, float* last);
  size_t like_y, like_last;
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

/** The graph of a recurrence on the CPU; its inputs may have gaps and any type, its outputs are float32. */
Outcome recurrence(const Definition& definition, std::vector<mx::array> inputs);

/** Throws std::invalid_argument unless an input has this shape. */
void expect(const mx::array& input, const char* name, const mx::Shape& shape);

}  // namespace axon
