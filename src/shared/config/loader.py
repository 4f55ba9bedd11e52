"""A path of the first design: what it names lives in `shared.legacy.merged_config`."""

from shared.legacy.merged_config import flatten_config, merged_config

__all__ = ["flatten_config", "merged_config"]
