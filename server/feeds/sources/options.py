"""Validates the table of options of a feed."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from server.feeds.errors import FeedError
from server.ports import FeedOptions


class SourceOptions(BaseModel):
    """The base of a source's options; unknown ones are refused."""

    # Secrets stand in URLs: an error must not show what was given.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


ModelT = TypeVar("ModelT", bound=SourceOptions)


def read_options(model: type[ModelT], options: FeedOptions) -> ModelT:
    """The options of a feed; raises `FeedError` with the name of a wrong one."""
    try:
        return model.model_validate(dict(options.options))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(map(str, (options.name, *first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        raise FeedError(f"feed.{name}: {message}") from None
