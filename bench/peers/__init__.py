"""The servers that are measured side by side: how each is started, with which configuration, and stopped."""
