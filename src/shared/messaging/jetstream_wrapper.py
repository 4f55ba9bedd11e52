"""A path of the first design; `shared.legacy.table` says where its names live."""

from shared.legacy.messaging.jetstream_wrapper import JetStreamWrapper, T

__all__ = ["JetStreamWrapper", "T"]
