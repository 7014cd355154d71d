"""Validates the table of options of a feed."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from server.feeds.errors import FeedError
from server.ports import FeedOptions


def _as_table(value: object) -> object:
    """Names from the environment: separated by commas, each message naming its topic."""
    if isinstance(value, str):
        return {each.strip(): "" for each in value.split(",") if each.strip()}
    return value


# What to read, each with the topic of its messages, or "" if each message names its own.
TopicsByName = Annotated[dict[str, str], BeforeValidator(_as_table), Field(min_length=1)]


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
