"""Parameters of a run, from the outside."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import UsageError

PREFIX = "BATON_PARAM_"
ALL = "BATON_PARAMS"
MAX_BYTES = 16 * 1024


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object in BATON_PARAMS, and over it each BATON_PARAM_NAME as `name`: JSON if it is, else text. Raises
    `UsageError`."""
    parameters: dict[str, Any] = {}
    if text := environment.get(ALL):
        try:
            parameters = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{ALL} is no JSON: {error}") from error
        if not isinstance(parameters, dict):
            raise UsageError(f"{ALL} is no JSON object")
    named = {name[len(PREFIX) :].lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    return checked({**parameters, **{name: value_of(text) for name, text in named.items() if name}})


def from_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """From `NAME=VALUE`. Raises `UsageError`."""
    parameters = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not name or not found:
            raise UsageError(f"NAME=VALUE was expected, not {pair!r}")
        parameters[name] = value_of(text)
    return checked(parameters)


def value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def checked(parameters: dict[str, Any]) -> dict[str, Any]:
    """What fits into an event. Raises `UsageError`."""
    try:
        size = len(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the parameters cannot be written as JSON: {error}") from error
    if size > MAX_BYTES:
        raise UsageError(f"the parameters take {size} bytes, at most {MAX_BYTES} are allowed")
    return parameters
