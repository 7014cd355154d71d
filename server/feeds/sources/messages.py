"""Reads a source's message as one to publish."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.core.wire.strict_json import MalformedJson, loads

_FIELD = re.compile(r"\{([0-9]+)\}")


class UnreadableMessage(ValueError):
    """A message of a source that can never be published; the text says why."""


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """One message to publish."""

    topic: str
    data: dict[str, object]
    kind: str = "update"
    user: str | None = None
    org: str = "default"
    source_ts: int | None = None


def read_envelope(body: bytes | str) -> SourceMessage:
    """Read `{topic, data, type?, user?, org?, source_ts?}`; raises `UnreadableMessage`."""
    return message_of(_object(body))


def message_of(fields: Mapping[str, object]) -> SourceMessage:
    """The message of an envelope's fields; raises `UnreadableMessage`."""
    topic, data = fields.get("topic"), fields.get("data")
    kind, user = fields.get("type", "update"), fields.get("user")
    org, source_ts = fields.get("org", "default"), fields.get("source_ts")
    if not isinstance(topic, str):
        raise UnreadableMessage("topic must be a string")
    if not isinstance(data, dict):
        raise UnreadableMessage("data must be an object")
    if kind not in ("update", "snapshot"):
        raise UnreadableMessage('type must be "update" or "snapshot"')
    if not (user is None or isinstance(user, str)) or not isinstance(org, str):
        raise UnreadableMessage("user and org must be strings")
    if source_ts is not None and (not isinstance(source_ts, int) or isinstance(source_ts, bool)):
        raise UnreadableMessage("source_ts must be an integer number of milliseconds")
    return SourceMessage(topic, data, str(kind), user, org, source_ts)


def read_body(body: bytes | str, topic: str, words: Sequence[str]) -> SourceMessage:
    """Read a body that is the data itself; `{1}` in the topic is the first of the words.

    Words are written in capitals, as symbols are. Raises `UnreadableMessage`.
    """

    def word(found: re.Match[str]) -> str:
        number = int(found[1])
        if not 0 < number <= len(words):
            raise UnreadableMessage(f"{topic} needs {number} words, and there are {len(words)}")
        return words[number - 1].upper()

    return SourceMessage(_FIELD.sub(word, topic), _object(body))


def _object(body: bytes | str) -> dict[str, object]:
    try:
        fields = loads(body if isinstance(body, str) else body.decode())
    except UnicodeDecodeError:
        raise UnreadableMessage("not UTF-8") from None
    except MalformedJson as error:
        raise UnreadableMessage(f"not JSON: {error.reason}") from None
    if not isinstance(fields, dict):
        raise UnreadableMessage("must be a JSON object")
    return fields
