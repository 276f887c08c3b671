"""Read from the database the addresses that a publication would contain now, for `filter`.

The server joins them into a few long values, which become columns without a loop. The same sets as
in a publication decide what is left out.
"""

from collections.abc import Collection

import numpy as np

from ..publish.snapshot import LeftOut, window_end, window_start
from ..settings import AggregatorSettings
from ..store.publication import PublicationStore
from .address_set import AddressSet


def stored_addresses(
    settings: AggregatorSettings, store: PublicationStore, feeds: Collection[str]
) -> AddressSet:
    """Return the addresses of some feeds.

    Args:
        settings: what is left out.
        store: the database.
        feeds: only addresses in one of them.
    """
    since = window_start(window_end(store.now()))
    left_out = LeftOut.by_settings(settings, store.exclusions())
    packed4, packed6 = store.addresses(feeds, since)
    four = np.frombuffer(packed4, ">u4").astype(np.uint32)
    high, low = np.frombuffer(packed6, ">u8").reshape(-1, 2).astype(np.uint64).T
    is_left_out = left_out.of_addresses(four, high, low)
    six = np.frombuffer(packed6, "V16")[~is_left_out[len(four) :]]
    return AddressSet(four[~is_left_out[: len(four)]], six.tolist())
