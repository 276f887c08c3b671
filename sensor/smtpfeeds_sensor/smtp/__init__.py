"""The SMTP dialogue: octets in, replies and events out. Pure: no clock, socket or reactor."""
