# SMTP line and end-of-data framing.
