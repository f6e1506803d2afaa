#include "recurrence.h"

#include <limits>
#include <list>
#include <sstream>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/utils.h"
#include "one_by_one.h"
#include "rows.h"

namespace axon {

namespace {

/** The numbers of an array of float32 without gaps. */
std::vector<float> in_order(const mx::array& a) {
  std::vector<float> found(a.size());
  const size_t width = a.ndim() == 0 ? 1 : a.shape(-1);
  for (size_t at = 0; at * width < found.size(); ++at) {
    float* const to = found.data() + at * width;
    const float* const from = row(a, at, to);
    if (from != to) {
      std::copy_n(from, width, to);
    }
  }
  return found;
}

}  // namespace

void Recurrence::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  for (auto& output : outputs) {
    output.set_data(mx::allocator::malloc(output.nbytes()));
  }
  std::vector<float*> results;
  for (auto& output : outputs) {
    results.push_back(output.data<float>());
  }
  // MLX keeps inputs and outputs alive until this has run.
  mx::cpu::get_command_encoder(stream()).dispatch([run = definition_.run, inputs, results = std::move(results)] {
    Views views;
    std::list<std::vector<float>> copies;
    for (const auto& input : inputs) {
      const bool dense = input.flags().row_contiguous;
      views.push_back({dense ? input.data<float>() : copies.emplace_back(in_order(input)).data(), input.shape()});
    }
    run(views, results);
  });
}

void Recurrence::eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) {
  throw std::runtime_error(std::string(name()) + " of axon-native runs on the CPU alone");
}

std::vector<mx::array> Recurrence::jvp(const std::vector<mx::array>& primals, const std::vector<mx::array>&,
                                       const std::vector<int>&) {
  std::vector<mx::array> tangents;
  for (const auto& shape : output_shapes(primals)) {
    tangents.push_back(mx::full(shape, std::numeric_limits<float>::quiet_NaN(), mx::float32, stream()));
  }
  return tangents;
}

std::pair<std::vector<mx::array>, std::vector<int>> Recurrence::vmap(const std::vector<mx::array>& inputs,
                                                                     const std::vector<int>& axes) {
  return one_by_one(inputs, axes, definition_.like.size(), stream(),
                    [&](std::vector<mx::array> own) { return recurrence(definition_, std::move(own)); });
}

std::vector<mx::Shape> Recurrence::output_shapes(const std::vector<mx::array>& inputs) {
  std::vector<mx::Shape> shapes;
  for (const size_t i : definition_.like) {
    shapes.push_back(inputs[i].shape());
  }
  return shapes;
}

bool Recurrence::is_equivalent(const Primitive& other) const {
  return &definition_ == &static_cast<const Recurrence&>(other).definition_;
}

std::vector<mx::array> recurrence(const Definition& definition, std::vector<mx::array> inputs) {
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  for (auto& input : inputs) {
    input = mx::astype(input, mx::float32, stream);
  }
  auto primitive = std::make_shared<Recurrence>(stream, definition);
  auto shapes = primitive->output_shapes(inputs);
  const std::vector<mx::Dtype> types(shapes.size(), mx::float32);
  return mx::array::make_arrays(std::move(shapes), types, primitive, inputs);
}

void expect(const mx::array& input, const char* name, const mx::Shape& shape) {
  if (input.shape() == shape) {
    return;
  }
  std::ostringstream message;
  message << name << " should have the shape " << shape << ", not " << input.shape();
  throw std::invalid_argument(message.str());
}

}  // namespace axon
