"""A path of the first design: what it names lives in `shared.platform.errors.notification`."""

from shared.platform.errors.notification import *  # noqa: F403
