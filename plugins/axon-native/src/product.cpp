#include "product.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/utils.h"
#include "product_kernels.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

const Kernels& chosen() {
  static const Kernels& kernels = []() -> const Kernels& {
#ifdef __x86_64__
    const char* asked = std::getenv("AXON_KERNELS");
    const std::string most = asked == nullptr ? "AVX512" : asked;
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (most == "AVX512" && avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      return AVX512;
    }
    if (most != "PORTABLE" && avx2) {
      return AVX2;
    }
#endif
    return PORTABLE;
  }();
  return kernels;
}

Kind kind_of(mx::Dtype dtype) {
  return dtype == mx::bfloat16 ? Kind::bfloat16 : dtype == mx::float16 ? Kind::float16 : Kind::float32;
}

const uint8_t* bytes_of(const array& a) { return a.data<uint8_t>(); }

/** Rows of x that meet the same matrix, and where their products go. */
struct Meeting {
  size_t origin;
  std::vector<const float*> x;
  std::vector<float*> y;
};

/** Rows of a matrix, from `first` on, for one thread. */
struct Unit {
  const Meeting* meeting;
  size_t first;
};

void multiply(const Stored& matrix, const std::vector<Meeting>& meetings, size_t columns) {
  constexpr size_t BLOCK = 32;
  std::vector<Unit> units;
  size_t rows = 0;
  for (const auto& meeting : meetings) {
    rows += meeting.x.size();
    for (size_t first = 0; first < columns; first += BLOCK) {
      units.push_back({&meeting, first});
    }
  }
  const Kernels& kernels = chosen();
  const size_t unpacking = 2;  // is about as much work as so many rows
  in_parallel(units.size(), (rows + unpacking * meetings.size()) * columns * matrix.width, [&](size_t at) {
    thread_local std::vector<float> scratch;
    scratch.resize(std::max(scratch.size(), kernels.scratch(matrix)));
    const auto& [meeting, first] = units[at];
    kernels.multiply(matrix, meeting->origin, first, std::min(first + BLOCK, columns), meeting->x.data(),
                     meeting->y.data(), meeting->x.size(), scratch.data());
  });
}

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

/** Where the row of x begins that is `at` in the order of its leading axes, which may repeat rows or turn them around. */
int64_t offset(const array& x, size_t at, int axes) {
  int64_t found = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    found += static_cast<int64_t>(at % x.shape(axis)) * x.strides(axis);
    at /= x.shape(axis);
  }
  return found;
}

void Product::eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) {
  const array &x = inputs[0], &weight = inputs[1];
  array& y = outputs[0];
  y.set_data(mx::allocator::malloc(y.nbytes()));
  const size_t width = x.shape(-1), columns = weight.shape(-2), rows = y.size() / std::max<size_t>(columns, 1);

  Stored matrix{};
  matrix.width = width;
  matrix.count = weight.size() / std::max(weight.shape(-1), 1);
  matrix.row_bytes = weight.shape(-1) * weight.itemsize();
  matrix.rows = bytes_of(weight);
  matrix.kind = affine() ? Kind::affine : quantised() ? Kind::mxfp4 : kind_of(weight.dtype());
  if (quantised()) {
    matrix.bits = packing_.bits;
    matrix.group = packing_.group;
    matrix.scale = affine() ? kind_of(inputs[2].dtype()) : Kind::mxfp4;
    matrix.scales = bytes_of(inputs[2]);
    matrix.biases = affine() ? bytes_of(inputs[3]) : nullptr;
  }
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
    multiply(matrix, meetings, columns);
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

// -- Transformations --------------------------------------------------------------------------------------------------

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
  int count = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    count = axes[i] < 0 ? count : inputs[i].shape(axes[i]);
  }
  std::vector<array> found;
  for (int at = 0; at < count; ++at) {
    std::vector<array> own;
    for (size_t i = 0; i < inputs.size(); ++i) {
      own.push_back(axes[i] < 0 ? inputs[i]
                                : mx::contiguous(mx::take(inputs[i], at, axes[i], stream()), false, stream()));
    }
    found.push_back(of(own));
  }
  return {{mx::stack(found, 0, stream())}, {0}};
}

// -- What is asked for ------------------------------------------------------------------------------------------------

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

void check(const array& x, const array& weight, const std::optional<array>& scales, const std::optional<array>& biases,
           bool gathers, const Packing& packing) {
  const int axes = gathers ? 3 : 2;
  if (weight.ndim() != static_cast<size_t>(axes) || x.ndim() < 1) {
    refuse(gathers ? "weight should be (E, N, K)" : "weight should be (N, K)");
  }
  if (packing.mode.empty()) {
    if (scales || biases) {
      refuse("scales and biases should come with a mode");
    }
    if (weight.dtype() != mx::float32 && weight.dtype() != mx::bfloat16 && weight.dtype() != mx::float16) {
      refuse("weight should be float32, bfloat16 or float16");
    }
    if (weight.shape(-1) != x.shape(-1)) {
      refuse("rows of x and of weight should be equally wide");
    }
    return;
  }
  const bool affine = packing.mode == "affine";
  if (!affine && packing.mode != "mxfp4") {
    refuse("mode should be affine or mxfp4");
  }
  const std::vector<int> bits = affine ? std::vector{2, 3, 4, 5, 6, 8} : std::vector{4};
  const std::vector<int> groups = affine ? std::vector{32, 64, 128} : std::vector{32};
  if (std::find(bits.begin(), bits.end(), packing.bits) == bits.end() ||
      std::find(groups.begin(), groups.end(), packing.group) == groups.end()) {
    refuse("bits should be 2, 3, 4, 5, 6 or 8 in groups of 32, 64 or 128, with mxfp4 4 in groups of 32");
  }
  if (weight.dtype() != mx::uint32 || !scales || affine != biases.has_value()) {
    refuse("weight should be uint32, with scales, and with biases in the mode affine");
  }
  if (weight.shape(-1) * 32LL != x.shape(-1) * int64_t{packing.bits} || x.shape(-1) % packing.group != 0) {
    refuse("rows of x should be as wide as those of weight");
  }
  auto shape = weight.shape();
  shape.back() = x.shape(-1) / packing.group;
  const bool typed = affine ? mx::issubdtype(scales->dtype(), mx::floating) && scales->dtype() != mx::float64
                            : scales->dtype() == mx::uint8;
  if (scales->shape() != shape || !typed || (biases && (biases->shape() != shape || biases->dtype() != scales->dtype()))) {
    refuse("scales and biases should have a number for each group, of the same type");
  }
}

}  // namespace

array product(const array& x, const array& weight, const std::optional<array>& scales,
              const std::optional<array>& biases, const std::optional<array>& indices, int group_size, int bits,
              const std::string& mode) {
  const Packing packing{group_size, bits, mode};
  check(x, weight, scales, biases, indices.has_value(), packing);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  // Weights mostly are so; x is looked at when it has been computed.
  const auto dense = [&](const array& a) {
    return a.is_available() && a.flags().row_contiguous ? a : mx::contiguous(a, false, stream);
  };
  std::vector<array> inputs{mx::astype(x, mx::float32, stream), dense(weight)};
  for (const auto& array : {scales, biases}) {
    if (array) {
      inputs.push_back(dense(*array));
    }
  }
  if (indices) {
    if (x.ndim() < 2 || !mx::issubdtype(indices->dtype(), mx::integer)) {
      refuse("x should be (..., R, K), and indices whole numbers");
    }
    auto shape = mx::broadcast_shapes(indices->shape(), mx::Shape(x.shape().begin(), x.shape().end() - 2));
    inputs.push_back(dense(mx::broadcast_to(mx::astype(*indices, mx::uint32, stream), shape, stream)));
    shape.push_back(x.shape(-2));
    shape.push_back(x.shape(-1));
    inputs[0] = mx::broadcast_to(inputs[0], shape, stream);
  }
  const auto primitive = std::make_shared<Product>(stream, packing, indices.has_value());
  return array(primitive->output_shapes(inputs)[0], mx::float32, primitive, inputs);
}

std::string product_kernels() { return chosen().name; }

}  // namespace axon
