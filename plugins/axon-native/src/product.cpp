#include "product.h"

#include <algorithm>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/utils.h"
#include "pass.h"
#include "product_primitive.h"
#include "rows.h"

namespace axon {

void Product::eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) {
  const array &x = inputs[0], &weight = inputs[1];
  array& y = outputs[0];
  y.set_data(mx::allocator::malloc(y.nbytes()));
  const size_t width = x.shape(-1), columns = weight.shape(-2), rows = y.size() / std::max<size_t>(columns, 1);

  const array *scales = quantised() ? &inputs[2] : nullptr, *biases = affine() ? &inputs[3] : nullptr;
  const Stored matrix = stored(weight, scales, biases, packing_, width);
  const array* indices = gathers_ ? &inputs.back() : nullptr;
  mx::cpu::get_command_encoder(stream()).dispatch([=, x = x, y = y.data<float>(),
                                                   chosen = indices ? indices->data<uint32_t>() : nullptr,
                                                   matrices = gathers_ ? weight.shape(0) : 1]() {
    if (rows == 0 || columns == 0) {
      return;
    }
    if (width == 0) {
      std::fill_n(y, rows * columns, 0.0f);
      return;
    }
    const float* numbers = x.data<float>();
    const size_t each = chosen == nullptr ? rows : x.shape(-2);
    const int64_t step = x.strides(-1);
    std::vector<float> copies(step == 1 ? 0 : rows * width);
    std::vector<Meeting> meetings(matrices);
    for (size_t row = 0; row < rows; ++row) {
      const size_t expert = chosen == nullptr ? 0 : chosen[row / each];
      auto& meeting = meetings[std::min<size_t>(expert, matrices - 1)];
      const float* from = numbers + offset(x, row, x.ndim() - 1);
      if (step != 1) {
        float* copy = copies.data() + row * width;
        for (size_t k = 0; k < width; ++k) {
          copy[k] = from[static_cast<int64_t>(k) * step];
        }
        from = copy;
      }
      meeting.x.push_back(from);
      meeting.y.push_back(y + row * columns);
    }
    for (size_t at = 0; at < meetings.size(); ++at) {
      meetings[at].origin = at * columns;
    }
    std::erase_if(meetings, [](const Meeting& meeting) { return meeting.x.empty(); });
    multiply({{matrix, columns, std::move(meetings)}});
  });
}

std::vector<mx::Shape> Product::output_shapes(const std::vector<array>& inputs) {
  auto shape = inputs[0].shape();
  shape.back() = inputs[1].shape(-2);
  return {shape};
}

array Product::of(const std::vector<array>& inputs) {
  const auto primitive = std::make_shared<Product>(stream(), packing_, gathers_);
  return array(primitive->output_shapes(inputs)[0], mx::float32, primitive, inputs);
}

array product(const array& x, const array& weight, const std::optional<array>& scales,
              const std::optional<array>& biases, const std::optional<array>& indices, int group_size, int bits,
              const std::string& mode) {
  const Packing packing{group_size, bits, mode};
  if (x.ndim() < 1) {
    refuse("x should be (..., K)");
  }
  check_matrix(x.shape(-1), weight, scales, biases, indices.has_value(), packing);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  std::vector<array> inputs{mx::astype(x, mx::float32, stream), dense(weight, stream)};
  for (const auto& array : {scales, biases}) {
    if (array) {
      inputs.push_back(dense(*array, stream));
    }
  }
  if (indices) {
    if (x.ndim() < 2 || !mx::issubdtype(indices->dtype(), mx::integer)) {
      refuse("x should be (..., R, K), and indices whole numbers");
    }
    auto shape = mx::broadcast_shapes(indices->shape(), mx::Shape(x.shape().begin(), x.shape().end() - 2));
    inputs.push_back(dense(mx::broadcast_to(mx::astype(*indices, mx::uint32, stream), shape, stream), stream));
    shape.push_back(x.shape(-2));
    shape.push_back(x.shape(-1));
    inputs[0] = mx::broadcast_to(inputs[0], shape, stream);
  }
  const auto primitive = std::make_shared<Product>(stream, packing, indices.has_value());
  return array(primitive->output_shapes(inputs)[0], mx::float32, primitive, inputs);
}

}  // namespace axon
