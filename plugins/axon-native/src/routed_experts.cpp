/** A router, its experts and a shared one for a few tokens, in one operation where MLX makes a dozen. */
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "few_tokens.h"
#include "gated_rows.h"
#include "mlx/ops.h"
#include "pass.h"
#include "passes.h"
#include "row_inputs.h"
#include "row_passes.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** Gate, up and down, as inputs of an operation. */
struct GatedInput {
  LinearInput gate, up, down;

  GatedInput(const GatedLayers& layers, int width, bool experts, Arrays& inputs, mx::Stream stream)
      : gate(std::get<0>(layers), width, experts, inputs, stream),
        up(std::get<1>(layers), width, experts, inputs, stream),
        down(std::get<2>(layers), up.columns(), experts, inputs, stream) {
    if (gate.columns() != up.columns()) {
      refuse("gate and up should have as many rows");
    }
  }

  array of(const Arrays& in, const array& x, const std::string& activation,
           const std::optional<array>& chosen = std::nullopt) const {
    return down.of(in, gated(gate.of(in, x, chosen), up.of(in, x, chosen), activation), chosen);
  }
};

/** Puts exp(score - highest) over their sum in the place of every score. */
void softmax(float* scores, size_t count) {
  const float highest = *std::max_element(scores, scores + count);
  float sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += scores[i] = std::exp(scores[i] - highest);
  }
  for (size_t i = 0; i < count; ++i) {
    scores[i] /= sum;
  }
}

/** The best experts of a row, of equals the first ones, and their weights. */
void choose(float* logits, size_t experts, const Routing& routing, size_t* chosen, float* weights) {
  std::vector<size_t> order(experts);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + routing.some, order.end(), [&](size_t a, size_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  std::copy_n(order.begin(), routing.some, chosen);
  if (!routing.of_chosen) {
    softmax(logits, experts);
  }
  std::transform(chosen, chosen + routing.some, weights, [&](size_t expert) { return logits[expert]; });
  if (routing.of_chosen) {
    softmax(weights, routing.some);
  }
  const float sum = std::accumulate(weights, weights + routing.some, 0.0f) + routing.eps;
  for (int i = 0; i < routing.some; ++i) {
    weights[i] = (routing.to_one ? weights[i] / std::max(sum, 1e-20f) : weights[i]) * routing.factor;
  }
}

}  // namespace

array routed_experts(const array& x, const Layer& router, const GatedLayers& experts, const std::string& activation,
                     const std::tuple<int, bool, bool, float, float>& how, const std::optional<GatedLayers>& shared,
                     const std::optional<Layer>& shared_gate, const std::optional<Norm>& before, bool adds) {
  if (x.ndim() < 1 || x.shape(-1) == 0 || !is_float(x)) {
    refuse("x should be (..., K), of float32, bfloat16 or float16");
  }
  const auto& [some, of_chosen, to_one, eps, factor] = how;
  const Routing routing{some, of_chosen, to_one, eps, factor};
  const Gate act = gate_named(activation);
  const mx::Stream stream = mx::default_stream(mx::Device::cpu);
  const int width = x.shape(-1);
  Arrays inputs{x};
  const LinearInput r(router, width, false, inputs, stream);
  const GatedInput each(experts, width, true, inputs, stream);
  const size_t count = r.columns(), out = each.down.columns();
  const auto as_many = [&](const LinearInput& layer) { return layer.experts(inputs) == count; };
  if (some < 1 || size_t(some) > count || !as_many(each.gate) || !as_many(each.up) || !as_many(each.down)) {
    refuse("there should be an expert for each row of the router, and not fewer than are chosen");
  }
  std::optional<GatedInput> every;
  std::optional<LinearInput> share;
  if (shared) {
    every.emplace(*shared, width, false, inputs, stream);
  }
  if (shared && shared_gate) {
    share.emplace(*shared_gate, width, false, inputs, stream);
  }
  const NormInput norm(before, width, inputs);
  if ((adds && out != size_t(width)) || (every && every->down.columns() != int(out)) || (share && share->columns() != 1)) {
    refuse("outputs should be equally wide, as wide as x where it is added, and the shared gate one row");
  }
  const auto run = [=](const Arrays& in, const Outputs& y) {
    const RowsOf rows(in[0], norm, in);
    const size_t tokens = (*rows).size(), top = routing.some;
    std::vector<float> logits(tokens * count), weights(tokens * top), shares(tokens, 1.0f);
    std::vector<Task> first{r.task(in, *rows, logits.data())};
    if (share) {
      first.push_back(share->task(in, *rows, shares.data()));
    }
    multiply(first);
    r.shift(in, tokens, logits.data());
    if (share) {
      share->shift(in, tokens, shares.data());
      std::transform(shares.begin(), shares.end(), shares.begin(), [](float z) { return times_sigmoid(1.0f, z); });
    }
    std::vector<size_t> chosen(tokens * top);
    std::vector<const float*> repeated;
    for (size_t at = 0; at < tokens; ++at) {
      choose(logits.data() + at * count, count, routing, chosen.data() + at * top, weights.data() + at * top);
      repeated.insert(repeated.end(), top, (*rows)[at]);
    }
    std::vector<float> found(tokens * top * out), common(every ? tokens * out : 0);
    gated_rows(in, each.gate, each.up, each.down, act, repeated, chosen, found.data());
    if (every) {
      gated_rows(in, every->gate, every->up, every->down, act, *rows, {}, common.data());
    }
    for (size_t at = 0; at < tokens; ++at) {
      float* const to = y[0] + at * out;
      std::fill_n(to, out, 0.0f);
      const auto add = [&](float weight, const float* from) {
        for (size_t i = 0; i < out; ++i) {
          to[i] += weight * from[i];
        }
      };
      for (size_t j = at * top; j < (at + 1) * top; ++j) {
        add(weights[j], found.data() + j * out);
      }
      if (every) {
        add(shares[at], common.data() + at * out);
      }
    }
    if (adds) {
      RowsOf(in[0]).add_to(y[0]);
    }
  };
  const auto in_operations = [=](const Arrays& in) {
    const array h = norm.of(in, in[0]), logits = r.of(in, h);
    auto stop = mx::Shape(logits.shape()), start = mx::Shape(logits.ndim(), 0);
    stop.back() = routing.some;
    const array chosen = mx::stop_gradient(mx::slice(mx::argsort(mx::negative(logits), -1), start, stop));
    array weights = mx::take_along_axis(routing.of_chosen ? logits : mx::softmax(logits, -1), chosen, -1);
    weights = routing.of_chosen ? mx::softmax(weights, -1) : weights;
    if (routing.to_one) {
      const array sum = mx::add(mx::sum(weights, -1, true), array(routing.eps));
      weights = mx::divide(weights, mx::maximum(sum, array(1e-20f)));
    }
    weights = mx::multiply(weights, array(routing.factor));
    const array found = mx::squeeze(each.of(in, mx::expand_dims(h, {-2, -3}), activation, chosen), -2);
    array y = mx::sum(mx::multiply(found, mx::expand_dims(weights, -1)), -2);
    if (every) {
      const array common = every->of(in, h, activation);
      y = mx::add(y, share ? mx::multiply(mx::sigmoid(share->of(in, h)), common) : common);
    }
    return Arrays{adds ? mx::add(in[0], y) : y};
  };
  auto shape = x.shape();
  shape.back() = out;
  return pass(std::vector{shape}, x.dtype(), std::move(inputs), {"AxonRoutedExperts", run, in_operations})[0];
}

}  // namespace axon
