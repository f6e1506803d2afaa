/** Matrices as they are stored, and products of rows with their transposes. */
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "mlx/array.h"
#include "product_kernels.h"

namespace axon {

/** How numbers are quantised, as `mlx.core.quantize` takes it; the mode is empty where they are not. */
struct Packing {
  int group = 0, bits = 0;
  std::string mode;
};

/** Throws std::invalid_argument unless a matrix ([E,] N, ...), as it is stored, multiplies rows of `width`. */
void check_matrix(int width, const mlx::core::array& weight, const std::optional<mlx::core::array>& scales,
                  const std::optional<mlx::core::array>& biases, bool experts, const Packing& packing);

/** The same side by side in memory: weights mostly are so. */
mlx::core::array dense(const mlx::core::array& a, mlx::core::Stream stream);

/** What the kernels read of a matrix that has been computed; scales and biases are null where there are none. */
Stored stored(const mlx::core::array& weight, const mlx::core::array* scales, const mlx::core::array* biases,
              const Packing& packing, size_t width);

/** Rows of x that meet the rows of a matrix from `origin` on, and where their products go. */
struct Meeting {
  size_t origin;
  std::vector<const float*> x;
  std::vector<float*> y;
};

/** Products with a matrix, or with several that follow each other, of `columns` rows each. */
struct Task {
  Stored matrix;
  size_t columns;
  std::vector<Meeting> meetings;
};

/** Runs all of them together, on as many threads as are worth it. */
void multiply(const std::vector<Task>& tasks);

/** The kernels that products run, by the processor that they are for. */
std::string product_kernels();

/** A linear layer: weight (N, ...), scales and biases of a quantised one, what is added (N,), and the packing. With a layer
 * for each of E experts all have a further first axis. */
using Layer = std::tuple<mlx::core::array, std::optional<mlx::core::array>, std::optional<mlx::core::array>,
                         std::optional<mlx::core::array>, int, int, std::string>;

/** A linear layer, or one for each of some experts, whose arrays are inputs of an operation. */
class LinearInput {
 public:
  /** Appends the arrays to `inputs`; throws std::invalid_argument unless rows of `width` meet it. */
  LinearInput(const Layer& layer, int width, bool experts, std::vector<mlx::core::array>& inputs,
              mlx::core::Stream stream);

  int columns() const { return columns_; }
  /** The products of rows, which go to `y` one after the other, without what is added.
   *
   * `experts` has the one of each row; it is empty where there is one layer for all.
   */
  Task task(const std::vector<mlx::core::array>& inputs, const std::vector<const float*>& x, float* y,
            const std::vector<size_t>& experts = {}) const;
  /** Adds to `rows` products what the layer, or that of their expert, adds. */
  void shift(const std::vector<mlx::core::array>& inputs, size_t rows, float* y,
             const std::vector<size_t>& experts = {}) const;
  /** The layer in operations of MLX: of x (..., K), or with indices (...) of x (..., R, K). */
  mlx::core::array of(const std::vector<mlx::core::array>& inputs, const mlx::core::array& x,
                      const std::optional<mlx::core::array>& indices = std::nullopt) const;
  /** How many experts there are; 1 without. */
  size_t experts(const std::vector<mlx::core::array>& inputs) const;

 private:
  Packing packing_;
  int width_, columns_;
  size_t weight_;
  /** Places among the inputs; 0, which x has, where there is none. */
  size_t scales_ = 0, biases_ = 0, shift_ = 0;
};

}  // namespace axon
