"""A path of the first design: what it names lives in `shared.platform.errors.analysis`."""

from shared.platform.errors.analysis import *  # noqa: F403
