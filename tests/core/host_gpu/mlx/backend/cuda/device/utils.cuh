// What the kernels use of CUDA, and of MLX for it, on the host.

#pragma once

#include "lanes.h"

#define __global__
#define __device__
#define __grid_constant__
#define threadIdx (uint3{host::running->in_group, 0, 0})
#define blockIdx (uint3{host::running->group, 0, 0})
#define blockDim (uint3{host::running->group_size, 1, 1})

inline float expf(float x) { return __builtin_expf(x); }

inline float __shfl_xor_sync(unsigned mask, float x, int other) {
  // Lanes that the mask leaves out would never reach the exchange.
  if (mask != 0xffffffffu) return __builtin_nanf("");
  int lane = host::running->number;
  return host::exchange(x)[lane ^ other];
}

namespace mlx::core::cu {
struct Shape {
  int32_t sizes[8];
  const int32_t& operator[](int i) const { return sizes[i]; }
};
}  // namespace mlx::core::cu

namespace host {
inline mlx::core::cu::Shape shape(const int* sizes) {
  mlx::core::cu::Shape copied{};
  for (int i = 0; i < 4; ++i) copied.sizes[i] = sizes[i];
  return copied;
}
}  // namespace host
