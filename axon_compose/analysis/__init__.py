"""What a plan shows without running: `cost`, `diff`, `lint`, `comparison`.

What comes in: a `Plan` and its `Document`. What goes out: sheets, differences, advice and tables as plain data. It
allocates nothing and never imports mlx.
"""
