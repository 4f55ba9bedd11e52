"""From a message to the acknowledgement that it is stored: what a publisher is made of."""
