"""Routes that come with every service, for operators."""
