"""A path of the first design: what it names lives in `shared.platform.errors.catalog`."""

from shared.platform.errors.catalog import *  # noqa: F403
