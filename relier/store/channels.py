"""How control channels are subscribed to, used and counted: a Redis Cluster does it by the slot of their name."""

from __future__ import annotations

from typing import NamedTuple


class Channels(NamedTuple):
    """The words of one kind of publish and subscribe."""

    subscribe: str
    publish: str
    numsub: str  #: subcommand of PUBSUB
    message: bytes  #: kind of what a subscriber gets
    over: bytes  #: kind of what ends a subscription that nobody asked to end


GLOBAL = Channels("SUBSCRIBE", "PUBLISH", "NUMSUB", b"message", b"unsubscribe")
#: On a cluster: one server alone knows the subscribers of a slot's channels.
SHARDED = Channels("SSUBSCRIBE", "SPUBLISH", "SHARDNUMSUB", b"smessage", b"sunsubscribe")
