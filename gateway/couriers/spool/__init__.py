"""The spool: messages that the fleet could not take for now, kept on disk until it can."""
