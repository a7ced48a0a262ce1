"""The admin process: HTTP for metrics and health."""
