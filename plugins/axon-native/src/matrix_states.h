/** Recurrences whose state is a matrix S for each head, with Dv rows and Dk columns:
 *
 *     S = S diag(w) + (S a) b^T + v k^T        y = S r
 *
 * RWKV-7 is exactly this (Peng et al. 2025, "RWKV-7 Goose"). The gated delta rule (Yang et al. 2024, "Gated Delta
 * Networks") S = S diag(w) (I - beta k k^T) + beta v k^T has a = w k, b = -beta k and beta k for k. Mamba-2 (Dao and Gu
 * 2024) recalls nothing: there is no a.
 *
 * A kind below says how a token is read from the inputs, and how the gradients of its vectors become those of the
 * inputs, which use it up; `at` is its index in (B, L, H). Kinds are all that recurrences differ in.
 */
#pragma once

#include <algorithm>
#include <vector>

#include "lanes.h"
#include "recurrence.h"

namespace axon {

/** What the operations read, or std::invalid_argument if shapes do not fit. */
Arrays ssd_inputs(const array& state, const array& log_decay, const array& u, const array& B, const array& C);
Arrays delta_inputs(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                    const array& beta);
Arrays wkv7_inputs(const array& state, const array& r, const array& log_w, const array& k, const array& v,
                   const array& a, const array& b);

/** Numbers of a row up to whole lanes. */
inline size_t room(size_t width) { return (width + LANES - 1) / LANES * LANES; }

/** What a token does, or the gradients of that: vectors of Dk numbers with room up to whole lanes. */
struct Token {
  std::vector<float> lost, a, b, k, r;  // lost: w - 1
  std::vector<float> base, rest;  // those of w
  std::vector<float> key;
  float rate = 0.0f;

  explicit Token(size_t width) {
    for (auto vector : {&lost, &a, &b, &k, &r, &base, &rest, &key}) {
      vector->assign(room(width), 0.0f);
    }
  }

  void clear() {
    for (auto vector : {&lost, &a, &b, &k, &r}) {
      std::fill(vector->begin(), vector->end(), 0.0f);
    }
  }

  /** Sets w to the exponentials of `count` logarithms, or of the one that all share. */
  void decay(const float* logs, size_t count) {
    if (count == 1) {
      const Decay one(Lanes{} + *logs);
      std::fill(lost.begin(), lost.end(), one.lost[0]);
      std::fill(base.begin(), base.end(), one.base[0]);
      std::fill(rest.begin(), rest.end(), one.rest[0]);
      return;
    }
    std::copy_n(logs, count, lost.begin());
    for (size_t i = 0; i < lost.size(); i += LANES) {
      const Decay w(load(lost.data() + i));
      store(lost.data() + i, w.lost);
      store(base.data() + i, w.base);
      store(rest.data() + i, w.rest);
    }
  }

  /** Lanes of w, from the i-th. */
  Lanes w(size_t i) const { return load(base.data() + i) + load(rest.data() + i); }
};

inline void add(float* to, const float* from, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    to[i] += from[i];
  }
}

/** Keys, and what else all heads of a group share. */
struct Heads {
  Heads(const View& state, const View& v, const View& keys)
      : state(state), v(v), heads(v.shape[2]), groups(keys.shape[2]), width(keys.shape[3]) {}

  size_t key(size_t at) const { return (at / heads * groups + at % heads / (heads / groups)) * width; }

  const View &state, &v;
  const size_t heads, groups, width;
};

struct SSD : Heads {
  static constexpr bool RECALLS = false;
  /** Inputs that all heads of a group share. */
  static constexpr size_t SHARED[] = {3, 4};

  explicit SSD(const Views& in)
      : Heads(in[0], in[2], in[3]), log_decay(in[1].data), B(in[3].data), C(in[4].data) {}

  void read(Token& token, size_t at) const {
    token.decay(log_decay + at, 1);
    std::copy_n(B + key(at), width, token.k.begin());
    std::copy_n(C + key(at), width, token.r.begin());
  }

  void add_gradients(const Token& token, const Token& found, size_t at, const std::vector<float*>& to) const {
    Lanes kept = {};
    for (size_t i = 0; i < width; i += LANES) {
      kept += load(found.lost.data() + i);
    }
    to[1][at] += total(token.w(0) * kept);
    add(to[3] + key(at), found.k.data(), width);
    add(to[4] + key(at), found.r.data(), width);
  }

  const float *log_decay, *B, *C;
};

struct GatedDeltaRule : Heads {
  static constexpr bool RECALLS = true;
  static constexpr size_t SHARED[] = {1, 2};

  explicit GatedDeltaRule(const Views& in)
      : Heads(in[0], in[3], in[1]), gates(in[4].shape[3]), q(in[1].data), k(in[2].data), log_g(in[4].data),
        beta(in[5].data) {}

  void read(Token& token, size_t at) const {
    token.decay(log_g + at * gates, gates);
    token.rate = beta[at];
    std::copy_n(k + key(at), width, token.key.begin());
    std::copy_n(q + key(at), width, token.r.begin());
    for (size_t i = 0; i < width; i += LANES) {
      const Lanes k_i = load(token.key.data() + i), write = token.rate * k_i;
      store(token.a.data() + i, token.w(i) * k_i);
      store(token.k.data() + i, write);
      store(token.b.data() + i, -write);
    }
  }

  void add_gradients(const Token& token, Token& found, size_t at, const std::vector<float*>& to) const {
    Lanes rates = {}, logs = {};
    for (size_t i = 0; i < width; i += LANES) {
      const Lanes k_i = load(token.key.data() + i), w = token.w(i), da = load(found.a.data() + i);
      const Lanes written = load(found.k.data() + i) - load(found.b.data() + i);
      const Lanes log = w * (load(found.lost.data() + i) + k_i * da);
      rates += k_i * written;
      logs += log;
      store(found.k.data() + i, token.rate * written + w * da);
      store(found.lost.data() + i, log);
    }
    add(to[1] + key(at), found.r.data(), width);
    add(to[2] + key(at), found.k.data(), width);
    to[5][at] += total(rates);
    if (gates == 1) {
      to[4][at] += total(logs);
    } else {
      add(to[4] + at * gates, found.lost.data(), gates);
    }
  }

  const size_t gates;
  const float *q, *k, *log_g, *beta;
};

struct WKV7 : Heads {
  static constexpr bool RECALLS = true;
  static constexpr size_t SHARED[] = {1, 3};

  explicit WKV7(const Views& in)
      : Heads(in[0], in[4], in[1]), r(in[1].data), log_w(in[2].data), k(in[3].data), a(in[5].data), b(in[6].data) {}

  void read(Token& token, size_t at) const {
    token.decay(log_w + at * width, width);
    std::copy_n(k + at * width, width, token.k.begin());
    std::copy_n(a + at * width, width, token.a.begin());
    std::copy_n(b + at * width, width, token.b.begin());
    std::copy_n(r + at * width, width, token.r.begin());
  }

  void add_gradients(const Token& token, Token& found, size_t at, const std::vector<float*>& to) const {
    for (size_t i = 0; i < width; i += LANES) {
      store(found.lost.data() + i, token.w(i) * load(found.lost.data() + i));
    }
    add(to[1] + at * width, found.r.data(), width);
    add(to[2] + at * width, found.lost.data(), width);
    add(to[3] + at * width, found.k.data(), width);
    add(to[5] + at * width, found.a.data(), width);
    add(to[6] + at * width, found.b.data(), width);
  }

  const float *r, *log_w, *k, *a, *b;
};

}  // namespace axon
