"""The first design: its classes, on what stands in their place today, and its paths."""
