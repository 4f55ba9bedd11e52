"""Run the credit service: ``python -m services.credit``."""

from services.credit.service import service

if __name__ == "__main__":
    service.run()
