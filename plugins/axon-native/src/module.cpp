#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "mlx/version.h"
#include "attention_of_one.h"
#include "few_tokens.h"
#include "passes.h"
#include "product.h"
#include "recurrences.h"
#include "selective_layer.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_kernels, m) {
  nb::module_::import_("mlx.core");  // which tells nanobind about arrays
  if (!nb::type<mlx::core::array>().is_valid()) {
    throw nb::import_error("axon-native was built with another nanobind than mlx and does not know its arrays");
  }
  m.attr("BUILT_FOR") = nb::make_tuple(MLX_VERSION_MAJOR, MLX_VERSION_MINOR, MLX_VERSION_PATCH);
  m.def("selective_scan", &axon::selective_scan, "A"_a, "state"_a, "dt"_a, "u"_a, "B"_a, "C"_a);
  m.def("selective_scan_vjp", &axon::selective_scan_vjp, "A"_a, "state"_a, "dt"_a, "u"_a, "B"_a, "C"_a, "dy"_a,
        "dlast"_a);
  m.def("linear_scan", &axon::linear_scan, "state"_a, "x"_a, "log_a"_a);
  m.def("linear_scan_vjp", &axon::linear_scan_vjp, "state"_a, "log_a"_a, "y"_a, "dy"_a, "dlast"_a);
  m.def("ssd_scan_vjp", &axon::ssd_scan_vjp, "state"_a, "log_decay"_a, "u"_a, "B"_a, "C"_a, "dy"_a, "dlast"_a);
  m.def("gated_delta_rule_vjp", &axon::gated_delta_rule_vjp, "state"_a, "q"_a, "k"_a, "v"_a, "log_g"_a, "beta"_a,
        "dy"_a, "dlast"_a);
  m.def("wkv7_vjp", &axon::wkv7_vjp, "state"_a, "r"_a, "log_w"_a, "k"_a, "v"_a, "a"_a, "b"_a, "dy"_a, "dlast"_a);
  m.def("ssd_scan", &axon::ssd_scan, "state"_a, "log_decay"_a, "u"_a, "B"_a, "C"_a);
  m.def("gated_delta_rule", &axon::gated_delta_rule, "state"_a, "q"_a, "k"_a, "v"_a, "log_g"_a, "beta"_a);
  m.def("wkv7", &axon::wkv7, "state"_a, "r"_a, "log_w"_a, "k"_a, "v"_a, "a"_a, "b"_a);
  m.def("product", &axon::product, "x"_a, "weight"_a, "scales"_a = nb::none(), "biases"_a = nb::none(),
        "indices"_a = nb::none(), "group_size"_a = 0, "bits"_a = 0, "mode"_a = "");
  m.def("rms_norm", &axon::rms_norm, "x"_a, "weight"_a, "eps"_a, "offset"_a = 0.0f);
  m.def("layer_norm", &axon::layer_norm, "x"_a, "weight"_a, "bias"_a, "eps"_a);
  m.def("gated", &axon::gated, "gate"_a, "factor"_a, "activation"_a);
  m.def("activated", &axon::activated, "x"_a, "activation"_a);
  m.def("causal_convolution", &axon::causal_convolution, "x"_a, "state"_a, "weight"_a, "bias"_a, "dilation"_a = 1);
  m.def("likelihood", &axon::likelihood, "logits"_a, "tokens"_a);
  m.def("rotation", &axon::rotation, "x"_a, "cosines"_a, "sines"_a, "pairs"_a, "traditional"_a = false);
  m.def("causal_attention", &axon::causal_attention, "queries"_a, "keys"_a, "values"_a, "scale"_a,
        "window"_a = nb::none());
  m.def("attention_of_one", &axon::attention_of_one, "queries"_a, "keys"_a, "values"_a, "scale"_a,
        "sinks"_a = nb::none(), "tokens"_a = 0, "output"_a = nb::none(), "base"_a = nb::none());
  m.def("with_token", &axon::with_token, "kept"_a, "token"_a, "place"_a);
  m.def("gated_mlp", &axon::gated_mlp, "x"_a, "gate"_a, "up"_a, "down"_a, "activation"_a,
        "norm"_a = nb::none(), "adds"_a = false);
  m.def("gated_experts", &axon::gated_experts, "x"_a, "indices"_a, "weights"_a, "gate"_a, "up"_a, "down"_a,
        "activation"_a);
  m.def("routed_experts", &axon::routed_experts, "x"_a, "router"_a, "experts"_a, "activation"_a, "routing"_a,
        "shared"_a = nb::none(), "shared_gate"_a = nb::none(), "norm"_a = nb::none(), "adds"_a = false);
  m.def("projected_heads", &axon::projected_heads, "x"_a, "queries"_a, "keys"_a, "values"_a, "heads"_a,
        "turn"_a = nb::none(), "pairs"_a = 0, "traditional"_a = false, "norm"_a = nb::none(),
        "query_norm"_a = nb::none(), "key_norm"_a = nb::none());
  m.def("selective_layer", &axon::selective_layer, "x"_a, "conv_state"_a, "state"_a, "projections"_a, "taps"_a, "A_log"_a,
        "D"_a, "step_first"_a, "norms"_a, "steps"_a, "norm"_a = nb::none(), "adds"_a = false);
  m.def("product_kernels", &axon::product_kernels);
  m.def("most_threads", &axon::most_threads);
}
