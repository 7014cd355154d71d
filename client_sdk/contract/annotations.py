"""What the models cannot say of the wire by themselves, for the generated descriptions of it."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema


@dataclass(frozen=True, slots=True)
class Shown:
    """Describes a field by another type than the one that validates it."""

    type: Any

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(TypeAdapter(self.type).core_schema)


@dataclass(frozen=True, slots=True)
class SentAsNull:
    """The server always sends the field, as null if it has no value; see `SENT_AS_NULL`."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The server leaves the field out if it has no value, whatever its default is here."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The field whose value tells an accepted request from a refused one."""

    field: str
    accepted: bool | str
    refused: bool | str
    # Fields that a refused request may have too.
    kept: tuple[str, ...] = ()


# Other fields that default to None are left out then.
SENT_AS_NULL: Final = SentAsNull()
