"""Rate limits by client, tenant and route."""
