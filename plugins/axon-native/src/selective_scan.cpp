/** The selective scan of Mamba-1 (Gu and Dao 2023, "Mamba", section 3): for every channel, with N states,
 *
 *     h_n = exp(dt * A_n) * h_n + B_n * u        y = sum_n C_n * h_n
 *
 * A unit is some neighbouring channels of a sequence, from the first token to the last: their states stay in the cache,
 * and what is read of dt and u and written of y lies side by side. The states lie with the channels innermost.
 */
#include "selective_scan.h"

#include "lanes.h"

namespace axon {

namespace {

/** Channels of a unit: their states and as many numbers of A are 8 KiB for 16 states. */
constexpr size_t BLOCK = 8 * LANES;

/** One token of a block: `h` and `A` are (N, BLOCK), the others BLOCK channels, and N numbers of B and C. */
void token(size_t states, float* h, const float* A, const float* dt, const float* u, const float* B, const float* C,
           float* y) {
  for (size_t at = 0; at < BLOCK; at += 2 * LANES) {
    const Lanes step[2] = {load(dt + at), load(dt + at + LANES)};
    const Lanes drive[2] = {load(u + at), load(u + at + LANES)};
    Lanes sum[2] = {};
    for (size_t n = 0; n < states; ++n) {
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

/** Some channels of a sequence, from the first token to the last. */
void channels(const Views& in, size_t sequence, size_t first, float* y, float* last) {
  const size_t tokens = in[U].shape[1], E = in[U].shape[2], N = in[A_].shape[0], count = std::min(BLOCK, E - first);
  std::vector<float> A(N * BLOCK), h(N * BLOCK);
  copy(A.data(), BLOCK, in[A_].data + first, E, N, count);
  copy(h.data(), BLOCK, in[STATE].data + sequence * N * E + first, E, N, count);
  // A block that is not full works on copies of its tokens, whose missing channels are zeros.
  float steps[BLOCK] = {}, drives[BLOCK] = {}, made[BLOCK];
  for (size_t t = 0; t < tokens; ++t) {
    const size_t at = sequence * tokens + t, channel = at * E + first;
    const float *dt = in[DT].data + channel, *u = in[U].data + channel;
    const float *B = in[B_].data + at * N, *C = in[C_].data + at * N;
    if (count < BLOCK) {
      std::copy_n(dt, count, steps);
      std::copy_n(u, count, drives);
      token(N, h.data(), A.data(), steps, drives, B, C, made);
      std::copy_n(made, count, y + channel);
    } else {
      token(N, h.data(), A.data(), dt, u, B, C, y + channel);
    }
  }
  copy(last + sequence * N * E + first, E, h.data(), BLOCK, N, count);
}

void run(const Views& in, const std::vector<float*>& out) {
  const size_t sequences = in[U].shape[0], tokens = in[U].shape[1], E = in[U].shape[2], N = in[A_].shape[0];
  const size_t blocks = (E + BLOCK - 1) / BLOCK, work = sequences * tokens * E * N * 4;
  in_parallel(sequences * blocks, work, [&](size_t unit) {
    channels(in, unit / blocks, unit % blocks * BLOCK, out[0], out[1]);
  });
}

const Definition SELECTIVE_SCAN{"SelectiveScan", run, {U, STATE}};

}  // namespace

Arrays scan_inputs(const array& A, const array& state, const array& dt, const array& u, const array& B,
                   const array& C) {
  if (u.ndim() != 3 || A.ndim() != 2) {
    throw std::invalid_argument("u should be (Bt, L, E), and A (N, E)");
  }
  const int sequences = u.shape(0), tokens = u.shape(1), channels = u.shape(2), states = A.shape(0);
  expect(A, "A", {states, channels});
  expect(state, "state", {sequences, states, channels});
  expect(dt, "dt", u.shape());
  expect(B, "B", {sequences, tokens, states});
  expect(C, "C", {sequences, tokens, states});
  return {A, state, dt, u, B, C};
}

Arrays selective_scan(const array& A, const array& state, const array& dt, const array& u, const array& B,
                      const array& C) {
  return recurrence(SELECTIVE_SCAN, scan_inputs(A, state, dt, u, B, C));
}

}  // namespace axon
