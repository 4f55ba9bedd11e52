"""Routes for operators that need the message bus."""
