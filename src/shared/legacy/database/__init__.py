"""Sessions, settings and migrations as the first design had them."""
