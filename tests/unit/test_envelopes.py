"""What a reader is handed, and the places that it keeps: as values, and as tests make them."""

import copy
import gc
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from egotest.bank import Deposited
from egotest.people import Profile

import ego

HERE = ego.Cursor(bytes(range(16)), 7)


def test_an_envelope_of_a_test_has_sensible_fields() -> None:
    envelope = ego.EventEnvelope(event=Deposited(5))
    assert envelope.event == Deposited(5)
    assert (envelope.entity_id, envelope.kind, envelope.revision, envelope.position) == ("1", "test", 1, 1)
    assert (envelope.name, envelope.version, envelope.id, envelope.metadata) == ("Deposited", 1, "test/1/1", {})
    assert envelope.time == datetime(1970, 1, 1, tzinfo=UTC)
    assert envelope.cursor.position == 1
    assert repr(envelope) == (
        "EventEnvelope(event=Deposited(amount=5), entity_id='1', kind='test', revision=1, position=1)"
    )


def test_what_is_given_is_what_it_says() -> None:
    time = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
    envelope = ego.StateEnvelope(
        state=Profile("Ada"),
        entity_id="an id that is longer than most ids are",
        kind="person",
        revision=3,
        position=7,
        cursor=HERE,
        shard=9,
        time=time,
        metadata={"by": "me"},
        name="people.profile",
        version=2,
    )
    assert envelope.state == Profile("Ada")
    assert envelope.entity_id == "an id that is longer than most ids are"
    assert (envelope.cursor, envelope.shard, envelope.name, envelope.version) == (HERE, 9, "people.profile", 2)
    assert envelope.time == time
    assert envelope.time.utcoffset() == timedelta(0)
    assert envelope.metadata == {"by": "me"}
    assert envelope.id == "person/an id that is longer than most ids are/3"


def test_envelopes_are_values() -> None:
    one, same = (ego.EventEnvelope(event=Deposited(5), metadata={"a": "1", "b": "2"}) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != ego.EventEnvelope(event=Deposited(6), metadata={"a": "1", "b": "2"})
    assert one != ego.EventEnvelope(event=Deposited(5))
    assert one != ego.StateEnvelope(state=Deposited(5))
    assert ego.EventEnvelope(event=Deposited(5), metadata={"b": "2", "a": "1"}) == one
    assert {one: 1}[same] == 1


@pytest.mark.parametrize(
    "envelope",
    [
        ego.EventEnvelope(
            event=Deposited(5), entity_id="ä", metadata={"a": "1"}, time=datetime(2026, 1, 2, tzinfo=UTC)
        ),
        ego.StateEnvelope(state=Profile("Ada"), cursor=HERE, position=7),
        HERE,
    ],
)
def test_copies_and_pickles_are_equal(envelope: Any) -> None:
    assert copy.copy(envelope) == envelope
    assert copy.deepcopy(envelope) == envelope
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(envelope, protocol)) == envelope


def test_nothing_of_an_envelope_can_be_changed() -> None:
    envelope: Any = ego.EventEnvelope(event=Deposited(5), metadata={"a": "1"})
    for name in ("event", "entity_id", "position", "new"):
        with pytest.raises(AttributeError):
            setattr(envelope, name, 1)
    with pytest.raises(TypeError):
        envelope.metadata["a"] = "2"


def test_an_envelope_names_the_type_of_its_event() -> None:
    assert get_args(ego.EventEnvelope[Deposited]) == (Deposited,)
    assert get_args(ego.StateEnvelope[Profile]) == (Profile,)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({}, TypeError, "event"),
        ({"event": Deposited(1), "entity_id": ""}, ValueError, "entity_id must not be empty"),
        ({"event": Deposited(1), "kind": ""}, ValueError, "kind must not be empty"),
        ({"event": Deposited(1), "revision": 0}, ValueError, "revision must be 1 or more, not 0"),
        ({"event": Deposited(1), "position": 0}, ValueError, "position must be 1 or more, not 0"),
        ({"event": Deposited(1), "position": 8, "cursor": HERE}, ValueError, "cursor and position must say the same"),
        ({"event": Deposited(1), "time": datetime(2026, 1, 1)}, TypeError, "a datetime with a time zone"),
        ({"event": Deposited(1), "time": 5}, TypeError, "a datetime with a time zone, not 5"),
        ({"event": Deposited(1), "time": datetime(1969, 1, 1, tzinfo=UTC)}, ValueError, "after 1970"),
        ({"event": Deposited(1), "metadata": {"a": 1}}, TypeError, "metadata is a mapping of str to str"),
        ({"event": Deposited(1), "metadata": {"a": "x" * 20_000}}, ValueError, "metadata takes at most"),
    ],
)
def test_a_wrong_argument_is_refused(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ego.EventEnvelope(**wrong)


def test_a_cursor_is_read_again_from_its_text() -> None:
    assert str(HERE) == "ego1.000102030405060708090a0b0c0d0e0f.7"
    assert ego.Cursor.parse(str(HERE)) == HERE
    assert repr(HERE) == f"ego.Cursor.parse('{HERE}')"
    assert (HERE.position, HERE.store_id) == (7, bytes(range(16)))


STORE = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "ego1.7",
        f"ego2.{STORE}.7",
        f"ego1.{STORE}.-1",
        f"ego1.{STORE}.07",
        f"ego1.{STORE}.",
        f"ego1.+{STORE[1:]}.7",
        f"ego1.{STORE}.99999999999999999999",
    ],
)
def test_another_text_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the text of an ego\.Cursor"):
        ego.Cursor.parse(text)


def test_cursors_of_one_store_have_an_order() -> None:
    later, elsewhere = ego.Cursor(HERE.store_id, 8), ego.Cursor(bytes(16), 8)
    assert later > HERE
    assert later >= HERE
    assert max(HERE, later) == later
    assert later != elsewhere
    with pytest.raises(TypeError, match="different stores have no order"):
        _ = elsewhere > HERE
    with pytest.raises(ValueError, match="16 bytes"):
        ego.Cursor(b"short", 1)


def test_the_collector_sees_what_an_envelope_holds() -> None:
    held: list[object] = []
    envelope = ego.EventEnvelope(event=held)
    assert any(each is held for each in gc.get_referents(envelope))
