/** Work that several threads share. */
#pragma once

#include <cstddef>
#include <functional>

namespace axon {

/** Runs units 0 ... count - 1 on as many threads as the process may use, or on this one if there is little to do.
 *
 * `work` is about how many multiplications all of them are.
 */
void in_parallel(size_t count, size_t work, const std::function<void(size_t)>& unit);

/** Threads that a call takes at most.
 *
 * The environment variable `AXON_THREADS`, or else `OMP_NUM_THREADS`; without them the processors that this process may
 * run on, and no more than its control group grants.
 */
size_t most_threads();

}  // namespace axon
