"""The revisions of a service that keeps nothing but outbox and inbox."""
