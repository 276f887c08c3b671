"""The SMTP sensor: hears greets and data events, keeps them in a spool, delivers them."""
