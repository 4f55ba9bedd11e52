"""The webhook service: the door through which Shopify's webhooks come in."""
