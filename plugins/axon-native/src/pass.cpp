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

/** Outputs that are computed in float32. */
class Pass : public mx::Primitive {
 public:
  Pass(mx::Stream stream, const Arrays& inputs, std::vector<mx::Shape> shapes, std::vector<mx::Dtype> dtypes,
       std::shared_ptr<const PassDefinition> definition)
      : Primitive(stream),
        read_(shapes_of(inputs)),
        shapes_(std::move(shapes)),
        dtypes_(std::move(dtypes)),
        definition_(std::move(definition)) {}

  static Arrays made(mx::Stream stream, std::vector<mx::Shape> shapes, std::vector<mx::Dtype> dtypes,
                     std::shared_ptr<const PassDefinition> definition, Arrays inputs) {
    const auto primitive = std::make_shared<Pass>(stream, inputs, shapes, dtypes, std::move(definition));
    return array::make_arrays(std::move(shapes), dtypes, primitive, std::move(inputs));
  }

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    Arrays held;
    for (auto& y : outputs) {
      y.set_data(mx::allocator::malloc(y.nbytes()));
      held.push_back(array::unsafe_weak_copy(y));
    }
    mx::cpu::get_command_encoder(stream()).dispatch(
        [definition = definition_, inputs, held = std::move(held)]() mutable { compute(*definition, inputs, held); });
  }
  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error(std::string(name()) + " of axon-native runs on the CPU alone");
  }
  Arrays jvp(const Arrays& primals, const Arrays& tangents, const std::vector<int>& argnums) override {
    return mx::jvp(of_some(primals, argnums), chosen(primals, argnums), tangents).second;
  }
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    if (definition_->gradient) {
      Arrays found = chosen(definition_->gradient(primals, cotangents), argnums);
      for (size_t i = 0; i < found.size(); ++i) {
        found[i] = mx::astype(found[i], primals[argnums[i]].dtype());
      }
      return found;
    }
    return mx::vjp(of_some(primals, argnums), chosen(primals, argnums), cotangents).second;
  }
  std::pair<Arrays, std::vector<int>> vmap(const Arrays& inputs, const std::vector<int>& axes) override {
    return one_by_one(inputs, axes, shapes_.size(), stream(), [&](Arrays own) {
      return made(stream(), shapes_, dtypes_, definition_, std::move(own));
    });
  }
  /** Asked by functions that were compiled without shapes, when they are called with others. */
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override {
    if (shapes_of(inputs) != read_) {
      throw std::runtime_error(std::string(name()) + " of axon-native has to be compiled for each shape of its inputs");
    }
    return shapes_;
  }
  const char* name() const override { return definition_->name; }

 private:
  static void compute(const PassDefinition& definition, const Arrays& inputs, Arrays& outputs) {
    if (std::all_of(outputs.begin(), outputs.end(), [](const array& y) { return y.size() == 0; })) {
      return;
    }
    Outputs to;
    std::vector<std::vector<float>> wide;
    wide.reserve(outputs.size());
    for (auto& y : outputs) {
      to.push_back(y.dtype() == mx::float32 ? y.data<float>() : wide.emplace_back(y.size()).data());
    }
    definition.run(inputs, to);
    auto numbers = wide.cbegin();
    for (auto& y : outputs) {
      if (y.dtype() != mx::float32) {
        y.dtype() == mx::bfloat16 ? narrow<mx::bfloat16_t>(*numbers++, y) : narrow<mx::float16_t>(*numbers++, y);
      }
    }
  }

  static std::vector<mx::Shape> shapes_of(const Arrays& arrays) {
    std::vector<mx::Shape> shapes;
    for (const auto& a : arrays) {
      shapes.push_back(a.shape());
    }
    return shapes;
  }

  /** The same in operations of MLX, from and to the same types, as a function of some of the inputs. */
  std::function<Arrays(const Arrays&)> of_some(const Arrays& inputs, const std::vector<int>& argnums) const {
    return [definition = definition_, dtypes = dtypes_, inputs, argnums](const Arrays& some) {
      Arrays all = inputs;
      for (size_t i = 0; i < some.size(); ++i) {
        all[argnums[i]] = some[i];
      }
      for (auto& input : all) {
        input = is_float(input) ? mx::astype(input, mx::float32) : input;
      }
      Arrays found = definition->in_operations(all);
      for (size_t i = 0; i < found.size(); ++i) {
        found[i] = mx::astype(found[i], dtypes[i]);
      }
      return found;
    };
  }

  std::vector<mx::Shape> read_, shapes_;
  std::vector<mx::Dtype> dtypes_;
  std::shared_ptr<const PassDefinition> definition_;
};

}  // namespace

bool is_float(const array& a) {
  return a.dtype() == mx::float32 || a.dtype() == mx::bfloat16 || a.dtype() == mx::float16;
}

Arrays pass(std::vector<mx::Shape> shapes, std::vector<mx::Dtype> dtypes, Arrays inputs, PassDefinition definition) {
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  auto shared = std::make_shared<const PassDefinition>(std::move(definition));
  return Pass::made(stream, std::move(shapes), std::move(dtypes), std::move(shared), std::move(inputs));
}

Arrays pass(std::vector<mx::Shape> shapes, mx::Dtype dtype, Arrays inputs, PassDefinition definition) {
  std::vector dtypes(shapes.size(), dtype);
  return pass(std::move(shapes), std::move(dtypes), std::move(inputs), std::move(definition));
}

array pass(mx::Shape shape, mx::Dtype dtype, Arrays inputs, PassDefinition definition) {
  if (!std::all_of(inputs.begin(), inputs.end(), is_float)) {
    refuse("arrays should be of float32, bfloat16 or float16");
  }
  return pass(std::vector{std::move(shape)}, dtype, std::move(inputs), std::move(definition))[0];
}

std::function<Arrays(const Arrays&, const Arrays&)> gradient_pass(
    const char* name, std::function<void(const Arrays&, const Outputs&)> run,
    std::function<Arrays(const Arrays&)> in_operations) {
  return [=](const Arrays& primals, const Arrays& cotangents) {
    const auto again = [in_operations, count = primals.size()](const Arrays& in) {
      return mx::vjp(in_operations, {in.begin(), in.begin() + count}, {in.begin() + count, in.end()}).second;
    };
    Arrays inputs = primals;
    inputs.insert(inputs.end(), cotangents.begin(), cotangents.end());
    std::vector<mx::Shape> shapes;
    for (const auto& primal : primals) {
      shapes.push_back(primal.shape());
    }
    return pass(std::move(shapes), mx::float32, std::move(inputs), {name, run, again});
  };
}

}  // namespace axon
