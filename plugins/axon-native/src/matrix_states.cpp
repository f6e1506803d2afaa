/** Recurrences whose state is a matrix for each head, forwards.
 *
 * Rows never meet. So a unit is some neighbouring rows of a head, from the first token to the last, and S lies with the
 * rows innermost: products with it are then sums of whole vectors, and it stays in the cache.
 */
#include "matrix_states.h"

#include "mlx/ops.h"

namespace axon {

namespace {

constexpr size_t PARTS = 4;
/** Rows of a unit: what is recalled, written and read of them stays in registers. */
constexpr size_t ROWS = PARTS * LANES;

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

/** Some rows of a head of a sequence, from the first token to the last. */
template <class Kind>
void rows(const Kind& kind, size_t head, size_t first, float* y, float* last) {
  const View &state = kind.state, &v = kind.v;
  const size_t heads = kind.heads, height = v.shape[3], tokens = v.shape[1], width = kind.width;
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
    kind.read(token, at);
    std::copy_n(v.data + at * height + first, count, value);
    step<Kind::RECALLS>(width, s.data(), token, value, made);
    std::copy_n(made, count, y + at * height + first);
  }
  for (size_t row = 0; row < count; ++row) {
    for (size_t i = 0; i < width; ++i) {
      last[start + row * width + i] = s[i * ROWS + row];
    }
  }
}

/** All rows of all heads. */
template <class Kind>
void run(const Views& in, const std::vector<float*>& out) {
  const Kind kind(in);
  const size_t height = kind.v.shape[3], tokens = kind.v.shape[1], heads = kind.v.shape[0] * kind.heads;
  const size_t blocks = (height + ROWS - 1) / ROWS, work = heads * tokens * height * kind.width;
  in_parallel(heads * blocks, work,
              [&](size_t unit) { rows(kind, unit / blocks, unit % blocks * ROWS, out[0], out[1]); });
}

const Definition SSD_SCAN{"SSDScan", run<SSD>, {2, 0}};
const Definition GATED_DELTA_RULE{"GatedDeltaRule", run<GatedDeltaRule>, {3, 0}};
const Definition WKV_7{"WKV7", run<WKV7>, {4, 0}};

}  // namespace

Arrays ssd_scan(const array& state, const array& log_decay, const array& u, const array& B, const array& C) {
  return recurrence(SSD_SCAN, ssd_inputs(state, log_decay, u, B, C));
}

Arrays gated_delta_rule(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                        const array& beta) {
  return recurrence(GATED_DELTA_RULE, delta_inputs(state, q, k, v, log_g, beta));
}

Arrays wkv7(const array& state, const array& r, const array& log_w, const array& k, const array& v, const array& a,
            const array& b) {
  return recurrence(WKV_7, wkv7_inputs(state, r, log_w, k, v, a, b));
}

// -- What they take --------------------------------------------------------------------------------------------------

namespace {

/** Throws unless v is (B, L, Hv, Dv), keys are (B, L, Hk, Dk) with Hk dividing Hv, and the state (B, Hv, Dv, Dk). */
void expect_heads(const array& state, const array& keys, const array& v) {
  if (v.ndim() != 4 || keys.ndim() != 4 || v.shape(2) % std::max(1, keys.shape(2))) {
    throw std::invalid_argument("keys should be (B, L, Hk, Dk), values (B, L, Hv, Dv), and Hk divide Hv");
  }
  expect(keys, "keys", {v.shape(0), v.shape(1), keys.shape(2), keys.shape(3)});
  expect(state, "state", {v.shape(0), v.shape(2), v.shape(3), keys.shape(3)});
}

}  // namespace

Arrays ssd_inputs(const array& state, const array& log_decay, const array& u, const array& B, const array& C) {
  expect_heads(state, B, u);
  expect(C, "C", B.shape());
  expect(log_decay, "log_decay", {u.shape(0), u.shape(1), u.shape(2)});
  return {state, log_decay, u, B, C};
}

Arrays delta_inputs(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                    const array& beta) {
  expect_heads(state, k, v);
  expect(q, "q", k.shape());
  expect(beta, "beta", {v.shape(0), v.shape(1), v.shape(2)});
  const auto gates = log_g.ndim() == 3 ? mx::expand_dims(log_g, 3, mx::Device::cpu) : log_g;
  const int width = gates.ndim() == 4 && gates.shape(3) == 1 ? 1 : k.shape(3);
  expect(gates, "log_g", {v.shape(0), v.shape(1), v.shape(2), width});
  return {state, q, k, v, gates, beta};
}

Arrays wkv7_inputs(const array& state, const array& r, const array& log_w, const array& k, const array& v,
                   const array& a, const array& b) {
  expect_heads(state, k, v);
  const mx::Shape keys{v.shape(0), v.shape(1), v.shape(2), k.shape(3)};
  for (const auto& [input, name] : {std::pair{&k, "k"}, {&r, "r"}, {&log_w, "log_w"}, {&a, "a"}, {&b, "b"}}) {
    expect(*input, name, keys);
  }
  return {state, r, log_w, k, v, a, b};
}

}  // namespace axon
