/** Products under the transformations of MLX: derivatives out of its own operations, and `vmap`. */
#include <algorithm>
#include <stdexcept>

#include "mlx/ops.h"
#include "one_by_one.h"
#include "product_primitive.h"

namespace axon {

std::vector<array> Product::jvp(const std::vector<array>& primals, const std::vector<array>& tangents,
                                const std::vector<int>& argnums) {
  // It is linear in x, in a matrix, and in scales and biases together.
  std::vector<array> parts;
  for (size_t i = 0; i < argnums.size(); ++i) {
    auto inputs = primals;
    inputs[argnums[i]] = mx::contiguous(mx::astype(tangents[i], primals[argnums[i]].dtype(), stream()), false, stream());
    if (quantised() && (argnums[i] == 2 || argnums[i] == 3)) {
      const int other = 5 - argnums[i];
      inputs[other] = mx::contiguous(mx::zeros_like(primals[other], stream()), false, stream());
    }
    parts.push_back(of(inputs));
  }
  array sum = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    sum = mx::add(sum, parts[i], stream());
  }
  return {sum};
}

array Product::unpacked(const std::vector<array>& inputs, const array& after) {
  const array weight = mx::depends({inputs[1]}, {after})[0];
  if (!quantised()) {
    return mx::astype(weight, mx::float32, stream());
  }
  if (!affine()) {
    return mx::dequantize(weight, inputs[2], std::nullopt, packing_.group, packing_.bits, packing_.mode, std::nullopt,
                          mx::float32, stream());
  }
  const auto wide = [&](const array& a) { return mx::astype(a, mx::float32, stream()); };
  return mx::dequantize(weight, wide(inputs[2]), wide(inputs[3]), packing_.group, packing_.bits, packing_.mode,
                        std::nullopt, mx::float32, stream());
}

array Product::towards_x(const std::vector<array>& inputs, const array& cotangent) {
  if (!gathers_) {
    return mx::matmul(cotangent, unpacked(inputs, cotangent), stream());
  }
  if (!quantised()) {
    return mx::gather_mm(cotangent, unpacked(inputs, cotangent), std::nullopt, inputs.back(), false, stream());
  }
  // All experts in float32 may be more than there is memory for.
  const auto wide = [&](const array& a) { return affine() ? mx::astype(a, mx::float32, stream()) : a; };
  const auto biases = affine() ? std::optional{wide(inputs[3])} : std::nullopt;
  return mx::gather_qmm(cotangent, inputs[1], wide(inputs[2]), biases, std::nullopt, inputs.back(), false,
                        packing_.group, packing_.bits, packing_.mode, std::nullopt, false, stream());
}

/** Sums of the outer products of rows that meet the same matrix: ([E,] N, K). */
array Product::towards_weight(const array& x, const array& cotangent, const array& weight, const array* indices) {
  const auto rows = [&](const array& a) { return mx::reshape(a, {-1, a.shape(-1)}, stream()); };
  const array outer = rows(cotangent);
  if (indices == nullptr) {
    return mx::matmul(mx::transpose(outer, stream()), rows(x), stream());
  }
  const int each = x.shape(-2), matrices = weight.shape(0);
  const array owner = mx::repeat(mx::flatten(*indices, stream()), each, 0, stream());
  const array numbers = mx::arange(matrices, mx::uint32, stream());
  const array whose = mx::astype(mx::equal(mx::expand_dims(numbers, 1, stream()), owner, stream()), mx::float32, stream());
  const array own = mx::multiply(mx::expand_dims(whose, -1, stream()), outer, stream());  // (E, rows, N)
  return mx::matmul(mx::swapaxes(own, -1, -2, stream()), rows(x), stream());
}

std::vector<array> Product::vjp(const std::vector<array>& primals, const std::vector<array>& cotangents,
                                const std::vector<int>& argnums, const std::vector<array>&) {
  const array &x = primals[0], &cotangent = cotangents[0], &weight = primals[1];
  const array* indices = gathers_ ? &primals.back() : nullptr;
  std::vector<array> found;
  for (const int argument : argnums) {
    if (argument == 0) {
      found.push_back(towards_x(primals, cotangent));
      continue;
    }
    const array outer = towards_weight(x, cotangent, weight, indices);
    if (!quantised()) {
      found.push_back(mx::astype(outer, weight.dtype(), stream()));
      continue;
    }
    if (!affine() || argument > 3) {
      throw std::invalid_argument("a product of axon-native has no gradient towards what is packed");
    }
    auto shape = primals[argument].shape();
    shape.push_back(packing_.group);
    array groups = mx::reshape(outer, shape, stream());
    if (argument == 2) {
      auto plain = primals;
      plain[2] = mx::ones_like(primals[2], stream());
      plain[3] = mx::zeros_like(primals[3], stream());
      groups = mx::multiply(groups, mx::reshape(unpacked(plain, cotangent), shape, stream()), stream());
    }
    found.push_back(mx::astype(mx::sum(groups, -1, false, stream()), primals[argument].dtype(), stream()));
  }
  return found;
}

std::pair<std::vector<array>, std::vector<int>> Product::vmap(const std::vector<array>& inputs,
                                                              const std::vector<int>& axes) {
  const bool only_x = std::all_of(axes.begin() + 1, axes.end(), [](int axis) { return axis < 0; });
  if (only_x && !gathers_) {
    auto moved = inputs;
    moved[0] = mx::contiguous(mx::moveaxis(inputs[0], axes[0], 0, stream()), false, stream());
    return {{of(moved)}, {0}};
  }
  return one_by_one(inputs, axes, 1, stream(), [&](std::vector<array> own) {
    for (size_t i = 0; i < own.size(); ++i) {
      own[i] = axes[i] < 0 ? own[i] : mx::contiguous(own[i], false, stream());
    }
    return std::vector{of(own)};
  });
}

}  // namespace axon
