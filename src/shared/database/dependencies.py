"""A path of the first design: what it names lives in `shared.legacy.database.dependencies`."""

from shared.legacy.database.dependencies import *  # noqa: F403
