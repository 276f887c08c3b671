"""Explain why an address is not in the published feeds. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtpfeeds_common.addresses import format_address
from smtpfeeds_common.times import iso_utc

if TYPE_CHECKING:
    from ..store.query import Exclusion


def why_not_published(
    packed: bytes, exclusions: "Sequence[Exclusion]", *, publish_non_global: bool
) -> str:
    """Return the reason as text; empty if neither the address nor an exclusion is one."""
    if not publish_non_global:
        from ..special_purpose import NOT_GLOBAL, not_global

        if packed in not_global():
            from ipaddress import ip_address, ip_network

            address = ip_address(format_address(packed))
            purpose = next(
                (why for prefix, why in NOT_GLOBAL.items() if address in ip_network(prefix)), ""
            )
            return f"not publicly routable ({purpose})"
    if exclusions:
        first = exclusions[0]
        until = f" until {iso_utc(first.until)}" if first.until else ""
        return f"{first.prefix} is excluded{until}: {first.reason}"
    return ""
