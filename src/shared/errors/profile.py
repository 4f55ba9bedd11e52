"""A path of the first design: what it names lives in `shared.platform.errors.profile`."""

from shared.platform.errors.profile import *  # noqa: F403
