"""A path of the first design; what it names lives in `shared.platform` and `shared.legacy`."""

from shared.legacy.events.catalog import *  # noqa: F403
from shared.platform.catalog import *  # noqa: F403
