/** Gradients of the recurrences whose state is a matrix S for each head. With G that of a state,
 *
 *     G = G + dy r^T      dr = S^T dy     dv = G k    dk = G^T v      dw = columns of G * S'    S': the state before
 *     dp = G b            db = G^T p      da = S'^T dp                                          p = S' a: what is recalled
 *     G = G diag(w) + dp a^T
 *
 * from the last token to the first. The states are computed again, from checkpoints of every chunk: with about the
 * root of L tokens in a chunk, checkpoints and the states of a chunk are as many, and both stay in the cache.
 *
 * A unit is a few heads that share their keys, some rows at a time; S lies with the columns innermost, for most of the
 * gradients are sums over rows. Units that share keys add up what they find in arrays of their own, which are then
 * added in their order: how many there are depends on the shapes alone, and so does every sum.
 */
#include <cmath>

#include "matrix_states.h"
#include "mlx/ops.h"

namespace axon {

namespace {

/** Rows that are worked on together, so that the vectors of a token are read once for all of them. */
constexpr size_t GROUP = 8, GROUP_BACK = 4;
/** Of the states that a unit works with, so that they stay in the second cache. */
constexpr size_t NUMBERS = 3 << 16;
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

/** What a unit works with, of one size for all rows. */
template <class Kind>
class Block {
 public:
  explicit Block(const Kind& kind)
      : kind_(kind), tokens_(kind.v.shape[1]), height_(kind.v.shape[3]), width_(kind.width), room_(room(kind.width)),
        chunk_(std::max<size_t>(1, std::ceil(std::sqrt(double(tokens_))))), most_(most_rows()), states_(most_ * room_),
        memory_((2 * chunk_ + 3) * states_), described_(chunk_, Token(room_)), found_(room_), v_(chunk_ * most_),
        recalled_(chunk_ * most_), arriving_(most_), leaving_(most_) {}

  /** Rows of a block, except the last. */
  size_t rows() const { return most_; }

  /** The gradients of some rows of a head of a sequence; `in` are the inputs, dy and dlast. */
  void run(const Views& in, size_t head, size_t first, const std::vector<float*>& to) {
    const float *dy = in[in.size() - 2].data, *dlast = in.back().data;
    float* const dv = to[&kind_.v - &in[0]];
    count_ = std::min(most_, height_ - first);
    rows_ = (count_ + GROUP - 1) / GROUP * GROUP;
    const size_t start = (head * height_ + first) * width_;
    float* const G = memory_.data();
    read_rows(dlast + start, G);
    checkpoint(head, first, start);
    std::fill(arriving_.begin(), arriving_.end(), 0.0f);
    for (size_t end = tokens_; end > 0;) {
      const size_t begin = (end - 1) / chunk_ * chunk_;
      states_of(head, first, begin, end);
      for (size_t t = end; t-- > begin;) {
        const size_t i = t - begin, at = place(head, t);
        std::copy_n(dy + at * height_ + first, count_, arriving_.begin());
        found_.clear();
        step_back<Kind::RECALLS>(rows_, room_, G, state(i), state(i + 1), described_[i], &v_[i * most_],
                                 &recalled_[i * most_], arriving_.data(), leaving_.data(), found_);
        std::copy_n(leaving_.begin(), count_, dv + at * height_ + first);
        kind_.add_gradients(described_[i], found_, at, to);
      }
      end = begin;
    }
    write_rows(G, to[0] + start);
  }

 private:
  /** As many as stay in the cache, in blocks of one size. */
  size_t most_rows() const {
    const size_t fitting = std::max<size_t>(1, NUMBERS / ((2 * chunk_ + 3) * std::max<size_t>(1, room_) * GROUP));
    const size_t groups = std::max<size_t>(1, (height_ + GROUP - 1) / GROUP), blocks = (groups + fitting - 1) / fitting;
    return (groups + blocks - 1) / blocks * GROUP;
  }

  size_t place(size_t head, size_t t) const {
    return (head / kind_.heads * tokens_ + t) * kind_.heads + head % kind_.heads;
  }

  /** The state before token `i` of a chunk. */
  float* state(size_t i) { return memory_.data() + (1 + i) * states_; }
  /** That before a chunk. */
  float* kept(size_t chunk) { return memory_.data() + (chunk_ + 2 + chunk) * states_; }

  void read_rows(const float* from, float* to) {
    std::fill_n(to, states_, 0.0f);
    for (size_t row = 0; row < count_; ++row) {
      std::copy_n(from + row * width_, width_, to + row * room_);
    }
  }

  void write_rows(const float* from, float* to) {
    for (size_t row = 0; row < count_; ++row) {
      std::copy_n(from + row * room_, width_, to + row * width_);
    }
  }

  /** Read what the i-th token of a chunk does. */
  void describe(size_t head, size_t first, size_t t, size_t i) {
    kind_.read(described_[i], place(head, t));
    std::fill_n(&v_[i * most_], most_, 0.0f);
    std::copy_n(kind_.v.data + place(head, t) * height_ + first, count_, &v_[i * most_]);
  }

  /** All states before a chunk. */
  void checkpoint(size_t head, size_t first, size_t start) {
    float* const s = state(0);
    read_rows(kind_.state.data + start, s);
    for (size_t t = 0; t < tokens_; ++t) {
      if (t % chunk_ == 0) {
        std::copy_n(s, states_, kept(t / chunk_));
      }
      if (t < (tokens_ - 1) / chunk_ * chunk_) {
        describe(head, first, t, 0);
        step<Kind::RECALLS>(rows_, room_, s, s, described_[0], v_.data(), recalled_.data());
      }
    }
  }

  /** All states of a chunk, and what its tokens recall of them. */
  void states_of(size_t head, size_t first, size_t begin, size_t end) {
    std::copy_n(kept(begin / chunk_), states_, state(0));
    for (size_t t = begin, i = 0; t < end; ++t, ++i) {
      describe(head, first, t, i);
      step<Kind::RECALLS>(rows_, room_, state(i), state(i + 1), described_[i], &v_[i * most_], &recalled_[i * most_]);
    }
  }

  const Kind& kind_;
  const size_t tokens_, height_, width_, room_, chunk_, most_, states_;
  size_t count_ = 0, rows_ = 0;  // of this block, and up to whole groups
  Scratch memory_;
  std::vector<Token> described_;
  Token found_;
  std::vector<float> v_, recalled_, arriving_, leaving_;
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
    Block<Kind> block(kind);
    for (size_t head = part * share / parts; head < (part + 1) * share / parts; ++head) {
      for (size_t first = 0; first < height; first += block.rows()) {
        block.run(in, group * share + head, first, to);
      }
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
