"""How the built-in components are split over devices: what records have as `split`."""
