/** What layers and experts with a gate have in common. */
#pragma once

#include <vector>

#include "matrices.h"
#include "pass.h"
#include "row_passes.h"

namespace axon {

/** down(act(gate(x)) * up(x)) of rows, by the layers of all or by those of each row's expert. */
void gated_rows(const Arrays& in, const LinearInput& gate, const LinearInput& up, const LinearInput& down, Gate act,
                const std::vector<const float*>& x, const std::vector<size_t>& experts, float* y);

}  // namespace axon
