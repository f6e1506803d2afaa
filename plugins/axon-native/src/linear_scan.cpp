/** The plain linear recurrence of RG-LRU (De et al. 2024, "Griffin"), and its gradient: for every channel
 *
 *     h_t = a_t h_{t-1} + x_t        dx_t = dy_t + a_{t+1} dx_{t+1}        dlog a_t = a_t dx_t h_{t-1}
 *
 * The outputs are the states, so nothing is computed again. A unit is some neighbouring channels of a sequence, from the
 * first token to the last or back.
 */
#include <algorithm>

#include "lanes.h"
#include "recurrence.h"

namespace axon {

namespace {

/** Channels of a unit: with fewer, reading a token of it would be mostly waiting for memory. */
constexpr size_t BLOCK = 32 * LANES;

enum Input : size_t { STATE, X, LOG_A };
enum ArrivingInput : size_t { LOGS = 1, Y, DY, DLAST };

/** Calls `unit(sequence, first channel, how many)` for all of an array (B, L, E). */
template <class Unit>
void by_channels(const mx::Shape& shape, Unit unit) {
  const size_t E = shape[2], blocks = (E + BLOCK - 1) / BLOCK;
  in_parallel(shape[0] * blocks, size_t(shape[0]) * shape[1] * E * 8, [&](size_t i) {
    const size_t first = i % blocks * BLOCK;
    unit(i / blocks, first, std::min(BLOCK, E - first));
  });
}

/** Both parts of the decays of some channels. */
struct Decays {
  void read(const float* log, size_t count) {
    std::copy_n(log, count, rest);
    for (size_t i = 0; i < count; i += LANES) {
      const Decay w(load(rest + i));
      store(base + i, w.base);
      store(rest + i, w.rest);
    }
  }

  float base[BLOCK] = {}, rest[BLOCK] = {};
};

void run(const Views& in, const std::vector<float*>& out) {
  const size_t tokens = in[X].shape[1], E = in[X].shape[2];
  by_channels(in[X].shape, [&](size_t sequence, size_t first, size_t count) {
    float h[BLOCK];
    Decays w;
    std::copy_n(in[STATE].data + sequence * E + first, count, h);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t at = (sequence * tokens + t) * E + first;
      const float* x = in[X].data + at;
      w.read(in[LOG_A].data + at, count);
      for (size_t i = 0; i < count; ++i) {
        h[i] = (h[i] * w.base[i] + h[i] * w.rest[i]) + x[i];
      }
      std::copy_n(h, count, out[0] + at);
    }
    std::copy_n(h, count, out[1] + sequence * E + first);
  });
}

/** Gradients of the state, of x and of the logarithms. */
void run_back(const Views& in, const std::vector<float*>& out) {
  const size_t tokens = in[Y].shape[1], E = in[Y].shape[2];
  by_channels(in[Y].shape, [&](size_t sequence, size_t first, size_t count) {
    float g[BLOCK];
    Decays w;
    std::copy_n(in[DLAST].data + sequence * E + first, count, g);
    for (size_t t = tokens; t-- > 0;) {
      const size_t at = (sequence * tokens + t) * E + first;
      const float *dy = in[DY].data + at, *before = t > 0 ? in[Y].data + at - E : in[STATE].data + sequence * E + first;
      float *dx = out[X] + at, *dlog = out[2] + at;
      w.read(in[LOGS].data + at, count);
      for (size_t i = 0; i < count; ++i) {
        const float arrived = g[i] + dy[i];
        dx[i] = arrived;
        g[i] = arrived * w.base[i] + arrived * w.rest[i];
        dlog[i] = g[i] * before[i];
      }
    }
    std::copy_n(g, count, out[STATE] + sequence * E + first);
  });
}

const Definition LINEAR_SCAN{"LinearScan", run, {X, STATE}};
const Definition LINEAR_SCAN_VJP{"LinearScanVJP", run_back, {STATE, Y, LOGS}};

}  // namespace

Arrays linear_scan(const array& state, const array& x, const array& log_a) {
  if (x.ndim() != 3) {
    throw std::invalid_argument("x should be (B, L, E)");
  }
  expect(log_a, "log_a", x.shape());
  expect(state, "state", {x.shape(0), x.shape(2)});
  return recurrence(LINEAR_SCAN, {state, x, log_a});
}

Arrays linear_scan_vjp(const array& state, const array& log_a, const array& y, const array& dy, const array& dlast) {
  if (y.ndim() != 3) {
    throw std::invalid_argument("y should be (B, L, E)");
  }
  expect(log_a, "log_a", y.shape());
  expect(dy, "dy", y.shape());
  expect(state, "state", {y.shape(0), y.shape(2)});
  expect(dlast, "dlast", state.shape());
  return recurrence(LINEAR_SCAN_VJP, {state, log_a, y, dy, dlast});
}

}  // namespace axon
