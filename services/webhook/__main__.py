"""Run the webhook service: ``python -m services.webhook``."""

from services.webhook.service import service

if __name__ == "__main__":
    service.run()
