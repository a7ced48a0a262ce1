"""relay-gateway: the SMTP front door of a sending fleet. docs/architecture.md says where everything is."""

__version__ = "0.1.0"
