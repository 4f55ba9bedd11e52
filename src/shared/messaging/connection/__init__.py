"""The connection to NATS: the bus, the client, its outages and its errors."""
