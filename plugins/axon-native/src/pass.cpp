#include "pass.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/transforms.h"
#include "one_by_one.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Numbers of float32 in another type, each rounded once. */
template <class T>
void narrow(const std::vector<float>& numbers, array& y) {
  std::transform(numbers.begin(), numbers.end(), y.data<T>(), [](float number) { return static_cast<T>(number); });
}

/** One output, computed in float32. */
class Pass : public mx::Primitive {
 public:
  Pass(mx::Stream stream, mx::Shape shape, mx::Dtype dtype, std::shared_ptr<const PassDefinition> definition)
      : Primitive(stream), shape_(std::move(shape)), dtype_(dtype), definition_(std::move(definition)) {}

  /** What it makes of some inputs. */
  array of(Arrays inputs) {
    return array(shape_, dtype_, std::make_shared<Pass>(stream(), shape_, dtype_, definition_), std::move(inputs));
  }

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    array& y = outputs[0];
    y.set_data(mx::allocator::malloc(y.nbytes()));
    if (y.size() > 0) {
      mx::cpu::get_command_encoder(stream()).dispatch(
          [definition = definition_, inputs, y = array::unsafe_weak_copy(y)]() mutable { compute(*definition, inputs, y); });
    }
  }
  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error(std::string(name()) + " of axon-native runs on the CPU alone");
  }
  Arrays jvp(const Arrays& primals, const Arrays& tangents, const std::vector<int>& argnums) override {
    Arrays all;
    for (const auto& primal : primals) {
      all.push_back(mx::zeros_like(primal, stream()));
    }
    for (size_t i = 0; i < argnums.size(); ++i) {
      all[argnums[i]] = tangents[i];
    }
    return mx::jvp(in_operations(), primals, all).second;
  }
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    const Arrays all = mx::vjp(in_operations(), primals, cotangents).second;
    Arrays found;
    for (const int argument : argnums) {
      found.push_back(all[argument]);
    }
    return found;
  }
  std::pair<Arrays, std::vector<int>> vmap(const Arrays& inputs, const std::vector<int>& axes) override {
    return one_by_one(inputs, axes, 1, stream(), [&](Arrays own) { return Arrays{of(std::move(own))}; });
  }
  std::vector<mx::Shape> output_shapes(const Arrays&) override { return {shape_}; }
  const char* name() const override { return definition_->name; }

 private:
  static void compute(const PassDefinition& definition, const Arrays& inputs, array& y) {
    if (y.dtype() == mx::float32) {
      return definition.run(inputs, y.data<float>());
    }
    std::vector<float> numbers(y.size());
    definition.run(inputs, numbers.data());
    y.dtype() == mx::bfloat16 ? narrow<mx::bfloat16_t>(numbers, y) : narrow<mx::float16_t>(numbers, y);
  }

  /** The same in operations of MLX, from and to the same types. */
  std::function<Arrays(const Arrays&)> in_operations() const {
    return [definition = definition_, dtype = dtype_](const Arrays& inputs) {
      Arrays wide;
      for (const auto& input : inputs) {
        wide.push_back(mx::astype(input, mx::float32));
      }
      return Arrays{mx::astype(definition->in_operations(wide)[0], dtype)};
    };
  }

  mx::Shape shape_;
  mx::Dtype dtype_;
  std::shared_ptr<const PassDefinition> definition_;
};

}  // namespace

array pass(mx::Shape shape, mx::Dtype dtype, Arrays inputs, PassDefinition definition) {
  for (const auto& input : inputs) {
    if (input.dtype() != mx::float32 && input.dtype() != mx::bfloat16 && input.dtype() != mx::float16) {
      refuse("arrays should be of float32, bfloat16 or float16");
    }
  }
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  return Pass(stream, std::move(shape), dtype, std::make_shared<const PassDefinition>(std::move(definition)))
      .of(std::move(inputs));
}

}  // namespace axon
