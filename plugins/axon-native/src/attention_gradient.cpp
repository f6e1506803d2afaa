/** The gradient of causal attention: weights are computed again, a block of queries at a time. */
#include <algorithm>
#include <vector>

#include "attention.h"
#include "rows.h"

namespace axon {

using mlx::core::array;

namespace {

/** Of a block with weights and the gradients of these, the gradients of scores: w (d - sum w d). */
void differentiate(const AttentionSizes& at, const QueryBlock& block, const float* sums, float* weights,
                   float* slopes) {
  const size_t keys = block.keys();
  for (size_t query = 0; query < block.queries(); ++query, weights += at.scores_row(), slopes += at.scores_row()) {
    const float factor = 1 / sums[query], mean = dot(weights, slopes, keys) * factor;
    for (size_t i = 0; i < keys; ++i) {
      weights[i] *= factor;
      slopes[i] = weights[i] * (slopes[i] - mean);
    }
  }
}

/** The gradients of the queries of a group of heads, and of the keys and values that they share. */
class GroupGradient {
 public:
  GroupGradient(const AttentionSizes& at, const Arrays& in, size_t group)
      : at_(at),
        queries_(in[0]),
        dy_(in[3]),
        batch_(group / at.groups),
        group_(group % at.groups),
        columns_(padded(at.width)),
        wide_(padded(at.wide)),
        keys_across_(at.total, at.width),
        values_across_(at.total, at.wide),
        keys_down_(at.total, at.width),
        own_down_(QUERIES, at.width),
        slope_down_(QUERIES, at.wide),
        own_(QUERIES * at.width),
        slope_(QUERIES * at.wide),
        weights_(QUERIES * at.scores_row()),
        slopes_(weights_.size()),
        out_(QUERIES * columns_),
        d_keys_(padded(at.total) * columns_),
        d_values_(padded(at.total) * wide_),
        scratch_(std::max(at.width, at.wide)) {
    for (size_t token = 0; token < at.total; ++token) {
      const float* key = row(in[1], group * at.total + token, scratch_.data());
      keys_across_.set(token, key);
      keys_down_.set(token, key, at.width);
      values_across_.set(token, row(in[2], group * at.total + token, scratch_.data()));
    }
  }

  /** Puts them into outputs (B, L, H, D). */
  void make(const Outputs& d) {
    for (size_t head = group_ * at_.heads, end = head + at_.heads; head < end; ++head) {
      for (size_t start = 0; start < at_.length; start += QUERIES) {
        const QueryBlock block(at_, start);
        read(block, head);
        make_slopes(block);
        add_to_keys_and_values(block);
        put_queries(block, head, d[0]);
      }
    }
    for (size_t token = 0; token < at_.total; ++token) {
      const size_t to = (batch_ * at_.total + token) * at_.groups + group_;
      put(d_keys_.data() + token * columns_, at_.width, 1, d[1] + to * at_.width);
      put(d_values_.data() + token * wide_, at_.wide, 1, d[2] + to * at_.wide);
    }
  }

 private:
  /** Queries and the gradients of their outputs. */
  void read(const QueryBlock& block, size_t head) {
    gather(at_, queries_, batch_, head, block, own_.data());
    for (size_t query = 0; query < block.queries(); ++query) {
      const float* slope = row(dy_, at_.by_token(batch_, head, block.start + query), scratch_.data());
      std::copy_n(slope, at_.wide, slope_.data() + query * at_.wide);
      slope_down_.set(query, slope, at_.wide);
      own_down_.set(query, own_.data() + query * at_.width, at_.width);
    }
  }

  /** The weights of a block once more, and the gradients of its scores. */
  void make_slopes(const QueryBlock& block) {
    float sums[QUERIES];
    multiply({own_.data(), at_.width, 1}, keys_across_.from(block.first), block.queries(), at_.width, block.keys(),
             weights_.data(), at_.scores_row(), false);
    multiply({slope_.data(), at_.wide, 1}, values_across_.from(block.first), block.queries(), at_.wide, block.keys(),
             slopes_.data(), at_.scores_row(), false);
    weigh_block(at_, block, weights_.data(), sums);
    differentiate(at_, block, sums, weights_.data(), slopes_.data());
  }

  void add_to_keys_and_values(const QueryBlock& block) {
    multiply({slopes_.data(), 1, at_.scores_row()}, own_down_.from(0), block.keys(), block.queries(), columns_,
             d_keys_.data() + block.first * columns_, columns_, true);
    multiply({weights_.data(), 1, at_.scores_row()}, slope_down_.from(0), block.keys(), block.queries(), wide_,
             d_values_.data() + block.first * wide_, wide_, true);
  }

  void put_queries(const QueryBlock& block, size_t head, float* d) {
    multiply({slopes_.data(), at_.scores_row(), 1}, keys_down_.from(block.first), block.queries(), block.keys(),
             columns_, out_.data(), columns_, false);
    for (size_t query = 0; query < block.queries(); ++query) {
      const size_t to = at_.by_token(batch_, head, block.start + query);
      put(out_.data() + query * columns_, at_.width, at_.scale, d + to * at_.width);
    }
  }

  const AttentionSizes& at_;
  const array &queries_, &dy_;
  size_t batch_, group_, columns_, wide_;
  TransposedPanels keys_across_, values_across_;
  Panels keys_down_, own_down_, slope_down_;
  std::vector<float> own_, slope_, weights_, slopes_, out_, d_keys_, d_values_, scratch_;
};

}  // namespace

void attention_gradients(const AttentionSizes& at, const Arrays& in, size_t group, const Outputs& d) {
  GroupGradient(at, in, group).make(d);
}

}  // namespace axon
