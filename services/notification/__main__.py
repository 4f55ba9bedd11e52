"""Run the notification service: ``python -m services.notification``."""

from services.notification.service import service

if __name__ == "__main__":
    service.run()
