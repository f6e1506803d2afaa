/** The operation of MLX behind `product`. */
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "matrices.h"
#include "mlx/primitives.h"
#include "product.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

/** x (..., R, K), weight ([E,] N, ...), scales and biases ([E,] N, groups), and indices (...) where there are E. */
class Product : public mx::Primitive {
 public:
  Product(mx::Stream stream, Packing packing, bool gathers)
      : Primitive(stream), packing_(std::move(packing)), gathers_(gathers) {}

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override;
  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error("products of axon-native run on the CPU alone");
  }
  std::vector<array> jvp(const std::vector<array>& primals, const std::vector<array>& tangents,
                         const std::vector<int>& argnums) override;
  std::vector<array> vjp(const std::vector<array>& primals, const std::vector<array>& cotangents,
                         const std::vector<int>& argnums, const std::vector<array>& outputs) override;
  std::pair<std::vector<array>, std::vector<int>> vmap(const std::vector<array>& inputs,
                                                       const std::vector<int>& axes) override;
  std::vector<mx::Shape> output_shapes(const std::vector<array>& inputs) override;
  const char* name() const override { return "AxonProduct"; }
  bool is_equivalent(const Primitive& other) const override {
    const auto& product = static_cast<const Product&>(other);
    return packing_.group == product.packing_.group && packing_.bits == product.packing_.bits &&
           packing_.mode == product.packing_.mode && gathers_ == product.gathers_;
  }

 private:
  array of(const std::vector<array>& inputs);
  array towards_x(const std::vector<array>& inputs, const array& cotangent);
  array towards_weight(const array& x, const array& cotangent, const array& weight, const array* indices);
  /** The matrices in float32, computed when `after` has been, so that they do not wait for it in memory. */
  array unpacked(const std::vector<array>& inputs, const array& after);
  bool quantised() const { return !packing_.mode.empty(); }
  bool affine() const { return packing_.mode == "affine"; }

  Packing packing_;
  bool gathers_;
};

}  // namespace axon
