"""A path of the first design: what it names lives in `shared.platform.streams`."""

from shared.platform.streams import *  # noqa: F403
