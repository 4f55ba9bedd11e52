"""The first design's paths to `shared.idempotency` and `shared.logging`."""
