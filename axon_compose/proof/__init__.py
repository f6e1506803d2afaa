"""What can only be found by running: `check`, `verify` against other implementations, `bench`, `doctor`.

What comes in: a `Compiled`, or a checkpoint. What goes out: reports as plain data. It writes nothing but temporary
folders, and never formats text: that is the business of `axon_compose.report`.
"""
