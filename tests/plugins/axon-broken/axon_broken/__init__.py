"""Needs a package that is not there."""

import package_that_is_not_there  # noqa: F401
