"""What the parameters of built-in components can be made from: declared here, computed in `axon_core.transfers`."""
