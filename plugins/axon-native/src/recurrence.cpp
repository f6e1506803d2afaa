#include "recurrence.h"

#include <limits>
#include <sstream>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/utils.h"

namespace axon {

void Recurrence::eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) {
  for (auto& output : outputs) {
    output.set_data(mx::allocator::malloc(output.nbytes()));
  }
  std::vector<View> views;
  for (const auto& input : inputs) {
    views.push_back({input.data<float>(), input.shape()});
  }
  // MLX keeps inputs and outputs alive until this has run.
  mx::cpu::get_command_encoder(stream()).dispatch(
      [run = definition_.run, views = std::move(views), y = outputs[0].data<float>(), last = outputs[1].data<float>()] {
        run(views, y, last);
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
  int count = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    count = axes[i] < 0 ? count : inputs[i].shape(axes[i]);
  }
  std::vector<mx::array> y, last;
  for (int at = 0; at < count; ++at) {
    std::vector<mx::array> own;
    for (size_t i = 0; i < inputs.size(); ++i) {
      own.push_back(axes[i] < 0 ? inputs[i] : mx::take(inputs[i], at, axes[i], stream()));
    }
    auto outcome = recurrence(definition_, own);
    y.push_back(outcome.first);
    last.push_back(outcome.second);
  }
  return {{mx::stack(y, 0, stream()), mx::stack(last, 0, stream())}, {0, 0}};
}

std::vector<mx::Shape> Recurrence::output_shapes(const std::vector<mx::array>& inputs) {
  return {inputs[definition_.like_y].shape(), inputs[definition_.like_last].shape()};
}

bool Recurrence::is_equivalent(const Primitive& other) const {
  return &definition_ == &static_cast<const Recurrence&>(other).definition_;
}

Outcome recurrence(const Definition& definition, std::vector<mx::array> inputs) {
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  for (auto& input : inputs) {
    input = mx::contiguous(mx::astype(input, mx::float32, stream), false, stream);
  }
  auto primitive = std::make_shared<Recurrence>(stream, definition);
  auto shapes = primitive->output_shapes(inputs);
  const auto outputs = mx::array::make_arrays(std::move(shapes), {mx::float32, mx::float32}, primitive, inputs);
  return {outputs[0], outputs[1]};
}

void expect(const mx::array& input, const char* name, const mx::Shape& shape) {
  if (input.shape() == shape) {
    return;
  }
  std::ostringstream told;
  told << name << " should have the shape " << shape << ", not " << input.shape();
  throw std::invalid_argument(told.str());
}

}  // namespace axon
