"""A path of the first design: what it names lives in `shared.platform.credit`."""

from shared.platform.credit import *  # noqa: F403
