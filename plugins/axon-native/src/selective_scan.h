/** What the selective scan and its gradient share. */
#pragma once

#include "recurrence.h"

namespace axon {

/** What both read, or std::invalid_argument if shapes do not fit. */
Arrays scan_inputs(const array& A, const array& state, const array& dt, const array& u, const array& B,
                   const array& C);

/** The inputs by their numbers; the gradient has the last two as well. */
enum Input : size_t { A_, STATE, DT, U, B_, C_, DY, DLAST };

}  // namespace axon
