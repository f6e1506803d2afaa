// MLX includes it and names its namespace; the kernels use nothing of it.

#pragma once

namespace cooperative_groups {}
