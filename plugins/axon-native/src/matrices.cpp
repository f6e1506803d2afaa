#include "matrices.h"

#include <algorithm>
#include <cstdlib>

#include "mlx/ops.h"
#include "pass.h"
#include "product.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

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

/** Rows of a matrix, from `first` on, for one thread. */
struct Unit {
  const Task* task;
  const Meeting* meeting;
  size_t first;
};

}  // namespace

void check_matrix(int width, const array& weight, const std::optional<array>& scales,
                  const std::optional<array>& biases, bool experts, const Packing& packing) {
  if (weight.ndim() != (experts ? 3 : 2)) {
    refuse(experts ? "weight should be (E, N, K)" : "weight should be (N, K)");
  }
  if (packing.mode.empty()) {
    if (scales || biases) {
      refuse("scales and biases should come with a mode");
    }
    if (weight.dtype() != mx::float32 && weight.dtype() != mx::bfloat16 && weight.dtype() != mx::float16) {
      refuse("weight should be float32, bfloat16 or float16");
    }
    if (weight.shape(-1) != width) {
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
  if (weight.shape(-1) * 32LL != width * int64_t{packing.bits} || width % packing.group != 0) {
    refuse("rows of x should be as wide as those of weight");
  }
  auto shape = weight.shape();
  shape.back() = width / packing.group;
  const bool typed = affine ? mx::issubdtype(scales->dtype(), mx::floating) && scales->dtype() != mx::float64
                            : scales->dtype() == mx::uint8;
  if (scales->shape() != shape || !typed || (biases && (biases->shape() != shape || biases->dtype() != scales->dtype()))) {
    refuse("scales and biases should have a number for each group, of the same type");
  }
}

array dense(const array& a, mx::Stream stream) {
  return a.is_available() && a.flags().row_contiguous ? a : mx::contiguous(a, false, stream);
}

Stored stored(const array& weight, const array* scales, const array* biases, const Packing& packing, size_t width) {
  Stored matrix{};
  matrix.width = width;
  matrix.count = weight.size() / std::max(weight.shape(-1), 1);
  matrix.row_bytes = weight.shape(-1) * weight.itemsize();
  matrix.rows = weight.data<uint8_t>();
  matrix.kind = packing.mode.empty() ? kind_of(weight.dtype()) : biases ? Kind::affine : Kind::mxfp4;
  if (scales != nullptr) {
    matrix.bits = packing.bits;
    matrix.group = packing.group;
    matrix.scale = biases ? kind_of(scales->dtype()) : Kind::mxfp4;
    matrix.scales = scales->data<uint8_t>();
    matrix.biases = biases ? biases->data<uint8_t>() : nullptr;
  }
  return matrix;
}

void multiply(const std::vector<Task>& tasks) {
  constexpr size_t BLOCK = 32;
  const size_t unpacking = 2;  // rows that take as much work as unpacking a matrix
  std::vector<Unit> units;
  size_t work = 0;
  for (const auto& task : tasks) {
    for (const auto& meeting : task.meetings) {
      work += (meeting.x.size() + unpacking) * task.columns * task.matrix.width;
      for (size_t first = 0; first < task.columns; first += BLOCK) {
        units.push_back({&task, &meeting, first});
      }
    }
  }
  const Kernels& kernels = chosen();
  in_parallel(units.size(), work, [&](size_t at) {
    thread_local std::vector<float> scratch;
    const auto& [task, meeting, first] = units[at];
    scratch.resize(std::max(scratch.size(), kernels.scratch(task->matrix)));
    kernels.multiply(task->matrix, meeting->origin, first, std::min(first + BLOCK, task->columns), meeting->x.data(),
                     meeting->y.data(), meeting->x.size(), scratch.data());
  });
}

std::string product_kernels() { return chosen().name; }

// -- Linear layers ----------------------------------------------------------------------------------------------------

LinearInput::LinearInput(const Layer& layer, int width, bool experts, std::vector<array>& inputs, mx::Stream stream)
    : packing_{std::get<4>(layer), std::get<5>(layer), std::get<6>(layer)}, width_(width) {
  const auto& [weight, scales, biases, shift, group, bits, mode] = layer;
  check_matrix(width, weight, scales, biases, experts, packing_);
  columns_ = weight.shape(-2);
  const mx::Shape one{columns_}, each{weight.shape(0), columns_};
  if (shift && (shift->shape() != (experts ? each : one) || !is_float(*shift))) {
    refuse("what is added should have a number for each row of weight");
  }
  const auto place = [&](const std::optional<array>& a) {
    if (a) {
      inputs.push_back(dense(*a, stream));
    }
    return a ? inputs.size() - 1 : 0;
  };
  weight_ = place(weight), scales_ = place(scales), biases_ = place(biases), shift_ = place(shift);
}

size_t LinearInput::experts(const std::vector<array>& inputs) const {
  return inputs[weight_].ndim() == 3 ? inputs[weight_].shape(0) : 1;
}

Task LinearInput::task(const std::vector<array>& inputs, const std::vector<const float*>& x, float* y,
                       const std::vector<size_t>& experts) const {
  std::vector<Meeting> meetings(this->experts(inputs));
  for (size_t row = 0; row < x.size(); ++row) {
    auto& meeting = meetings[experts.empty() ? 0 : experts[row]];
    meeting.x.push_back(x[row]);
    meeting.y.push_back(y + row * columns_);
  }
  for (size_t at = 0; at < meetings.size(); ++at) {
    meetings[at].origin = at * columns_;
  }
  std::erase_if(meetings, [](const Meeting& meeting) { return meeting.x.empty(); });
  const array *scales = scales_ ? &inputs[scales_] : nullptr, *biases = biases_ ? &inputs[biases_] : nullptr;
  return {stored(inputs[weight_], scales, biases, packing_, width_), static_cast<size_t>(columns_), std::move(meetings)};
}

void LinearInput::shift(const std::vector<array>& inputs, size_t rows, float* y,
                        const std::vector<size_t>& experts) const {
  if (shift_ == 0) {
    return;
  }
  std::vector<float> scratch(columns_);
  for (size_t at = 0; at < rows; ++at, y += columns_) {
    const float* added = row(inputs[shift_], experts.empty() ? 0 : experts[at], scratch.data());
    for (int i = 0; i < columns_; ++i) {
      y[i] += added[i];
    }
  }
}

array LinearInput::of(const std::vector<array>& inputs, const array& x, const std::optional<array>& indices) const {
  const auto at = [&](size_t place) { return place ? std::optional{inputs[place]} : std::nullopt; };
  const array y = product(x, inputs[weight_], at(scales_), at(biases_), indices, packing_.group, packing_.bits,
                          packing_.mode);
  if (shift_ == 0) {
    return y;
  }
  return mx::add(y, indices ? mx::expand_dims(mx::take(inputs[shift_], *indices, 0), -2) : inputs[shift_]);
}

}  // namespace axon
