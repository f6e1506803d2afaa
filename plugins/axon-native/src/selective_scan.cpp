/** The selective scan of Mamba-1 (Gu and Dao 2023, "Mamba", section 3): for every channel, with N states,
 *
 *     h_n = exp(dt * A_n) * h_n + B_n * u        y = sum_n C_n * h_n
 *
 * A unit is some neighbouring channels of a sequence, from the first token to the last: their states stay in the cache,
 * and what is read of dt and u and written of y lies side by side. The states lie with the channels innermost.
 */
#include "lanes.h"
#include "recurrence.h"
#include "recurrences.h"

namespace axon {

namespace {

/** Channels of a unit: their states and as many numbers of A are 8 KiB for 16 states. */
constexpr size_t BLOCK = 8 * LANES;

struct Sizes {
  size_t sequences, tokens, channels, states;
};

/** Copies `rows` rows of `count` numbers, which lie `from_stride` and then `to_stride` apart. */
void copy(float* to, size_t to_stride, const float* from, size_t from_stride, size_t rows, size_t count) {
  for (size_t row = 0; row < rows; ++row) {
    std::memcpy(to + row * to_stride, from + row * from_stride, count * sizeof(float));
  }
}

/** One token of a block: `h` and `A` are (N, BLOCK), the others BLOCK channels, and N numbers of B and C. */
void token(const Sizes& sizes, float* h, const float* A, const float* dt, const float* u, const float* B,
           const float* C, float* y) {
  for (size_t at = 0; at < BLOCK; at += 2 * LANES) {
    const Lanes step[2] = {load(dt + at), load(dt + at + LANES)};
    const Lanes drive[2] = {load(u + at), load(u + at + LANES)};
    Lanes sum[2] = {};
    for (size_t n = 0; n < sizes.states; ++n) {
      for (int half = 0; half < 2; ++half) {
        float* state = h + n * BLOCK + at + half * LANES;
        const Lanes before = load(state), lost = decay_less_one(step[half] * load(A + n * BLOCK + at + half * LANES));
        const Lanes next = (before + lost * before) + B[n] * drive[half];
        sum[half] += C[n] * next;
        store(state, next);
      }
    }
    store(y + at, sum[0]);
    store(y + at + LANES, sum[1]);
  }
}

void run(const std::vector<View>& in, float* y, float* last) {
  const auto& shape = in[3].shape;
  const Sizes sizes{size_t(shape[0]), size_t(shape[1]), size_t(shape[2]), size_t(in[0].shape[0])};
  const size_t blocks = (sizes.channels + BLOCK - 1) / BLOCK;
  in_parallel(sizes.sequences * blocks, sizes.sequences * sizes.tokens * sizes.channels * sizes.states * 4, [&](size_t i) {
    const size_t sequence = i / blocks, first = i % blocks * BLOCK;
    const size_t count = std::min(BLOCK, sizes.channels - first), N = sizes.states;
    std::vector<float> A(N * BLOCK), h(N * BLOCK);
    copy(A.data(), BLOCK, in[0].data + first, sizes.channels, N, count);
    copy(h.data(), BLOCK, in[1].data + sequence * N * sizes.channels + first, sizes.channels, N, count);
    // A block that is not full works on copies of its tokens, whose missing channels are zeros.
    float dt[BLOCK] = {}, u[BLOCK] = {}, made[BLOCK];
    for (size_t t = 0; t < sizes.tokens; ++t) {
      const size_t at = sequence * sizes.tokens + t, channel = at * sizes.channels + first;
      const float *steps = in[2].data + channel, *drives = in[3].data + channel;
      if (count < BLOCK) {
        copy(dt, 0, steps, 0, 1, count);
        copy(u, 0, drives, 0, 1, count);
        token(sizes, h.data(), A.data(), dt, u, in[4].data + at * N, in[5].data + at * N, made);
        copy(y + channel, 0, made, 0, 1, count);
      } else {
        token(sizes, h.data(), A.data(), steps, drives, in[4].data + at * N, in[5].data + at * N, y + channel);
      }
    }
    copy(last + sequence * N * sizes.channels + first, sizes.channels, h.data(), BLOCK, N, count);
  });
}

const Definition SELECTIVE_SCAN{"SelectiveScan", run, 3, 1};

}  // namespace

std::vector<mx::array> selective_scan(const mx::array& A, const mx::array& state, const mx::array& dt,
                                      const mx::array& u, const mx::array& B, const mx::array& C) {
  if (u.ndim() != 3 || A.ndim() != 2) {
    throw std::invalid_argument("u should be (Bt, L, E), and A (N, E)");
  }
  const int sequences = u.shape(0), tokens = u.shape(1), channels = u.shape(2), states = A.shape(0);
  expect(A, "A", {states, channels});
  expect(state, "state", {sequences, states, channels});
  expect(dt, "dt", u.shape());
  expect(B, "B", {sequences, tokens, states});
  expect(C, "C", {sequences, tokens, states});
  return recurrence(SELECTIVE_SCAN, {A, state, dt, u, B, C});
}

}  // namespace axon
