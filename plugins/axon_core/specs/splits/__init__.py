"""How the built-in components are split over devices, one module a theme."""
