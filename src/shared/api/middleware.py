"""A path of the first design: what it names lives in `shared.legacy.api.middleware`."""

from shared.legacy.api.middleware import *  # noqa: F403
