"""The notification service: mails, written from templates and sent once."""
