"""From committed outbox rows to acknowledged messages: the relay and what it is made of."""
