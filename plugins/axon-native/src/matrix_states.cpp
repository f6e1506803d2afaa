/** Recurrences whose state is a matrix S for each head, with Dv rows and Dk columns:
 *
 *     S = S diag(w) + (S a) b^T + v k^T        y = S r
 *
 * RWKV-7 is this as it stands (Peng et al. 2025, "RWKV-7 Goose"). The gated delta rule (Yang et al. 2024, "Gated Delta
 * Networks") S = S diag(w) (I - beta k k^T) + beta v k^T has a = w k, b = -beta k and beta k for k. Mamba-2 (Dao and Gu
 * 2024) recalls nothing: there is no a.
 *
 * Rows never meet. So a unit is some neighbouring rows of a head, from the first token to the last, and S lies with the
 * rows innermost: products with it are then sums of whole vectors, and it stays in the cache.
 */
#include <algorithm>

#include "lanes.h"
#include "mlx/ops.h"
#include "recurrence.h"

namespace axon {

namespace {

constexpr size_t PARTS = 4;
/** Rows of a unit: what is recalled, written and read of them stays in registers. */
constexpr size_t ROWS = PARTS * LANES;

/** What a token does, in vectors of Dk numbers with room up to whole lanes. */
struct Token {
  std::vector<float> lost, a, b, k;  // lost: w - 1
  const float* r;

  explicit Token(size_t width) {
    const size_t room = (width + LANES - 1) / LANES * LANES;
    for (auto vector : {&lost, &a, &b, &k}) {
      vector->assign(room, 0.0f);
    }
  }

  /** Sets w to the exponentials of `count` logarithms, or of the one that all share. */
  void decay(const float* logs, size_t count) {
    if (count == 1) {
      std::fill(lost.begin(), lost.end(), decay_less_one(Lanes{} + *logs)[0]);
      return;
    }
    std::memcpy(lost.data(), logs, count * sizeof(float));
    for (size_t i = 0; i < lost.size(); i += LANES) {
      store(lost.data() + i, decay_less_one(load(lost.data() + i)));
    }
  }
};

/** The step of some rows: `s` is (Dk, ROWS), `v` and `y` are ROWS numbers. */
template <bool RECALLS>
void step(size_t width, float* s, const Token& token, const float* v, float* y) {
  Lanes recalled[PARTS] = {}, value[PARTS], found[PARTS] = {};
  if constexpr (RECALLS) {
    for (size_t i = 0; i < width; ++i) {
#pragma GCC unroll 4
      for (size_t part = 0; part < PARTS; ++part) {
        recalled[part] += load(s + i * ROWS + part * LANES) * token.a[i];
      }
    }
  }
#pragma GCC unroll 4
  for (size_t part = 0; part < PARTS; ++part) {
    value[part] = load(v + part * LANES);
  }
  for (size_t i = 0; i < width; ++i) {
#pragma GCC unroll 4
    for (size_t part = 0; part < PARTS; ++part) {
      float* at = s + i * ROWS + part * LANES;
      const Lanes before = load(at);
      Lanes next = (before + before * token.lost[i]) + value[part] * token.k[i];
      if constexpr (RECALLS) {
        next += recalled[part] * token.b[i];
      }
      found[part] += next * token.r[i];
      store(at, next);
    }
  }
#pragma GCC unroll 4
  for (size_t part = 0; part < PARTS; ++part) {
    store(y + part * LANES, found[part]);
  }
}

/** Some rows of a head of a sequence, from the first token to the last.
 *
 * `describe(token, at)` says what the token does that stands at `at` in (B, L, H).
 */
template <bool RECALLS, class Describe>
void rows(const View& state, const View& v, size_t head, size_t first, float* y, float* last, Describe describe) {
  const size_t heads = v.shape[2], height = v.shape[3], tokens = v.shape[1], width = state.shape[3];
  const size_t count = std::min(ROWS, height - first), start = (head * height + first) * width;
  std::vector<float> s(width * ROWS, 0.0f);
  for (size_t row = 0; row < count; ++row) {
    for (size_t i = 0; i < width; ++i) {
      s[i * ROWS + row] = state.data[start + row * width + i];
    }
  }
  Token token(width);
  float value[ROWS] = {}, made[ROWS];
  for (size_t t = 0; t < tokens; ++t) {
    const size_t at = (head / heads * tokens + t) * heads + head % heads;
    describe(token, at);
    std::memcpy(value, v.data + at * height + first, count * sizeof(float));
    step<RECALLS>(width, s.data(), token, value, made);
    std::memcpy(y + at * height + first, made, count * sizeof(float));
  }
  for (size_t row = 0; row < count; ++row) {
    for (size_t i = 0; i < width; ++i) {
      last[start + row * width + i] = s[i * ROWS + row];
    }
  }
}

/** All rows of all heads. */
template <bool RECALLS, class Describe>
void run(const View& state, const View& v, float* y, float* last, Describe describe) {
  const size_t height = v.shape[3], blocks = (height + ROWS - 1) / ROWS, heads = size_t(v.shape[0]) * v.shape[2];
  const size_t work = heads * v.shape[1] * height * state.shape[3];
  in_parallel(heads * blocks, work, [&](size_t unit) {
    rows<RECALLS>(state, v, unit / blocks, unit % blocks * ROWS, y, last, describe);
  });
}

void run_ssd(const std::vector<View>& in, float* y, float* last) {
  const size_t heads = in[2].shape[2], groups = in[3].shape[2], width = in[3].shape[3];
  run<false>(in[0], in[2], y, last, [&, share = heads / groups](Token& token, size_t at) {
    const size_t group = at / heads * groups + at % heads / share;
    token.decay(in[1].data + at, 1);
    std::memcpy(token.k.data(), in[3].data + group * width, width * sizeof(float));
    token.r = in[4].data + group * width;
  });
}

void run_gated_delta_rule(const std::vector<View>& in, float* y, float* last) {
  const size_t heads = in[3].shape[2], key_heads = in[1].shape[2], width = in[1].shape[3], gates = in[4].shape[3];
  run<true>(in[0], in[3], y, last, [&, share = heads / key_heads](Token& token, size_t at) {
    const size_t key = (at / heads * key_heads + at % heads / share) * width;
    const float *k = in[2].data + key, beta = in[5].data[at];
    token.decay(in[4].data + at * gates, gates);
    for (size_t i = 0; i < width; ++i) {
      token.a[i] = k[i] + token.lost[i] * k[i];
      token.k[i] = beta * k[i];
      token.b[i] = -token.k[i];
    }
    token.r = in[1].data + key;
  });
}

void run_wkv7(const std::vector<View>& in, float* y, float* last) {
  const size_t width = in[1].shape[3];
  run<true>(in[0], in[4], y, last, [&](Token& token, size_t at) {
    token.decay(in[2].data + at * width, width);
    const size_t bytes = width * sizeof(float);
    std::memcpy(token.k.data(), in[3].data + at * width, bytes);
    std::memcpy(token.a.data(), in[5].data + at * width, bytes);
    std::memcpy(token.b.data(), in[6].data + at * width, bytes);
    token.r = in[1].data + at * width;
  });
}

const Definition SSD_SCAN{"SSDScan", run_ssd, 2, 0};
const Definition GATED_DELTA_RULE{"GatedDeltaRule", run_gated_delta_rule, 3, 0};
const Definition WKV7{"WKV7", run_wkv7, 4, 0};

/** Throws unless v is (B, L, Hv, Dv), keys are (B, L, Hk, Dk) with Hk dividing Hv, and the state (B, Hv, Dv, Dk). */
void expect_heads(const mx::array& state, const mx::array& keys, const mx::array& v) {
  if (v.ndim() != 4 || keys.ndim() != 4 || v.shape(2) % std::max(1, keys.shape(2))) {
    throw std::invalid_argument("keys should be (B, L, Hk, Dk), values (B, L, Hv, Dv), and Hk divide Hv");
  }
  expect(keys, "keys", {v.shape(0), v.shape(1), keys.shape(2), keys.shape(3)});
  expect(state, "state", {v.shape(0), v.shape(2), v.shape(3), keys.shape(3)});
}

}  // namespace

Outcome ssd_scan(const mx::array& state, const mx::array& log_decay, const mx::array& u,
                                const mx::array& B, const mx::array& C) {
  expect_heads(state, B, u);
  expect(C, "C", B.shape());
  expect(log_decay, "log_decay", {u.shape(0), u.shape(1), u.shape(2)});
  return recurrence(SSD_SCAN, {state, log_decay, u, B, C});
}

Outcome gated_delta_rule(const mx::array& state, const mx::array& q, const mx::array& k,
                                        const mx::array& v, const mx::array& log_g, const mx::array& beta) {
  expect_heads(state, k, v);
  expect(q, "q", k.shape());
  expect(beta, "beta", {v.shape(0), v.shape(1), v.shape(2)});
  const auto gates = log_g.ndim() == 3 ? mx::expand_dims(log_g, 3, mx::Device::cpu) : log_g;
  const int width = gates.ndim() == 4 && gates.shape(3) == 1 ? 1 : k.shape(3);
  expect(gates, "log_g", {v.shape(0), v.shape(1), v.shape(2), width});
  return recurrence(GATED_DELTA_RULE, {state, q, k, v, gates, beta});
}

Outcome wkv7(const mx::array& state, const mx::array& r, const mx::array& log_w, const mx::array& k,
                            const mx::array& v, const mx::array& a, const mx::array& b) {
  expect_heads(state, k, v);
  const mx::Shape keys{v.shape(0), v.shape(1), v.shape(2), k.shape(3)};
  expect(k, "k", keys);
  expect(r, "r", keys);
  expect(log_w, "log_w", keys);
  expect(a, "a", keys);
  expect(b, "b", keys);
  return recurrence(WKV7, {state, r, log_w, k, v, a, b});
}

}  // namespace axon
