"""A relay and a mailbox that bounce on request, to rehearse an activity before real people get it."""

from mailbound.simulator.behaviour import CATALOGUE
from mailbound.simulator.envelope import Envelope, Recipient
from mailbound.simulator.reports import FORMS
from mailbound.simulator.simulator import Simulator, serve

__all__ = ["CATALOGUE", "FORMS", "Envelope", "Recipient", "Simulator", "serve"]
