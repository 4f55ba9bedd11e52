"""A path of the first design: what it names lives in `shared.platform.scheduler`."""

from shared.platform.scheduler import *  # noqa: F403
