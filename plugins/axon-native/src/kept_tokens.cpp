/** Keys or values of one more token among those that are kept, in the same memory. */
#include <cstring>
#include <utility>
#include <vector>

#include "attention_of_one.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/stream.h"
#include "mlx/transforms.h"
#include "one_by_one.h"
#include "pass.h"
#include "rows.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Bytes from which on waiting takes less time than copying. */
constexpr size_t WORTH_WAITING = 1 << 18;

/** Copies rows of numbers of `bytes` each, whatever their strides are. */
void copy_rows(const array& from, char* to, size_t step, size_t bytes) {
  const size_t width = from.shape(-1), count = from.size() / width;
  for (size_t at = 0; at < count; ++at, to += step * bytes) {
    const char* row = from.data<char>() + offset(from, at, from.ndim() - 1) * static_cast<int64_t>(bytes);
    if (from.strides(-1) == 1) {
      std::memcpy(to, row, width * bytes);
      continue;
    }
    for (size_t i = 0; i < width; ++i) {
      std::memcpy(to + i * bytes, row + static_cast<int64_t>(i) * from.strides(-1) * static_cast<int64_t>(bytes), bytes);
    }
  }
}

/** The same as an operation of MLX. */
array updated(const Arrays& inputs, int place, mx::Stream stream) {
  mx::Shape start(4, 0), stop = inputs[0].shape();
  start[2] = place, stop[2] = place + 1;
  return mx::slice_update(inputs[0], inputs[1], start, stop, stream);
}

/** What is kept (B, G, S, D), with a token (B, G, 1, D) at a place.
 *
 * MLX changes an array in place if nobody else holds it. Steps that are evaluated one behind the other still hold what is
 * kept for attention of the step before, until that has run: `slice_update` would copy keys and values of all tokens for
 * each new one, and have them twice. Waiting for what is under way takes less, and happens once in a step.
 */
class WithToken : public mx::UnaryPrimitive {
 public:
  WithToken(mx::Stream stream, int place) : UnaryPrimitive(stream), place_(place) {}

  void eval_cpu(const std::vector<array>& inputs, array& y) override {
    const array &kept = inputs[0], &token = inputs[1];
    if (!kept.is_donatable() && kept.nbytes() >= WORTH_WAITING) {
      mx::synchronize(stream());
    }
    const bool in_place = kept.is_donatable() && kept.flags().row_contiguous;
    if (in_place) {
      y.copy_shared_buffer(kept);
    } else {
      y.set_data(mx::allocator::malloc(y.nbytes()));
    }
    const size_t bytes = y.itemsize(), width = y.shape(3), tokens = y.shape(2);
    mx::cpu::get_command_encoder(stream()).dispatch(
        [=, place = place_, to = y.data<char>(), kept = array::unsafe_weak_copy(kept),
         token = array::unsafe_weak_copy(token)] {
          if (!in_place) {
            copy_rows(kept, to, width, bytes);
          }
          copy_rows(token, to + place * width * bytes, tokens * width, bytes);
        });
  }
  void eval_gpu(const std::vector<array>&, array&) override {
    throw std::runtime_error("WithToken of axon-native runs on the CPU alone");
  }
  Arrays jvp(const Arrays& primals, const Arrays& tangents, const std::vector<int>& argnums) override {
    return mx::jvp(of_some(primals, argnums), chosen(primals, argnums), tangents).second;
  }
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    return mx::vjp(of_some(primals, argnums), chosen(primals, argnums), cotangents).second;
  }
  std::pair<Arrays, std::vector<int>> vmap(const Arrays& inputs, const std::vector<int>& axes) override {
    return one_by_one(inputs, axes, 1, stream(), [&](const Arrays& own) { return Arrays{updated(own, place_, stream())}; });
  }
  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override { return {inputs[0].shape()}; }
  bool is_equivalent(const Primitive& other) const override {
    return place_ == static_cast<const WithToken&>(other).place_;
  }
  const char* name() const override { return "AxonWithToken"; }

 private:
  std::function<Arrays(const Arrays&)> of_some(const Arrays& inputs, const std::vector<int>& argnums) {
    return [place = place_, stream = stream(), inputs, argnums](const Arrays& some) {
      Arrays all = inputs;
      for (size_t i = 0; i < some.size(); ++i) {
        all[argnums[i]] = some[i];
      }
      return Arrays{updated(all, place, stream)};
    };
  }

  int place_;
};

}  // namespace

array with_token(const array& kept, const array& token, int place) {
  const bool axes = kept.ndim() == 4 && token.ndim() == 4 && token.shape(2) == 1 && token.dtype() == kept.dtype();
  if (!axes || place < 0 || place >= kept.shape(2) || token.shape(0) != kept.shape(0) ||
      token.shape(1) != kept.shape(1) || token.shape(3) != kept.shape(3) || kept.size() == 0) {
    refuse("a token should be (B, G, 1, D), what is kept (B, G, S, D) of the same type, and the place below S");
  }
  const auto primitive = std::make_shared<WithToken>(mx::default_stream(mx::Device::cpu), place);
  return array(kept.shape(), kept.dtype(), primitive, {kept, token});
}

}  // namespace axon
