"""Validating without models: the same verdicts, errors and fields as the models'."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from client_sdk.contract import STREAM_DATA, Publication
from server.core.wire.validation import fields_validator

MODELS: tuple[type[BaseModel], ...] = (Publication, *STREAM_DATA.values())

scalars: st.SearchStrategy[object] = st.sampled_from(
    [
        "1",
        "1.50",
        "-1",
        "1e5",
        "1e555",
        "1_000",
        " 1",
        "٣",
        "",
        "x" * 65,
        "x" * 129,
        "buy",
        "update",
    ]
) | st.sampled_from([None, True, 0, 1, -1, 2**53, 2**70, 1.5])


def _values(model: type[BaseModel]) -> st.SearchStrategy[object]:
    """Values for a model, of which many are valid, and many almost."""
    names = [*model.model_fields, "extra"]
    level = st.lists(scalars, min_size=1, max_size=3)
    trade = st.dictionaries(st.sampled_from(["id", "price", "qty", "side", "ts", "x"]), scalars)
    value = scalars | st.lists(level | trade | scalars, max_size=3) | st.just({"a": 1})
    fields = st.fixed_dictionaries(
        {name: _valid(name) | value for name in names if name in _REQUIRED},
        optional={name: _valid(name) | value for name in names if name not in _REQUIRED},
    )
    return fields | st.dictionaries(st.sampled_from(names), value) | value


_TRADE = {"id": "t", "price": "1.50", "qty": "2", "side": "buy", "ts": 1}
_REQUIRED: dict[str, object] = {
    "bid": "1.5",
    "ask": "1e5",
    "last": "0",
    "volume": "7",
    "topic": "PRICE:A",
    "data": {"a": 1},
    "bids": [["1", "2"]],
    "asks": [],
    "trades": [_TRADE, {**_TRADE, "venue": "x"}],
}


def _valid(name: str) -> st.SearchStrategy[object]:
    return st.just(_REQUIRED.get(name, "1"))


def _outcome(validate: Callable[[object], object], value: object) -> object:
    """The fields of a valid value, or all problems of another."""
    try:
        valid = validate(value)
    except ValidationError as error:
        return error.errors(include_url=False)
    return valid.model_dump() if isinstance(valid, BaseModel) else valid


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@settings(max_examples=40)
@given(data=st.data())
def test_outcome_is_that_of_the_model(model: type[BaseModel], data: st.DataObject) -> None:
    value = data.draw(_values(model))
    assert _outcome(fields_validator(model), value) == _outcome(model.model_validate, value)


@pytest.mark.parametrize("value", [{1: "2"}, {"trades": [{1: 2}]}, {"bid": "1", 2: "3"}, [], "x"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_value_that_is_no_json_object_has_the_same_outcome(
    model: type[BaseModel], value: object
) -> None:
    assert _outcome(fields_validator(model), value) == _outcome(model.model_validate, value)
