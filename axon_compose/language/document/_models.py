"""What the models of all sections share: strictness, names, and values that may be formulas."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from axon_compose.language.document.formula import is_formula

__all__ = ["FORMULA", "MODEL_NAME", "NAME", "Count", "Name", "Number", "OrFormula", "Section"]

#: At most as long as in a stack text: names stand in every layer of a plan.
NAME = r"^[a-z][a-z0-9_]{0,99}$"
#: Of a whole model.
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FORMULA = {"type": "string", "pattern": "^="}

Name = Annotated[str, StringConstraints(pattern=NAME)]


def _keep_formula(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if is_formula(value) else handler(value)


class _OrFormula:
    """Annotation: the type itself, or a formula that the plan resolves to it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        # Around the whole schema: an annotation would go below constraints such as `ge`, which formulas do not meet.
        return core_schema.no_info_wrap_validator_function(_keep_formula, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), dict(FORMULA)]}


OrFormula = _OrFormula()
Number = Annotated[float, OrFormula]
Count = Annotated[int, Field(ge=1), OrFormula]


class Section(BaseModel):
    """A section: strict, frozen, and every key known."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        defer_build=True,  # `Envelope` is built when a file is read, and all others with it
    )
