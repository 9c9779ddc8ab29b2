"""A copy of a message in a worker's hands, on a broker of our own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dramatiq import Message
from dramatiq.broker import MessageProxy

from relier.envelope import Stamp
from relier.store.durability import Pledge

if TYPE_CHECKING:
    from relier.deferred import DeferredCommit


class Delivery(MessageProxy):
    """A copy, bound to where it came from: nothing else can acknowledge it.

    Parameters:
      message: the decoded message; its queue name is that of the lane it came by.
      raw: the bytes that came.
    """

    def __init__(self, message: Message[Any], raw: bytes) -> None:
        super().__init__(message)
        self.raw = raw
        # Each is asked for many times, and a proxy's own attributes are found much faster than those behind it.
        self.queue_name, self.actor_name, self.message_id = message.queue_name, message.actor_name, message.message_id
        self.args, self.kwargs, self.options = message.args, message.kwargs, message.options
        #: What its options say of the task, once somebody asked.
        self.stamp: Stamp | None = None
        #: Whether its claim may have been sent; False once it is known that it must not be.
        self.started: bool | None = None
        #: Set when the copy is to go back to the queue instead of being removed.
        self.give_back = False
        #: Set when the store has custody of the task: the acknowledgement waits until that is durable.
        self.pledge: Pledge | None = None
        #: Set when the commit of its run is not answered yet: the acknowledgement waits for that.
        self.deferred: DeferredCommit | None = None
        #: Whether it is acknowledged but for the store's custody.
        self.waits_for_store = False
        #: Called once the copy is acknowledged, with whether that removed it.
        self.on_removed: Callable[[bool], None] | None = None

    def waits_for_commit(self, acknowledge: Callable[[Any], None]) -> bool:
        """Whether the commit of its run is to be answered first; then `acknowledge` is called again."""
        return self.deferred is not None and self.deferred.acknowledge_then(acknowledge)

    def removed(self, confirmed: bool) -> None:
        """Tell whoever waits for it that the acknowledgement is on its way, or that there will be none.

        `confirmed`: the broker said that this acknowledgement removed the copy.
        """
        told, self.on_removed = self.on_removed, None
        if told is not None:
            told(confirmed)
        self._let_go()

    def _let_go(self) -> None:
        """Part from the run: what refers to each other waits for the garbage collector, at a cost for every task."""
        self.deferred = None
        run = self.__dict__.pop("relier_run", None)
        if run is not None:
            run.checkpoint = None

    @abstractmethod
    def may_start(self) -> bool:
        """Whether the copy is still this process's to claim (R5).

        Not after this worker was declared dead, nor after the connection that it came by was lost: somebody else may
        have got the copy since, may have finished and been forgotten.
        """
