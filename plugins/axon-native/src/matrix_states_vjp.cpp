/** Gradients of the recurrences whose state is a matrix S for each head. With G that of a state,
 *
 *     G = G + dy r^T      dr = S^T dy     dv = G k    dk = G^T v      dw = columns of G * S'    S': the state before
 *     dp = G b            db = G^T p      da = S'^T dp                                          p = S' a: what is recalled
 *     G = G diag(w) + dp a^T
 *
 * from the last token to the first. The states are computed again, from checkpoints of every chunk: with about the
 * root of L tokens in a chunk, checkpoints and the states of a chunk are as many.
 *
 * A unit is a few heads that share their keys. What is done with a chunk is done for some rows after the other, whose
 * states stay in the cache. S lies with the columns innermost, for most of the gradients are sums over rows. Units that
 * share keys add up what they find in arrays of their own, which are then added in their order: how many there are
 * depends on the shapes alone, and so does every sum.
 */
#include <cmath>

#include "matrix_states.h"
#include "mlx/ops.h"

namespace axon {

namespace {

/** Rows that are worked on together, so that the vectors of a token are read once for all of them. */
constexpr size_t GROUP = 8, GROUP_BACK = 4;
/** Of the states of a chunk of a block, so that they stay in the second cache. */
constexpr size_t NUMBERS = 3 << 15;
/** Units of a sequence with one group of keys: enough for the threads of most machines. */
constexpr size_t UNITS = 16;

/** Numbers of neighbouring rows, each in all lanes. */
template <size_t COUNT>
struct Spread {
  explicit Spread(const float* from) {
    for (size_t i = 0; i < COUNT; ++i) {
      rows[i] = Lanes{} + from[i];
    }
  }

  Lanes rows[COUNT];
};

/** A step of `rows` rows, from `before` to `after`, which may be the same; writes what they recall. */
template <bool RECALLS>
void step(size_t rows, size_t width, const float* before, float* after, const Token& token, const float* v,
          float* recalled) {
  const float *const lost = token.lost.data(), *const k = token.k.data(), *const b = token.b.data();
  for (size_t row = 0; row < rows; row += GROUP) {
    const float* from = before + row * width;
    float* to = after + row * width;
    if constexpr (RECALLS) {
      const float* const a = token.a.data();
      Lanes sums[GROUP] = {};
      for (size_t i = 0; i < width; i += LANES) {
        const Lanes a_i = load(a + i);
#pragma GCC unroll 8
        for (size_t each = 0; each < GROUP; ++each) {
          sums[each] += load(from + each * width + i) * a_i;
        }
      }
      totals(sums, recalled + row);
      totals(sums + 4, recalled + row + 4);
    }
    const Spread<GROUP> value(v + row), p(RECALLS ? recalled + row : v + row);
    for (size_t i = 0; i < width; i += LANES) {
      const Lanes lost_i = load(lost + i), k_i = load(k + i), b_i = load(b + i);
#pragma GCC unroll 8
      for (size_t each = 0; each < GROUP; ++each) {
        const Lanes s = load(from + each * width + i);
        Lanes next = (s + s * lost_i) + value.rows[each] * k_i;
        if constexpr (RECALLS) {
          next += p.rows[each] * b_i;
        }
        store(to + each * width + i, next);
      }
    }
  }
}

/** The same backwards: `G` becomes the gradient of the state before, `found` gets what a token adds to each sum. */
template <bool RECALLS>
void step_back(size_t rows, size_t width, float* G, const float* before, const float* after, const Token& token,
               const float* v, const float* recalled, const float* dy, float* dv, Token& found) {
  const float *const r = token.r.data(), *const k = token.k.data(), *const b = token.b.data();
  const float *const a = token.a.data(), *const base = token.base.data(), *const rest = token.rest.data();
  float *const dr = found.r.data(), *const dk = found.k.data(), *const db = found.b.data();
  float *const da = found.a.data(), *const dw = found.lost.data();
  for (size_t row = 0; row < rows; row += GROUP_BACK) {
    float* const g_at = G + row * width;
    const float *s_at = before + row * width, *next_at = after + row * width;
    const Spread<GROUP_BACK> arriving(dy + row), value(v + row), p(recalled + row);
    Lanes along_k[GROUP_BACK] = {}, along_b[GROUP_BACK] = {};
    for (size_t i = 0; i < width; i += LANES) {
      const Lanes r_i = load(r + i), k_i = load(k + i), b_i = load(b + i);
      const Lanes base_i = load(base + i), rest_i = load(rest + i);
      Lanes dr_i = load(dr + i), dk_i = load(dk + i), db_i = load(db + i), dw_i = load(dw + i);
#pragma GCC unroll 4
      for (size_t each = 0; each < GROUP_BACK; ++each) {
        const size_t place = each * width + i;
        const Lanes g = load(g_at + place) + arriving.rows[each] * r_i;
        dr_i += load(next_at + place) * arriving.rows[each];
        dk_i += g * value.rows[each];
        dw_i += g * load(s_at + place);
        along_k[each] += g * k_i;
        if constexpr (RECALLS) {
          db_i += g * p.rows[each];
          along_b[each] += g * b_i;
          store(g_at + place, g);
        } else {
          store(g_at + place, g * base_i + g * rest_i);
        }
      }
      store(dr + i, dr_i);
      store(dk + i, dk_i);
      store(dw + i, dw_i);
      if constexpr (RECALLS) {
        store(db + i, db_i);
      }
    }
    totals(along_k, dv + row);
    if constexpr (RECALLS) {
      float sums[GROUP_BACK];
      totals(along_b, sums);
      const Spread<GROUP_BACK> dp(sums);
      for (size_t i = 0; i < width; i += LANES) {
        const Lanes a_i = load(a + i), base_i = load(base + i), rest_i = load(rest + i);
        Lanes da_i = load(da + i);
#pragma GCC unroll 4
        for (size_t each = 0; each < GROUP_BACK; ++each) {
          const size_t place = each * width + i;
          const Lanes g = load(g_at + place);
          da_i += load(s_at + place) * dp.rows[each];
          store(g_at + place, (g * base_i + g * rest_i) + dp.rows[each] * a_i);
        }
        store(da + i, da_i);
      }
    }
  }
}

/** What a unit works with, of one size for all its heads. */
template <class Kind>
class Head {
 public:
  explicit Head(const Kind& kind)
      : kind_(kind), tokens_(kind.v.shape[1]), height_(kind.v.shape[3]), width_(kind.width), room_(room(kind.width)),
        chunk_(std::max<size_t>(1, std::ceil(std::sqrt(double(tokens_))))),
        rows_((height_ + GROUP - 1) / GROUP * GROUP), block_(rows_of_block()),
        memory_((2 + (tokens_ + chunk_ - 1) / chunk_) * rows_ * room_ + (chunk_ + 1) * block_ * room_),
        described_(chunk_, Token(room_)), found_(chunk_, Token(room_)), v_(chunk_ * rows_), recalled_(chunk_ * rows_),
        dy_(chunk_ * rows_), dv_(chunk_ * rows_) {}

  /** The gradients of a head of a sequence; `in` are the inputs, dy and dlast. */
  void run(const Views& in, size_t head, const std::vector<float*>& to) {
    const float *const dy = in[in.size() - 2].data, *const dlast = in.back().data;
    float* const dv = to[&kind_.v - &in[0]];
    const size_t corner = head * height_ * width_;
    std::fill_n(G(), rows_ * room_, 0.0f);  // beyond the last row and column too, for NaN * 0 is NaN
    copy(G(), room_, dlast + corner, width_, height_, width_);
    checkpoint(head, corner);
    for (size_t end = tokens_; end > 0;) {
      const size_t begin = (end - 1) / chunk_ * chunk_, count = end - begin;
      read(head, begin, end);
      for (size_t i = 0; i < count; ++i) {
        std::copy_n(dy + place(head, begin + i) * height_, height_, &dy_[i * rows_]);
        found_[i].clear();
      }
      for (size_t first = 0; first < rows_; first += block_) {
        step_block(begin / chunk_, count, first, std::min(block_, rows_ - first));
      }
      for (size_t i = 0; i < count; ++i) {
        const size_t at = place(head, begin + i);
        std::copy_n(&dv_[i * rows_], height_, dv + at * height_);
        kind_.add_gradients(described_[i], found_[i], at, to);
      }
      end = begin;
    }
    copy(to[0] + corner, width_, G(), room_, height_, width_);
  }

 private:
  /** As many rows as keep their states in the cache, in blocks of one size. */
  size_t rows_of_block() const {
    const size_t fitting = std::max<size_t>(1, NUMBERS / ((chunk_ + 1) * std::max<size_t>(1, room_) * GROUP));
    const size_t groups = std::max<size_t>(1, rows_ / GROUP), blocks = (groups + fitting - 1) / fitting;
    return (groups + blocks - 1) / blocks * GROUP;
  }

  size_t place(size_t head, size_t t) const {
    return (head / kind_.heads * tokens_ + t) * kind_.heads + head % kind_.heads;
  }

  /** Of all rows: the gradient of a state, a state, and those before every chunk. */
  float* G() { return memory_.data(); }
  float* running() { return memory_.data() + rows_ * room_; }
  float* kept(size_t chunk) { return memory_.data() + (2 + chunk) * rows_ * room_; }
  /** The states of a block before token `i` of a chunk. */
  float* state(size_t i) { return kept((tokens_ + chunk_ - 1) / chunk_) + i * block_ * room_; }

  /** Read the tokens of a chunk, one behind the other: between steps, each would be waited for. */
  void read(size_t head, size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      kind_.read(described_[t - begin], place(head, t));
      std::copy_n(kind_.v.data + place(head, t) * height_, height_, &v_[(t - begin) * rows_]);
    }
  }

  /** All states before a chunk. */
  void checkpoint(size_t head, size_t corner) {
    std::fill_n(running(), rows_ * room_, 0.0f);
    copy(running(), room_, kind_.state.data + corner, width_, height_, width_);
    for (size_t begin = 0; begin < tokens_; begin += chunk_) {
      std::copy_n(running(), rows_ * room_, kept(begin / chunk_));
      if (begin + chunk_ < tokens_) {
        read(head, begin, begin + chunk_);
        for (size_t i = 0; i < chunk_; ++i) {
          step<Kind::RECALLS>(rows_, room_, running(), running(), described_[i], &v_[i * rows_], &recalled_[i * rows_]);
        }
      }
    }
  }

  /** The tokens of a chunk, forwards to know the states, and back. */
  void step_block(size_t chunk, size_t count, size_t first, size_t rows) {
    std::copy_n(kept(chunk) + first * room_, rows * room_, state(0));
    for (size_t i = 0; i < count; ++i) {
      const size_t at = i * rows_ + first;
      step<Kind::RECALLS>(rows, room_, state(i), state(i + 1), described_[i], &v_[at], &recalled_[at]);
    }
    for (size_t i = count; i-- > 0;) {
      const size_t at = i * rows_ + first;
      step_back<Kind::RECALLS>(rows, room_, G() + first * room_, state(i), state(i + 1), described_[i], &v_[at],
                               &recalled_[at], &dy_[at], &dv_[at], found_[i]);
    }
  }

  const Kind& kind_;
  const size_t tokens_, height_, width_, room_, chunk_;
  const size_t rows_, block_;  // of a state up to whole groups, and of a block
  Scratch memory_;
  std::vector<Token> described_, found_;
  std::vector<float> v_, recalled_, dy_, dv_;
};

template <class Kind>
void run(const Views& in, const std::vector<float*>& out) {
  const Kind kind(in);
  const size_t batch = kind.v.shape[0], tokens = kind.v.shape[1], height = kind.v.shape[3];
  const size_t groups = kind.groups, share = kind.heads / groups;
  const size_t parts = std::min(share, std::max<size_t>(1, UNITS / std::max<size_t>(1, batch * groups)));
  const size_t size = batch * tokens * groups * kind.width;  // of an input that heads share
  for (size_t i = 0; i < out.size(); ++i) {
    size_t count = 1;
    for (const int length : in[i].shape) {
      count *= length;
    }
    std::fill_n(out[i], count, 0.0f);
  }
  Scratch sums(2 * (parts - 1) * size);
  std::fill_n(sums.data(), 2 * (parts - 1) * size, 0.0f);

  const size_t work = batch * kind.heads * tokens * height * kind.width * (Kind::RECALLS ? 16 : 8);
  in_parallel(batch * groups * parts, work, [&](size_t unit) {
    const size_t group = unit / parts, part = unit % parts;
    auto to = out;
    if (part > 0) {
      to[Kind::SHARED[0]] = sums.data() + 2 * (part - 1) * size;
      to[Kind::SHARED[1]] = to[Kind::SHARED[0]] + size;
    }
    Head<Kind> work_on(kind);
    for (size_t head = part * share / parts; head < (part + 1) * share / parts; ++head) {
      work_on.run(in, group * share + head, to);
    }
  });
  for (size_t part = 1; part < parts; ++part) {
    for (size_t each = 0; each < 2; ++each) {
      add(out[Kind::SHARED[each]], sums.data() + (2 * (part - 1) + each) * size, size);
    }
  }
}

const Definition SSD_SCAN{"SSDScanVJP", run<SSD>, {0, 1, 2, 3, 4}};
const Definition GATED_DELTA_RULE{"GatedDeltaRuleVJP", run<GatedDeltaRule>, {0, 1, 2, 3, 4, 5}};
const Definition WKV_7{"WKV7VJP", run<WKV7>, {0, 1, 2, 3, 4, 5, 6}};

/** The inputs with the gradients that arrive at the outputs. */
Arrays with(Arrays inputs, size_t like_y, const array& dy, const array& dlast) {
  expect(dy, "dy", inputs[like_y].shape());
  expect(dlast, "dlast", inputs[0].shape());
  inputs.push_back(dy);
  inputs.push_back(dlast);
  return inputs;
}

}  // namespace

Arrays ssd_scan_vjp(const array& state, const array& log_decay, const array& u, const array& B, const array& C,
                    const array& dy, const array& dlast) {
  return recurrence(SSD_SCAN, with(ssd_inputs(state, log_decay, u, B, C), 2, dy, dlast));
}

Arrays gated_delta_rule_vjp(const array& state, const array& q, const array& k, const array& v, const array& log_g,
                            const array& beta, const array& dy, const array& dlast) {
  auto found = recurrence(GATED_DELTA_RULE, with(delta_inputs(state, q, k, v, log_g, beta), 3, dy, dlast));
  found[4] = mx::reshape(found[4], log_g.shape(), mx::Device::cpu);
  return found;
}

Arrays wkv7_vjp(const array& state, const array& r, const array& log_w, const array& k, const array& v, const array& a,
                const array& b, const array& dy, const array& dlast) {
  return recurrence(WKV_7, with(wkv7_inputs(state, r, log_w, k, v, a, b), 4, dy, dlast));
}

}  // namespace axon
