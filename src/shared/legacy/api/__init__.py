"""The HTTP edge under the names of the first design."""
