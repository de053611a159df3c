"""pydantic's errors as one line for people: the field, what was found and what was expected."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# pydantic's type of error -> what was expected, with the names of the error's context.
EXPECTED = {
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "one of {expected}",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "finite_number": "a finite number",
}


def one_line(error: ValidationError, what: str, known: Sequence[str] = ()) -> str:
    """The first error of pydantic as ``<what>: <field> is <value>, expected <what is valid>``.

    Args:
        error: what pydantic raised.
        what: what was read: "run", or a file's path.
        known: names of the fields, for a field that is not one of them.
    """
    found = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in found["loc"] if part != "[key]") or what
    if found["type"] == "extra_forbidden":
        return f"{what}: unknown field {path!r}" + (f"; known: {', '.join(known)}" if known else "")
    if found["type"] == "missing":
        return f"{what}: {path} is missing"
    if found["type"] == "value_error" and (not found["loc"] or _reason(found).startswith(f"{what}: ")):
        return f"{what}: {_reason(found).removeprefix(f'{what}: ')}"
    return f"{what}: {path} is {_shown(found['input'])}, expected {_reason(found)}"


def _reason(found: ErrorDetails) -> str:
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    template = EXPECTED.get(found["type"])
    return template.format(**found.get("ctx", {})) if template else found["msg"]


def _shown(value: Any) -> str:
    """A value's repr for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
