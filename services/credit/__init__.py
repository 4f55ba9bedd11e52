"""The credit service: an account for each merchant, one credit for each order line."""
