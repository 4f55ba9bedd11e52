"""Messages that could not be handled: stored, looked at, edited, replayed, discarded."""
