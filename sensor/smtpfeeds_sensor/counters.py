"""The sensor's counters, with their names and meanings in one place.

They are in every batch, in the spool for `smtpfeeds sensor status`, and at the metrics endpoint.
They are only numbers, without senders and recipients.
"""

from typing import Final

#: Name → what is counted, since the sensor started.
COUNTERS: Final = {
    # Connections
    "connections": "connections accepted",
    "connections_ignored": "of these, from a network of `ignore`; nothing else counts them",
    "refused_source": "refused: too many at once from one address or /64",
    "refused_total": "refused: too many at once in all",
    "refused_rate": "closed at once: too many in a second",
    "refused_files": "closed at once: the process may open no more files",
    "proxy_unnamed": "a trusted proxy's own (LOCAL, UNKNOWN); nothing else counts them",
    "proxy_invalid": "from a trusted proxy without a valid PROXY header; closed",
    "proxy_silent": "from a trusted proxy that sent nothing for 3 seconds or more, and ended",
    # Events
    "greets": "greet events",
    "datas": "data events",
    "early_talkers": "clients that spoke before the banner",
    "bare_lf": "clients that ended a line by LF alone",
    # Verbs
    "verb_helo": "HELO",
    "verb_ehlo": "EHLO",
    "verb_mail": "MAIL",
    "verb_rcpt": "RCPT",
    "verb_data": "DATA",
    "verb_bdat": "BDAT",
    "verb_rset": "RSET",
    "verb_noop": "NOOP",
    "verb_quit": "QUIT",
    "verb_vrfy": "VRFY",
    "verb_expn": "EXPN",
    "verb_help": "HELP",
    "verb_auth": "AUTH; its argument is never kept",
    "verb_starttls": "STARTTLS",
    "greet_again": "HELO or EHLO again in a connection",
    "data_before_greet": "DATA or BDAT before any greet: no event",
    "data_out_of_order": "DATA without MAIL and RCPT; an event after a greet",
    # Input that is not SMTP, or not valid
    "junk": "connections judged not SMTP: HTTP, header lines, binary",
    "junk_tls": "TLS handshakes on the plain port",
    "body_after_refusal": "clients that sent content though DATA was refused",
    "unknown_commands": "unknown or empty lines",
    "bad_lines": "lines too long, with NUL or 8-bit octets",
    # Bounds reached
    "limit_idle": "closed: idle too long",
    "limit_session": "closed: connected too long",
    "limit_errors": "closed: too many unknown or bad lines",
    "limit_commands": "closed: too many commands",
    "limit_content": "closed: more content than is read",
    "limit_unsent": "dropped: did not read its replies",
    "limit_tls": "STARTTLS answered with 454: too many in TLS",
    # TLS
    "tls_handshakes": "TLS handshakes completed",
    "tls_failures": "TLS handshakes that failed",
    # Spool
    "spool_commits": "commits of the spool",
    "spool_waits": "times replies waited because the spool was locked",
    "spool_outages": "times the spool could not be written and memory took over",
    "spool_replaced": "damaged spools quarantined",
    "events_undated": "events heard while the host's clock was in doubt; dated when it is trusted",
    "events_dropped": "events whose row did not fit in memory meanwhile",
    # Delivery
    "batches_confirmed": "batches the broker confirmed",
    "batches_split": "batches the broker calls too large, sent as smaller ones",
    "batches_too_large": "batches the broker calls too large that cannot be split; held",
    "publish_failures": "attempts to deliver that failed",
    "events_expired": "events dropped from the spool at its bound",
    "replays_dropped": "batches that a replay wanted, dropped from the spool at its bound",
}


def new_counters() -> dict[str, int]:
    """Return all counters at zero."""
    return dict.fromkeys(COUNTERS, 0)
