"""Parameters made from those of another component, in NumPy: what the records of `axon_core.specs.transfers` name.

Each function is called as `make(case, arrays, rng)` with float32 arrays of the source by name, and gives those of the
new component. `case` is an `axon_compose.registry.Case`.
"""
