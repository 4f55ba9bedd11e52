"""A path of the first design: what it names lives in `shared.legacy.database.session`."""

from shared.legacy.database.session import *  # noqa: F403
