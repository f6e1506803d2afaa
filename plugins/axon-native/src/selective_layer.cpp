/** Mamba's layer (Gu and Dao 2023) for one token of each sequence, in one operation where MLX makes some forty. */
#include "selective_layer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mlx/ops.h"
#include "pass.h"
#include "row_passes.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Places among the inputs. */
enum Place : size_t { X, CONV, STATE, A_LOG, SKIP, TAPS, SHIFT };

/** What the layer is made of, beside arrays. */
struct SelectiveLayer {
  LinearInput in_proj, x_proj, dt_proj, out_proj;
  NormInput before, of_step, of_B, of_C;
  size_t rows, width, channels, states, taps, rank;
  bool shifts, step_first, adds;
  float least, most;

  size_t step_at() const { return step_first ? 0 : 2 * states; }
  size_t B_at() const { return step_first ? rank : 0; }
};

/** exp(x) of any number. */
inline Lanes exponential(Lanes x) {
  const Lanes e = exp_of_minus_abs(x);
  return x > 0.0f ? 1.0f / e : e;
}

/** log(1 + exp(x)), where no exponential overflows. */
inline float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

/** Convolves the window of `taps - 1` kept inputs and `x`, and keeps the last ones. */
void convolve(const Arrays& in, const SelectiveLayer& layer, size_t at, const float* x, float* y, float* kept) {
  const size_t E = layer.channels, K = layer.taps;
  std::vector<float> scratch(2 * E * K);
  float* const free = scratch.data() + (K - 1) * E;  // after the kept inputs
  std::vector<const float*> window;
  for (size_t k = 0; k + 1 < K; ++k) {
    window.push_back(row(in[CONV], at * (K - 1) + k, scratch.data() + k * E));
  }
  window.push_back(x);
  const float* shift = layer.shifts ? row(in[SHIFT], 0, free) : nullptr;
  const float* w = row(in[TAPS], 0, free + E);  // (E * K,)
  for (size_t e = 0; e < E; ++e) {
    float sum = shift == nullptr ? 0 : shift[e];
    for (size_t k = 0; k < K; ++k) {
      sum += window[k][e] * w[e * K + k];
    }
    y[e] = sum;
  }
  for (size_t k = 0; k + 1 < K; ++k) {
    std::copy_n(window[k + 1], E, kept + k * E);
  }
}

/** The states of LANES channels from `first` on, and their outputs. */
void advance(const Arrays& in, const SelectiveLayer& layer, size_t at, size_t first, const float* steps,
             const float* drives, const float* B, const float* C, const float* skips, float* y, float* last) {
  const size_t E = layer.channels, N = layer.states, count = std::min<size_t>(LANES, E - first);
  float A[LANES] = {}, h[LANES] = {}, step[LANES] = {}, drive[LANES] = {}, out[LANES] = {};
  std::copy_n(steps + first, count, step);
  std::copy_n(drives + first, count, drive);
  std::vector<float> scratch((LANES + 1) * N);
  const float* of_channel[LANES];
  for (size_t i = 0; i < count; ++i) {
    of_channel[i] = row(in[A_LOG], first + i, scratch.data() + i * N);
  }
  const float* state = in[STATE].data<float>() + at * N * E + first;
  float* const next_state = last + at * N * E + first;
  Lanes sum{};
  for (size_t n = 0; n < N; ++n) {
    for (size_t i = 0; i < count; ++i) {
      A[i] = of_channel[i][n];
    }
    std::copy_n(state + n * E, count, h);
    const Lanes before = load(h), lost = decay_less_one(load(step) * -exponential(load(A)));
    const Lanes next = (before + lost * before) + B[n] * (load(step) * load(drive));
    sum += C[n] * next;
    store(h, next);
    std::copy_n(h, count, next_state + n * E);
  }
  store(out, sum);
  for (size_t i = 0; i < count; ++i) {
    y[first + i] = out[i] + skips[first + i] * drives[first + i];
  }
}

void run(const Arrays& in, const SelectiveLayer& layer, const Outputs& out) {
  const size_t E = layer.channels, N = layer.states, R = layer.rank, rows = layer.rows;
  std::vector<float> both(rows * 2 * E), u(rows * E), made(rows * (R + 2 * N)), steps(rows * E), y(rows * E);
  const auto rows_of = [&](std::vector<float>& numbers, size_t width, size_t from = 0) {
    std::vector<const float*> found;
    for (size_t at = 0; at < rows; ++at) {
      found.push_back(numbers.data() + at * width + from);
    }
    return found;
  };
  multiply({layer.in_proj.task(in, *RowsOf(in[X], layer.before, in), both.data())});
  layer.in_proj.shift(in, rows, both.data());
  for (size_t at = 0; at < rows; ++at) {
    convolve(in, layer, at, both.data() + at * 2 * E, u.data() + at * E, out[1] + at * (layer.taps - 1) * E);
    activate_row(Gate::silu, u.data() + at * E, E, u.data() + at * E);
  }
  multiply({layer.x_proj.task(in, rows_of(u, E), made.data())});
  layer.x_proj.shift(in, rows, made.data());
  for (size_t at = 0; at < rows; ++at) {
    float* const numbers = made.data() + at * (R + 2 * N);
    const auto normalise = [&](const NormInput& norm, size_t from, size_t width) {
      if (norm) {
        norm.run(in, {numbers + from}, width, numbers + from);
      }
    };
    normalise(layer.of_step, layer.step_at(), R);
    normalise(layer.of_B, layer.B_at(), N);
    normalise(layer.of_C, layer.B_at() + N, N);
  }
  multiply({layer.dt_proj.task(in, rows_of(made, R + 2 * N, layer.step_at()), steps.data())});
  layer.dt_proj.shift(in, rows, steps.data());
  std::vector<float> scratch(E);
  const float* skips = row(in[SKIP], 0, scratch.data());
  const size_t blocks = (E + LANES - 1) / LANES;
  in_parallel(rows * blocks, rows * E * N * 8, [&](size_t unit) {
    const size_t at = unit / blocks, first = unit % blocks * LANES, last = std::min(first + LANES, E);
    float* const own = steps.data() + at * E;
    for (size_t e = first; e < last; ++e) {
      own[e] = std::clamp(softplus(own[e]), layer.least, layer.most);
    }
    const float* const B = made.data() + at * (R + 2 * N) + layer.B_at();
    advance(in, layer, at, first, own, u.data() + at * E, B, B + N, skips, y.data() + at * E, out[2]);
  });
  for (size_t at = 0; at < rows; ++at) {
    gate_row(Gate::silu, both.data() + at * 2 * E + E, y.data() + at * E, E, y.data() + at * E);
  }
  multiply({layer.out_proj.task(in, rows_of(y, E), out[0])});
  layer.out_proj.shift(in, rows, out[0]);
  if (layer.adds) {
    RowsOf(in[X]).add_to(out[0]);
  }
}

Arrays in_operations(const Arrays& in, const SelectiveLayer& layer) {
  const int rows = layer.rows, E = layer.channels, N = layer.states, R = layer.rank, K = layer.taps;
  const auto silu = [](const array& x) { return mx::multiply(x, mx::sigmoid(x)); };
  const auto part = [&](const array& x, int from, int width) {
    return mx::slice(x, {0, 0, from}, {rows, x.shape(1), from + width});
  };
  const array both = layer.in_proj.of(in, layer.before.of(in, in[X]));
  const array window = mx::concatenate({in[CONV], part(both, 0, E)}, 1);
  const array taps = mx::transpose(mx::reshape(in[TAPS], {E, K}));
  array u = mx::sum(mx::multiply(window, taps), 1, true);
  u = silu(layer.shifts ? mx::add(u, in[SHIFT]) : u);
  const array made = layer.x_proj.of(in, u);
  const int B_at = layer.B_at();
  const array r = layer.of_step.of(in, part(made, layer.step_at(), R));
  const array B = layer.of_B.of(in, part(made, B_at, N)), C = layer.of_C.of(in, part(made, B_at + N, N));
  array dt = mx::logaddexp(layer.dt_proj.of(in, r), array(0.0f));
  dt = mx::clip(dt, array(layer.least), array(layer.most));
  const array A = mx::negative(mx::transpose(mx::exp(in[A_LOG])));
  const array state = mx::add(mx::multiply(mx::exp(mx::multiply(dt, A)), in[STATE]),
                              mx::multiply(mx::swapaxes(B, 1, 2), mx::multiply(dt, u)));
  const array y = mx::multiply(mx::add(mx::matmul(C, state), mx::multiply(in[SKIP], u)), silu(part(both, E, E)));
  const array out = layer.out_proj.of(in, y);
  return {layer.adds ? mx::add(in[X], out) : out, mx::slice(window, {0, 1, 0}, {rows, K, E}), state};
}

}  // namespace

std::vector<array> selective_layer(const array& x, const array& conv_state, const array& state,
                                   const Projections& projections, const Taps& taps, const array& A_log,
                                   const array& D, bool step_first, const StepNorms& norms,
                                   std::pair<float, float> steps, const std::optional<Norm>& before, bool adds) {
  const auto& [weights, shift] = taps;
  if (x.ndim() != 3 || x.shape(1) != 1 || x.shape(2) == 0 || A_log.ndim() != 2 || weights.ndim() != 3) {
    refuse("x should be (B, 1, K), A_log (E, N) and taps (E, K, 1)");
  }
  const int rows = x.shape(0), width = x.shape(2), E = A_log.shape(0), N = A_log.shape(1), K = weights.shape(1);
  const auto expect = [](const array& a, const mx::Shape& shape, const char* why) {
    if (a.shape() != shape || !is_float(a)) {
      refuse(why);
    }
  };
  expect(x, x.shape(), "x should be of float32, bfloat16 or float16");
  expect(conv_state, {rows, K - 1, E}, "kept inputs should be (B, K - 1, E)");
  expect(state, {rows, N, E}, "the state should be (B, N, E)");
  expect(weights, {E, K, 1}, "taps should be (E, K, 1)");
  expect(A_log, {E, N}, "A_log should be of float32, bfloat16 or float16");
  expect(D, {E}, "D should be (E,)");
  if (K < 1 || N < 1 || rows < 1 || !(steps.first <= steps.second)) {
    refuse("there should be a sequence, a state and a tap, and no step smaller than the least one");
  }
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  Arrays inputs{x, conv_state, dense(mx::astype(state, mx::float32, stream), stream), A_log, D,
                mx::reshape(dense(weights, stream), {E * K}, stream)};
  if (shift) {
    expect(*shift, {E}, "what is added to the convolution should be (E,)");
    inputs.push_back(*shift);
  }
  const auto& [in_proj, x_proj, dt_proj, out_proj] = projections;
  const LinearInput into(in_proj, width, false, inputs, stream), of_u(x_proj, E, false, inputs, stream);
  const int rank = of_u.columns() - 2 * N;
  if (into.columns() != 2 * E || rank < 1) {
    refuse("the first projection should have 2 E rows, the second more than 2 N");
  }
  const LinearInput of_step(dt_proj, rank, false, inputs, stream), out(out_proj, E, false, inputs, stream);
  if (of_step.columns() != E || (adds && out.columns() != width)) {
    refuse("the third projection should have E rows, and the last as many as x is wide where x is added");
  }
  const auto& [norm_of_step, norm_of_B, norm_of_C] = norms;
  const SelectiveLayer layer{into, of_u, of_step, out, NormInput(before, width, inputs),
                             NormInput(norm_of_step, rank, inputs), NormInput(norm_of_B, N, inputs),
                             NormInput(norm_of_C, N, inputs), size_t(rows), size_t(width), size_t(E), size_t(N),
                             size_t(K), size_t(rank), shift.has_value(), step_first, adds, steps.first, steps.second};
  const auto compute = [layer](const Arrays& in, const Outputs& y) { run(in, layer, y); };
  const auto operations = [layer](const Arrays& in) { return in_operations(in, layer); };
  std::vector<mx::Shape> shapes{{rows, 1, out.columns()}, conv_state.shape(), state.shape()};
  std::vector<mx::Dtype> dtypes{x.dtype(), x.dtype(), mx::float32};
  return pass(std::move(shapes), std::move(dtypes), std::move(inputs), {"AxonSelectiveLayer", compute, operations});
}

}  // namespace axon
