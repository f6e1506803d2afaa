/** The likelihood of tokens under logits and its gradient, with one exponential for each logit. */
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "mlx/ops.h"
#include "mlx/transforms.h"
#include "pass.h"
#include "passes.h"
#include "row_passes.h"
#include "rows.h"
#include "threads.h"

namespace axon {

namespace mx = mlx::core;
using mx::array;

namespace {

/** The token of a row; throws nothing: one that there is not has no number either. */
float* at_token(float* row, const array& tokens, size_t at, size_t width) {
  const int64_t token = tokens.data<int32_t>()[offset(tokens, at, tokens.ndim())];
  return token < 0 || static_cast<size_t>(token) >= width ? nullptr : row + token;
}

void of_rows(const Arrays& in, const Outputs& out) {
  const size_t width = in[0].shape(-1), rows = in[0].size() / width;
  in_parallel(rows, 16 * in[0].size(), [&](size_t at) {
    std::vector<float> scratch(width);
    const float* x = row(in[0], at, scratch.data());
    const float highest = greatest(x, width);
    const float sum = exponentials(x, width, highest, [](size_t, auto e) { return e; });
    const float* wanted = at_token(const_cast<float*>(x), in[1], at, width);
    out[1][at] = highest + std::log(sum);
    out[0][at] = wanted == nullptr ? std::numeric_limits<float>::quiet_NaN() : out[1][at] - *wanted;
  });
}

/** Of the logits alone: (f + g) softmax(x) - f where the token is, for the gradients f and g of the two outputs. */
void gradient_of_rows(const Arrays& in, const Outputs& d) {
  const size_t width = in[0].shape(-1), rows = in[0].size() / width;
  in_parallel(rows, 16 * in[0].size(), [&](size_t at) {
    std::vector<float> scratch(width);
    float* const to = d[0] + at * width;
    const float* x = row(in[0], at, scratch.data());
    const float sum = exponentials(x, width, greatest(x, width), into(to));
    const auto number = [at](const array& y) { return y.data<float>()[offset(y, at, y.ndim())]; };
    const float towards = number(in[2]), factor = (towards + number(in[3])) / sum;
    std::transform(to, to + width, to, [factor](float e) { return e * factor; });
    if (float* const wanted = at_token(to, in[1], at, width)) {
      *wanted -= towards;
    }
  });
}

Arrays in_operations(const Arrays& in) {
  const array partition = mx::logsumexp(in[0], -1);
  const array wanted = mx::squeeze(mx::take_along_axis(in[0], mx::expand_dims(in[1], -1), -1), -1);
  return {mx::subtract(partition, wanted), partition};
}

Arrays gradients(const Arrays& in, const Arrays& cotangents) {
  const auto again = [](const Arrays& all) {
    const auto of_logits = [&](const Arrays& some) { return in_operations({some[0], all[1]}); };
    return mx::vjp(of_logits, {all[0]}, {all[2], all[3]}).second;
  };
  Arrays d = pass(std::vector{in[0].shape()}, mx::float32, {in[0], in[1], cotangents[0], cotangents[1]},
                  {"AxonLikelihoodGradient", gradient_of_rows, again});
  d.push_back(mx::zeros_like(in[1]));
  return d;
}

}  // namespace

Arrays likelihood(const array& logits, const array& tokens) {
  if (logits.ndim() < 1 || logits.shape(-1) == 0 || logits.dtype() != mx::float32 || tokens.dtype() != mx::int32 ||
      tokens.shape() != mx::Shape(logits.shape().begin(), logits.shape().end() - 1)) {
    refuse("logits should be (..., V) in float32, and tokens (...) in int32");
  }
  return pass(std::vector{tokens.shape(), tokens.shape()}, mx::float32, {logits, tokens},
              {"AxonLikelihood", of_rows, in_operations, gradients});
}

}  // namespace axon
