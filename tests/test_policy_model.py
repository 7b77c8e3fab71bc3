"""Random histories, played on a real database and on the plain model of the policy: both must come to the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailbound import address as addresses
from mailbound import policy, tokens
from mailbound.database import (
    audience,
    bounces,
    erasing,
    histories,
    outcomes,
    recipients,
    schema,
    tables,
    undoing,
)
from mailbound.database.bounces import Finding, Recorded
from mailbound.database.deliveries import Settlement
from mailbound.database.engine import Database
from mailbound.database.imports import Import, Person
from mailbound.database.outcomes import Ended
from mailbound.lifecycle import DeliveryEvent, DeliveryState, RunState
from mailbound.model import Action, Category, Evidence, Kind, Verdict
from policy_model import Model, Sent
from world import COMMAND, NODE, NOW, Limits, World, mark

HOMES = {"anna": "family@example.org", "bert": "family@example.org", "carl": "carl@example.org"}
ADDRESSES = [*dict.fromkeys(HOMES.values()), "new@example.org"]
STORES = ["main", "other"]
HARD = [Category.NO_SUCH_USER, Category.DISABLED, Category.UNCLEAR]
ALL = [
    *HARD,
    Category.NO_SUCH_DOMAIN,
    Category.MAILBOX_FULL,
    Category.NETWORK,
    Category.BLOCKED,
    Category.CONTENT,
]
SCALE = settings.default.max_examples / 100  # of the profile

WANTED = (
    sa.select(tables.recipient.c.external_id)
    .join(tables.address, tables.address.c.id == tables.recipient.c.address_id)
    .where(
        audience.objection(
            tables.recipient.c.id,
            tables.address.c.id,
            tables.address.c.domain_id,
            sa.bindparam("store", type_=sa.Integer()),
            sa.bindparam("now", type_=tables.delivery.c.marked_at.type),
        ).is_(None)
    )
    .order_by(tables.recipient.c.id)
)

WISHES = sa.select(tables.opt_in, tables.recipient.c.external_id).join(
    tables.recipient, tables.recipient.c.id == tables.opt_in.c.recipient_id
)


class Play:
    """The same events for the database and for the model."""

    def __init__(self, connection: sa.Connection) -> None:
        self.here = World(connection)
        self.now = NOW
        self.model = Model()
        self.sent: list[tuple[int, Sent]] = []
        self.said: list[tuple[int, object]] = []
        for person, address in HOMES.items():
            self.here.person(person, address=address)
            self.model.address_of[person] = address
            self.model.write_wish(person, "main", (True, "import"), NOW)
        self.activities = {store: self.here.activity(store, store=store).id for store in STORES}
        self.people = {row.external_id: row.id for row in connection.execute(sa.select(tables.recipient))}
        self.places = {row.key: row.id for row in connection.execute(sa.select(tables.address))}

    # --- events --------------------------------------------------------------------------------------------

    def wait(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    def send(self, store: str, refusal: Category | None, permanent: bool) -> None:
        """Send a run; the relay takes all of it, or refuses all."""
        connection = self.here.connection
        wanted = list(
            connection.execute(WANTED, {"store": self.here.stores[store], "now": self.now}).scalars()
        )
        assert wanted == self.model.wanted(store, self.now)
        sent = self.model.send(store, self.now)
        claimed = self._claimed(store, [each.person for each in sent])
        if refusal is None:
            assert mark(connection, claimed, node_id=NODE, now=self.now) == set(claimed)
        for delivery_id, each in zip(claimed, sent, strict=True):
            self.sent.append((delivery_id, each))
            if refusal is None:
                self._settle(Ended(delivery_id, Settlement(delivery_id, DeliveryEvent.ACCEPT, attempt=1)))
                continue
            each.refused = True
            said = self.model.say(each, "failed", refusal, permanent=permanent, now=self.now, direct=True)
            finding = self._finding(delivery_id, Action.FAILED, refusal, permanent, evidence=Evidence.DIRECT)
            refused = Settlement(delivery_id, DeliveryEvent.REFUSE, attempt=1)
            self._note(self._settle(Ended(delivery_id, refused, finding)), said)

    def report(self, *about: Any, **more: Any) -> None:
        """A report comes in about something that was sent."""
        self.reports([(about, more)])

    def reports(self, batch: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
        """Some reports come in at once, and are recorded together."""
        found = [each for about, more in batch if (each := self._about(*about, **more)) is not None]
        findings = [finding for finding, _, _ in found]
        recorded = bounces.record_all(self.here.connection, findings, limits=Limits())
        for done, (finding, sent, said) in zip(recorded, found, strict=True):
            verdict = finding.verdict
            its = {"permanent": verdict.permanent, "now": self.now, **said}
            self._note(done, self.model.say(sent, finding.action, verdict.category, **its))

    def _about(
        self,
        which: int,
        action: Action,
        verdict: tuple[Category, bool],
        *,
        own: bool = True,
        foreign: bool = False,
    ) -> tuple[Finding, Sent, dict[str, bool]] | None:
        """Return what a report says, perhaps in the mailbox of another store; None if there is nothing to speak of."""
        if not self.sent:
            return None
        delivery_id, sent = self.sent[which % len(self.sent)]
        if sent.refused:
            return None
        category, permanent = verdict
        mailbox = sent.store if not foreign else next(name for name in STORES if name != sent.store)
        finding = self._finding(
            delivery_id,
            action,
            category,
            permanent and action is Action.FAILED,
            store_id=self.here.stores[mailbox],
            addresses=() if own else ("elsewhere@example.net",),
        )
        return finding, sent, {"own": own or action is not Action.FAILED, "counts": not foreign}

    def streak(self, days: int, category: Category, permanent: bool) -> None:
        """Day after day something is sent, and comes back; of the first nothing is heard."""
        self.send("main", None, False)
        for _ in range(days):
            self.wait(24)
            self.send("main", None, False)
            self.report(len(self.sent) - 1, Action.FAILED, (category, permanent))
            self.compare()

    def late(self, verdict: tuple[Category, bool]) -> None:
        """A day later something comes back that was sent to the same address long ago."""
        if self.sent:
            address = self.sent[-1][1].address
            silent = [
                number
                for number, (_, sent) in enumerate(self.sent)
                if sent.address == address and not self.model.spoken_of(sent)
            ]
            self.wait(24)
            self.report(silent[0] if silent else -1, Action.FAILED, verdict)

    def unsubscribe(self, person: str, store: str) -> None:
        finding = self._finding(
            None,
            Action.UNSUBSCRIBED,
            Category.UNCLEAR,
            False,
            recipient_id=self.people[person],
            store_id=self.here.stores[store],
        )
        recorded = bounces.record(self.here.connection, finding, limits=Limits())
        self._note(recorded, self.model.unsubscribe(person, store, self.now))

    def consent(self, person: str, store: str) -> None:
        address = self.model.address_of.get(person, HOMES[person])
        self._import(person, address, store, receive=True, consent_at=self.now)
        self.model.consent(person, store, self.now)

    def move(self, person: str, address: str) -> None:
        self._import(person, address, "main")
        self.model.move(person, address, self.now)
        if address not in self.places and address in self.model.address_of.values():
            query = sa.select(tables.address.c.id).where(tables.address.c.key == address)
            self.places[address] = self.here.connection.execute(query).scalar_one()

    def erase(self, person: str) -> None:
        if person not in self.model.erased:
            erasing.erase(self.here.connection, self.people[person], who="test", now=self.now)
        self.model.erase(person)

    def reinstate(self, address: str) -> None:
        if address in self.places:
            recipients.reinstate(self.here.connection, self.places[address], who="test", now=self.now)
            self.model.reinstate(address, self.now)

    def undo(self, which: int) -> None:
        if self.said:
            bounce_id, said = self.said[which % len(self.said)]
            undoing.undo_bounces(self.here.connection, [bounce_id], cause=COMMAND, now=self.now)
            self.model.undo(said)

    # --- the same in both ----------------------------------------------------------------------------------

    def compare(self) -> None:
        connection = self.here.connection
        for address, address_id in self.places.items():
            status = recipients.status(connection, address_id)
            assert (status.status, status.category, status.until) == self.model.status(address), address
            quiet = self.now - Limits().quiet_success
            known = histories.before(connection, {0: address_id}, at=self.now, quiet_before=quiet)[0]
            score = policy.soft_score(known.failures, now=self.now, limits=Limits())
            assert score == len(self.model.soft_days(address, self.now)), address
        rows = connection.execute(WISHES)
        names = {number: name for name, number in self.here.stores.items()}
        wishes = {(row.external_id, names[row.store_id]): (row.receive, row.source) for row in rows}
        assert wishes == {key: heap[-1].value for key, heap in self.model.wishes.items() if heap}

    # --- small things --------------------------------------------------------------------------------------

    def _finding(
        self, delivery_id: int | None, action: Action, category: Category, permanent: bool, **more: Any
    ) -> Finding:
        details = {"kind": Kind.BOUNCE, "evidence": Evidence.SIGNED, "attempt": 1, **more}
        verdict = Verdict(category, permanent, None, "test")
        return Finding(at=self.now, action=action, verdict=verdict, delivery_id=delivery_id, **details)

    def _claimed(self, store: str, people: list[str]) -> list[int]:
        """Return new deliveries of a new run, each claimed and ready to be marked."""
        if not people:
            return []
        connection, day = self.here.connection, tokens.day_number(self.now)
        run = {"activity_id": self.activities[store], "occurrence_at": self.now, "state": RunState.SENDING}
        made = tables.run.insert().values(key_id=0, day=day, **run).returning(tables.run.c.id)
        run_id = connection.execute(made).scalar_one()
        address = tables.recipient.join(tables.address)
        whose = sa.select(
            sa.literal(run_id),
            tables.recipient.c.id,
            tables.address.c.id,
            tables.address.c.domain_id,
            sa.literal(DeliveryState.CLAIMED.value),
            sa.literal(NODE),
        )
        whose = whose.select_from(address).where(tables.recipient.c.external_id.in_(people))
        names = ["run_id", "recipient_id", "address_id", "domain_id", "state", "node_id"]
        insert = tables.delivery.insert().from_select(names, whose.order_by(tables.recipient.c.id))
        return list(connection.execute(insert.returning(tables.delivery.c.id)).scalars())

    def _settle(self, ended: Ended) -> Recorded | None:
        done = outcomes.commit(
            self.here.connection, [ended], [], node_id=NODE, store_id=1, limits=Limits(), now=self.now
        )
        return done.recorded.get(ended.delivery_id)

    def _note(self, recorded: Recorded | None, said: object | None) -> None:
        assert (recorded is None) == (said is None), "a report counts once"
        if recorded is not None:
            self.said.append((recorded.bounce_id, said))

    def _import(self, person: str, address: str, store: str, **wish: Any) -> None:
        one = Person(person, addresses.normalise(address), **wish)
        Import(store_id=self.here.stores[store], who="test", now=self.now).apply(self.here.connection, [one])


def _event(
    name: str, *arguments: st.SearchStrategy[Any], **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries({}, optional=more))


_people, _stores, _places = (st.sampled_from(each) for each in ([*HOMES], STORES, ADDRESSES))
_recent = st.sampled_from([-1, -1, -2, -3, -4, -7, 0])  # which of what was sent or said
_categories = st.one_of(st.sampled_from(HARD), st.sampled_from(ALL))
_bounce = st.tuples(_categories, st.booleans())
_others = [
    Action.DELIVERED,
    Action.DELIVERED,
    Action.RELAYED,
    Action.EXPANDED,
    Action.DELAYED,
    Action.COMPLAINED,
]
_reports = st.tuples(
    st.tuples(st.integers(-5, -1), st.sampled_from([Action.FAILED, Action.FAILED, *_others]), _bounce),
    st.fixed_dictionaries({}, optional={"own": st.booleans()}),
)
EVENTS = st.one_of(
    _event("reports", st.lists(_reports, min_size=2, max_size=5)),
    _event("send", st.sampled_from(["main", "main", "other"]), st.none(), st.just(False)),
    _event("send", st.just("main"), _categories, st.booleans()),
    _event("report", _recent, st.just(Action.FAILED), _bounce),
    _event("report", _recent, st.just(Action.FAILED), _bounce, own=st.just(False), foreign=st.booleans()),
    _event(
        "report", _recent, st.sampled_from(_others), st.just((Category.UNCLEAR, False)), own=st.booleans()
    ),
    _event("streak", st.sampled_from([1, 2, 3, 6]), _categories, st.booleans()),
    _event("streak", st.just(6), st.just(Category.MAILBOX_FULL), st.just(False)),
    _event("late", _bounce),
    _event("late", st.just((Category.MAILBOX_FULL, False))),
    _event("wait", st.sampled_from([1.0, 24.0, 72.0, 120.0, 200.0, 744.0])),
    _event("unsubscribe", _people, _stores),
    _event("consent", _people, _stores),
    _event("move", _people, _places),
    _event("erase", _people),
    _event("reinstate", _places),
    _event("undo", _recent),
    _event("undo", st.integers(-3, -1)),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('model')}/mailbound.db", checkpoints=True)
    schema.upgrade(database)
    yield database
    database.close()


@settings(
    max_examples=round(40 * SCALE),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(EVENTS, min_size=5, max_size=20))
def test_any_history_comes_to_what_the_table_of_the_policy_says(
    database: Database, events: list[tuple[str, tuple[Any, ...], dict[str, Any]]]
) -> None:
    with database.begin() as connection:
        play = Play(connection)
        for name, arguments, more in events:
            play.now += timedelta(minutes=1)
            getattr(play, name)(*arguments, **more)
            play.compare()
        connection.rollback()
