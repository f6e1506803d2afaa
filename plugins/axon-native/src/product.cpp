#include "product.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/utils.h"
#include "product_kernels.h"
#include "product_primitive.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace {

const Kernels& chosen() {
  static const Kernels& kernels = []() -> const Kernels& {
#ifdef __x86_64__
    const char* asked = std::getenv("AXON_KERNELS");
    const std::string most = asked == nullptr ? AVX512VBMI.name : asked;
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (most == AVX512VBMI.name && avx512 && __builtin_cpu_supports("avx512vbmi")) {
      return AVX512VBMI;
    }
    if (most.starts_with(AVX512.name) && avx512) {
      return AVX512;
    }
    if (most != PORTABLE.name && avx2) {
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
  const size_t unpacking = 2;  // rows that take as much work as unpacking a matrix
  in_parallel(units.size(), (rows + unpacking * meetings.size()) * columns * matrix.width, [&](size_t at) {
    thread_local std::vector<float> scratch;
    scratch.resize(std::max(scratch.size(), kernels.scratch(matrix)));
    const auto& [meeting, first] = units[at];
    kernels.multiply(matrix, meeting->origin, first, std::min(first + BLOCK, columns), meeting->x.data(),
                     meeting->y.data(), meeting->x.size(), scratch.data());
  });
}

}  // namespace

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

// -- What is asked for ------------------------------------------------------------------------------------------------

namespace {

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
