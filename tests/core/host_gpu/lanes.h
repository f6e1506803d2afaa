// The threads of a GPU on one thread of the host: 32 lanes of a SIMD group take turns, and meet where they exchange.

#pragma once

// Little is included, for every kernel is compiled with it.
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

struct uint3 {
  unsigned x, y, z;
};

namespace host {

constexpr int lanes = 32;
constexpr size_t stack_bytes = 1 << 16;

struct Lane {
  ucontext_t context;
  char stack[stack_bytes];
  // Of the lane in its SIMD group, of the group in the launch, of the thread in the group.
  unsigned number, group, group_size, in_group;
  long exchanges;
  bool done;
};

inline Lane all[lanes];
inline Lane* running;
inline ucontext_t scheduler;
inline void (*kernel)();
// Two, for a lane that goes first may be at its next exchange before the last one has read this one.
inline float slots[2][lanes];

// Gives one number of every lane to every lane.
inline const float* exchange(float x) {
  float* met = slots[running->exchanges++ % 2];
  met[running->number] = x;
  swapcontext(&running->context, &scheduler);
  return met;
}

inline void enter() {
  kernel();
  running->done = true;
}

inline void start(Lane& lane) {
  lane.exchanges = 0;
  lane.done = false;
  getcontext(&lane.context);
  lane.context.uc_stack.ss_sp = lane.stack;
  lane.context.uc_stack.ss_size = stack_bytes;
  lane.context.uc_link = &scheduler;
  makecontext(&lane.context, enter, 0);
}

// One SIMD group from start to end; false if its lanes did not reach every exchange together.
inline bool run_simd_group(int count) {
  for (int i = 0; i < count; ++i) start(all[i]);
  for (;;) {
    int done = 0;
    for (int i = 0; i < count; ++i) {
      running = &all[i];
      if (!running->done) swapcontext(&scheduler, &running->context);
      done += running->done;
    }
    for (int i = 0; i < count; ++i) {
      if (all[i].exchanges != all[0].exchanges) return false;
    }
    if (done == count) return all[0].exchanges == 0 || count == lanes;
    if (done) return false;
  }
}

// A launch of `threads` threads, in one dimension. Metal cuts the last group, CUDA fills it up.
inline int launch(unsigned threads, unsigned group, bool filled, void (*body)()) {
  kernel = body;
  for (unsigned first = 0; first < threads; first += group) {
    unsigned end = filled || first + group < threads ? first + group : threads;
    for (unsigned warp = first; warp < end; warp += lanes) {
      int count = end - warp < lanes ? end - warp : lanes;
      for (int i = 0; i < count; ++i) {
        all[i].number = i;
        all[i].group = first / group;
        all[i].group_size = group;
        all[i].in_group = warp - first + i;
      }
      if (!run_simd_group(count)) return 1;
    }
  }
  return 0;
}

}  // namespace host
