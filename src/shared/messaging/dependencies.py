"""A path of the first design: what it names lives in `shared.legacy.messaging.dependencies`."""

from shared.legacy.messaging.dependencies import *  # noqa: F403
