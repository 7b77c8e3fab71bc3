"""The outbound loop of a store: claim → compose → mark → send → settle.

feeder     claims due deliveries of the runs that send, composes them, and paces them
courier    takes one composed delivery after another through a session of its own with the relay
writer     commits marks and outcomes of all couriers together
"""

from mailbound.outbound.loop import Outbound

__all__ = ["Outbound"]
