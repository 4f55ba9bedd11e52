"""From a delivery to its acknowledgement: what a subscriber is made of."""
