"""A path of the first design: what it names lives in `shared.legacy.database.config`."""

from shared.legacy.database.config import *  # noqa: F403
