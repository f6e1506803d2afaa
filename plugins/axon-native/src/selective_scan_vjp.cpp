/** The gradient of the selective scan. With g_n that of a state and w_n = exp(dt * A_n), for every channel
 *
 *     g_n = g_n + C_n dy        dC_n = h_n dy     du = sum_n g_n B_n     dB_n = g_n u
 *     g_n = w_n g_n             ddt = sum_n g_n A_n h'_n                 dA_n = sum_t g_n dt h'_n     h': the state before
 *
 * from the last token to the first; dB, dC and dA are summed over channels, sequences or both. The states are computed
 * again, from checkpoints of every chunk: with about the root of L tokens in a chunk, checkpoints and the states of a
 * chunk are as many, and both stay in the cache.
 *
 * A unit is some neighbouring channels of a sequence. Units add up what they find of dA, dB and dC in arrays of their
 * own, which are then added in their order: how many there are depends on the shapes alone, and so does every sum.
 */
#include <cmath>

#include "lanes.h"
#include "selective_scan.h"

namespace axon {

namespace {

/** Channels of a block. */
constexpr size_t BLOCK = 2 * LANES;
constexpr size_t HALVES = BLOCK / LANES;
/** Units of a call at least, where there are as many blocks: enough for the threads of most machines. */
constexpr size_t UNITS = 16;

/** BLOCK numbers of a token, one for each channel. */
struct Channels {
  float dt[BLOCK] = {}, u[BLOCK] = {}, dy[BLOCK] = {};
};

/** From the states `before` to those `after`, (N, BLOCK) each, which may be the same; writes both parts of decays. */
void step(size_t states, const float* A, const float* before, float* after, float* base, float* rest, const Channels& token,
          const float* B) {
  for (size_t n = 0; n < states; ++n) {
    for (size_t half = 0; half < HALVES; ++half) {
      const size_t at = n * BLOCK + half * LANES;
      const Decay w(load(token.dt + half * LANES) * load(A + at));
      const Lanes h = load(before + at);
      store(base + at, w.base);
      store(rest + at, w.rest);
      store(after + at, (h + w.lost * h) + B[n] * load(token.u + half * LANES));
    }
  }
}

/** What a token adds to the gradients. */
struct Found {
  float ddt[BLOCK], du[BLOCK];
  std::vector<float> dB, dC;  // LANES numbers for each state, still to be summed
};

void step_back(size_t states, const float* A, float* g, float* dA, const float* before, const float* after,
               const float* base, const float* rest, const Channels& token, const float* B, const float* C, Found& found) {
  Lanes ddt[HALVES] = {}, du[HALVES] = {}, dt[HALVES], u[HALVES], dy[HALVES];
  for (size_t half = 0; half < HALVES; ++half) {
    dt[half] = load(token.dt + half * LANES);
    u[half] = load(token.u + half * LANES);
    dy[half] = load(token.dy + half * LANES);
  }
  for (size_t n = 0; n < states; ++n) {
    Lanes dB = {}, dC = {};
    for (size_t half = 0; half < HALVES; ++half) {
      const size_t at = n * BLOCK + half * LANES;
      const Lanes arrived = load(g + at) + C[n] * dy[half];
      dC += load(after + at) * dy[half];
      dB += arrived * u[half];
      du[half] += arrived * B[n];
      const Lanes passed = arrived * load(base + at) + arrived * load(rest + at);
      const Lanes through = passed * load(before + at);
      ddt[half] += through * load(A + at);
      store(dA + at, load(dA + at) + through * dt[half]);
      store(g + at, passed);
    }
    store(found.dB.data() + n * LANES, dB);
    store(found.dC.data() + n * LANES, dC);
  }
  for (size_t half = 0; half < HALVES; ++half) {
    store(found.ddt + half * LANES, ddt[half]);
    store(found.du + half * LANES, du[half]);
  }
}

/** Adds the sums of LANES numbers for each state. */
void add_sums(float* to, const float* lanes, size_t states) {
  size_t n = 0;
  for (; n + 4 <= states; n += 4) {
    const float* at = lanes + n * LANES;
    const Lanes four[4] = {load(at), load(at + LANES), load(at + 2 * LANES), load(at + 3 * LANES)};
    float sums[4];
    totals(four, sums);
    for (size_t i = 0; i < 4; ++i) {
      to[n + i] += sums[i];
    }
  }
  for (; n < states; ++n) {
    to[n] += total(load(lanes + n * LANES));
  }
}

/** What a unit works with, of one size for all its blocks. */
class Block {
 public:
  explicit Block(const Views& in)
      : in_(in), tokens_(in[U].shape[1]), E_(in[U].shape[2]), N_(in[A_].shape[0]),
        chunk_(std::max<size_t>(1, std::ceil(std::sqrt(double(tokens_))))), size_(N_ * BLOCK),
        memory_((4 * chunk_ + 7) * size_), described_(chunk_) {
    found_.dB.resize(N_ * LANES);
    found_.dC.resize(N_ * LANES);
  }

  /** The gradients of some channels of a sequence; those of dA, dB and dC are added. */
  void run(size_t sequence, size_t first, const std::vector<float*>& to) {
    sequence_ = sequence;
    first_ = first;
    count_ = std::min(BLOCK, E_ - first);
    const size_t corner = sequence * N_ * E_ + first;
    float *const A = memory_.data(), *const g = A + size_, *const dA = g + size_, *const part = dA + size_;
    std::fill_n(A, 4 * size_, 0.0f);
    copy(A, BLOCK, in_[A_].data + first, E_, N_, count_);
    copy(g, BLOCK, in_[DLAST].data + corner, E_, N_, count_);
    checkpoint(corner);
    for (size_t end = tokens_; end > 0;) {
      const size_t begin = (end - 1) / chunk_ * chunk_;
      std::copy_n(kept(begin / chunk_), size_, state(0));
      read(begin, end);
      for (size_t i = 0; i < end - begin; ++i) {
        step(N_, A, state(i), state(i + 1), base(i), rest(i), described_[i], row(B_, begin + i));
      }
      for (size_t i = end - begin; i-- > 0;) {
        const size_t t = begin + i, at = sequence * tokens_ + t;
        step_back(N_, A, g, part, state(i), state(i + 1), base(i), rest(i), described_[i], row(B_, t), row(C_, t), found_);
        std::copy_n(found_.ddt, count_, to[DT] + at * E_ + first);
        std::copy_n(found_.du, count_, to[U] + at * E_ + first);
        add_sums(to[B_] + at * N_, found_.dB.data(), N_);
        add_sums(to[C_] + at * N_, found_.dC.data(), N_);
      }
      // By chunks, for sums of fewer numbers are rounded less.
      for (size_t i = 0; i < size_; ++i) {
        dA[i] += part[i];
        part[i] = 0.0f;
      }
      end = begin;
    }
    copy(to[STATE] + corner, E_, g, BLOCK, N_, count_);
    copy(to[A_] + sequence * N_ * E_ + first, E_, dA, BLOCK, N_, count_);
  }

 private:
  /** N numbers of a token of B or C. */
  const float* row(Input input, size_t t) const { return in_[input].data + (sequence_ * tokens_ + t) * N_; }
  float* state(size_t i) { return memory_.data() + (4 + i) * size_; }
  float* base(size_t i) { return memory_.data() + (5 + chunk_ + i) * size_; }
  float* rest(size_t i) { return memory_.data() + (5 + 2 * chunk_ + i) * size_; }
  float* kept(size_t chunk) { return memory_.data() + (5 + 3 * chunk_ + chunk) * size_; }

  /** Read the tokens of a chunk, one behind the other: between steps, each would be waited for. */
  void read(size_t begin, size_t end) {
    for (size_t t = begin; t < end; ++t) {
      const size_t at = (sequence_ * tokens_ + t) * E_ + first_;
      Channels& token = described_[t - begin];
      std::copy_n(in_[DT].data + at, count_, token.dt);
      std::copy_n(in_[U].data + at, count_, token.u);
      std::copy_n(in_[DY].data + at, count_, token.dy);
    }
  }

  /** All states before a chunk. */
  void checkpoint(size_t corner) {
    std::fill_n(state(0), size_, 0.0f);
    for (auto& token : described_) {
      token = Channels();
    }
    copy(state(0), BLOCK, in_[STATE].data + corner, E_, N_, count_);
    for (size_t begin = 0; begin < tokens_; begin += chunk_) {
      std::copy_n(state(0), size_, kept(begin / chunk_));
      if (begin + chunk_ < tokens_) {
        read(begin, begin + chunk_);
        for (size_t i = 0; i < chunk_; ++i) {
          step(N_, memory_.data(), state(0), state(0), base(0), rest(0), described_[i], row(B_, begin + i));
        }
      }
    }
  }

  const Views& in_;
  const size_t tokens_, E_, N_, chunk_, size_;
  size_t sequence_ = 0, first_ = 0, count_ = 0;
  Scratch memory_;
  std::vector<Channels> described_;
  Found found_;
};

void run(const Views& in, const std::vector<float*>& out) {
  const size_t batch = in[U].shape[0], tokens = in[U].shape[1], E = in[U].shape[2], N = in[A_].shape[0];
  const size_t blocks = (E + BLOCK - 1) / BLOCK, size = batch * tokens * N;
  const size_t parts = std::min(blocks, std::max<size_t>(1, UNITS / std::max<size_t>(1, batch)));
  // Of dB and dC one for each part, of dA one for each sequence.
  Scratch sums(2 * parts * size + batch * N * E);
  std::fill_n(sums.data(), 2 * parts * size, 0.0f);
  float* const by_sequence = sums.data() + 2 * parts * size;

  in_parallel(batch * parts, batch * tokens * E * N * 16, [&](size_t unit) {
    const size_t part = unit % parts;
    auto to = out;
    to[A_] = by_sequence;
    to[B_] = sums.data() + 2 * part * size;
    to[C_] = to[B_] + size;
    Block block(in);
    for (size_t each = part * blocks / parts; each < (part + 1) * blocks / parts; ++each) {
      block.run(unit / parts, each * BLOCK, to);
    }
  });
  const auto total = [](float* to, const float* from, size_t count, size_t stride, size_t length) {
    std::fill_n(to, length, 0.0f);
    for (size_t each = 0; each < count; ++each) {
      for (size_t i = 0; i < length; ++i) {
        to[i] += from[each * stride + i];
      }
    }
  };
  total(out[B_], sums.data(), parts, 2 * size, size);
  total(out[C_], sums.data() + size, parts, 2 * size, size);
  total(out[A_], by_sequence, batch, N * E, N * E);
}

const Definition SELECTIVE_SCAN{"SelectiveScanVJP", run, {A_, STATE, DT, U, B_, C_}};

}  // namespace

Arrays selective_scan_vjp(const array& A, const array& state, const array& dt, const array& u, const array& B,
                          const array& C, const array& dy, const array& dlast) {
  auto inputs = scan_inputs(A, state, dt, u, B, C);
  expect(dy, "dy", u.shape());
  expect(dlast, "dlast", state.shape());
  inputs.push_back(dy);
  inputs.push_back(dlast);
  return recurrence(SELECTIVE_SCAN, inputs);
}

}  // namespace axon
