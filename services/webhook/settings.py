"""Settings of the webhook service."""

from pydantic import Field, SecretStr

from shared.config import Section, ServiceSettings

__all__ = ["ShopifySettings", "WebhookSettings"]


class ShopifySettings(Section):
    """Which shops are known, each with the secret its webhooks are signed with."""

    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    """Shop domain to secret; a shop that is not here is refused."""
    plans: dict[str, int] = Field(default_factory=dict)
    """Name of a plan to the credits that a paid period of it carries."""
    plan_credits: int = Field(default=500, ge=0)
    """The credits of a plan that is not in `plans`."""


class WebhookSettings(ServiceSettings):
    """The chassis' settings and ``shopify``."""

    shopify: ShopifySettings = ShopifySettings()
