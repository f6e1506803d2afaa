"""Options of a component, made up from the JSON Schema of its record and from its examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final

from axon_compose.registry import ComponentSpec, Raised, options_schema
from axon_compose.testing._choices import Choices

__all__ = ["Unmakeable", "draw_options"]

Schema = Mapping[str, Any]
Path = tuple[str, ...]

#: Whole numbers are small, and none is one unless an example has it: of one expert, one state or a window of one token
#: something is without effect.
_SIZES: Final = (4, 2, 8, 3, 6, 16, 12)
#: Above this, sizes of defaults and examples are not taken over.
_LARGEST: Final = 64
#: Factors without a default or example.
_FACTORS: Final = (1.0, 0.5, 2.0, 4.0)
#: One option in this number is another than in the example.
_CHANGED: Final = 4
_LONGEST_LIST: Final = 4
_DEEPEST: Final = 8


class Unmakeable(ValueError):
    """An option that is required and of which no value can be made up; an example in the record would help."""


def draw_options(
    spec: ComponentSpec,
    choices: Choices,
    *,
    base: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Options that the schema allows; whether the record takes them together is for others to see.

    One of the examples, if there are any, with some options taken out and others put in. Numbers stay near those of
    defaults and examples, so that none is small enough to be without effect. Options that name another component are
    left out.

    Args:
        spec: The component's record.
        choices: Makes every choice.
        base: Options to start from instead of an example.
        known: Values that options of these names, wherever they stand, often take: those of another component that
            this one has to fit.

    Raises:
        Unmakeable: If a required option can be anything, and no example has it.
    """
    return _Drawn(spec, choices, known or {}).options(base)


class _Drawn:
    def __init__(self, spec: ComponentSpec, choices: Choices, known: Mapping[str, Any]) -> None:
        self.spec, self.choices, self.known = spec, choices, known
        try:
            self.schema = options_schema(spec)
        except Raised as raised:
            raise Unmakeable(
                f"the options of `{spec.name}` have no JSON Schema, so none can be made up: {raised}"
            ) from None
        self.seen: dict[Path, list[Any]] = {}
        for example in spec.examples:
            self._note((), example)

    def options(self, base: Mapping[str, Any] | None) -> dict[str, Any]:
        left_out = {option for option in self.spec.reads.values() if option is not None}
        if base is None:
            examples = [{}, *self.spec.examples] if not self.schema.get("required") else self.spec.examples
            base = self.choices.choose(examples) if examples else {}
        drawn = self._mapping(self.schema, (), deepcopy(dict(base)))
        if self.spec.kind == "embedding" and self.spec.writes and not self.known:
            # An option without an example may make values that a layer has to read, and there is none.
            left_out |= {name for name in drawn if (name,) not in self.seen}
        return {name: value for name, value in drawn.items() if name not in left_out}

    def _note(self, path: Path, value: Any) -> None:
        """Remember the values of examples by where they stand."""
        self.seen.setdefault(path, []).append(value)
        for name, part in value.items() if isinstance(value, Mapping) else ():
            self._note((*path, name), part)

    def _mapping(self, schema: Schema, path: Path, base: Mapping[str, Any]) -> dict[str, Any]:
        drawn = dict(base)
        required = schema.get("required", ())
        for name, part in schema.get("properties", {}).items():
            if name in self.known and self._often():
                drawn[name] = deepcopy(self.known[name])
            elif name in drawn or name not in required:
                self._change(drawn, name, part, (*path, name), removable=name not in required)
            else:
                drawn[name] = self._value(part, (*path, name))
        return drawn

    def _change(self, drawn: dict[str, Any], name: str, part: Schema, path: Path, *, removable: bool) -> None:
        if self.choices.choose(range(_CHANGED)) != _CHANGED - 1:
            return
        if name in drawn and removable and self._often():
            del drawn[name]
        else:
            with suppress(Unmakeable):
                drawn[name] = self._value(part, path)

    def _often(self) -> bool:
        return self.choices.choose((True, False))

    def _value(self, schema: Schema, path: Path) -> Any:
        schema = self._resolved(schema)
        if len(path) > _DEEPEST:
            raise Unmakeable(f"`{'.'.join(path)}` never ends")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.choices.choose(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._value({**_rest(schema, keyword), **self.choices.choose(schema[keyword])}, path)
        kind = schema.get("type", "object" if "properties" in schema else None)
        return self._of_type(self.choices.choose(kind) if isinstance(kind, list) else kind, schema, path)

    def _of_type(self, kind: Any, schema: Schema, path: Path) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return self.choices.choose((False, True))
            case "integer":
                return self.choices.choose(list(self._integers(schema, path)))
            case "number":
                return self.choices.choose(list(self._numbers(schema, path)))
            case "array":
                return self._list(schema, path)
            case "object":
                return self._mapping(schema, path, {})
        values = self._hints(schema, path, str) if kind in ("string", None) else []
        if not values:
            raise Unmakeable(f"`{'.'.join(path)}` of `{self.spec.name}` may be anything: give the record an example")
        return self.choices.choose(values)

    def _resolved(self, schema: Schema) -> Schema:
        """The schema with local references and `allOf` laid over each other."""
        for _ in range(_DEEPEST):
            if reference := schema.get("$ref"):
                target: Any = self.schema
                for step in filter(None, str(reference).removeprefix("#").split("/")):
                    target = target[step.replace("~1", "/").replace("~0", "~")]
                schema = {**target, **_rest(schema, "$ref")}
            elif parts := schema.get("allOf"):
                schema = _rest(schema, "allOf")
                for part in parts:
                    schema = {**schema, **self._resolved(part)}
            else:
                return schema
        raise Unmakeable(f"a schema of `{self.spec.name}` refers to itself")

    def _hints(self, schema: Schema, path: Path, kind: type | tuple[type, ...]) -> list[Any]:
        """Values of the default and of the examples, the default first."""
        default = [schema["default"]] if "default" in schema else []
        values = [*default, *self.seen.get(path, ())]
        return list(dict.fromkeys(v for v in values if isinstance(v, kind) and not isinstance(v, bool)))

    def _integers(self, schema: Schema, path: Path) -> Iterator[int]:
        hints = [hint for hint in self._hints(schema, path, int) if 1 < hint <= _LARGEST]
        fitting = [number for number in dict.fromkeys([*hints, *_SIZES]) if _allowed(schema, number)]
        step = schema.get("multipleOf", 1)
        least = max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
        yield from fitting or [-(-least // step) * step]

    def _numbers(self, schema: Schema, path: Path) -> Iterator[float]:
        hints = [float(hint) for hint in self._hints(schema, path, (int, float))]
        near = [hint * factor for hint in hints for factor in (1.0, 0.5, 2.0)] or list(_FACTORS)
        fitting = [number for number in dict.fromkeys(near) if _allowed(schema, number)]
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        inside = high / 2 if low is None and high is not None else (low or 0.0) + 1.0
        yield from fitting or [(low + high) / 2 if low is not None and high is not None else inside]

    def _list(self, schema: Schema, path: Path) -> list[Any]:
        least = schema.get("minItems", 0)
        length = self.choices.choose(range(least, max(least, min(schema.get("maxItems", _LONGEST_LIST), 16)) + 1))
        return [self._value(schema.get("items", {}), (*path, str(i))) for i in range(length)]


def _rest(schema: Schema, keyword: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != keyword}


def _allowed(schema: Schema, number: float) -> bool:
    """Whether a number is within the bounds of a schema."""
    limits: Sequence[bool] = (
        number >= schema.get("minimum", number),
        number > schema.get("exclusiveMinimum", number - 1),
        number <= schema.get("maximum", number),
        number < schema.get("exclusiveMaximum", number + 1),
        number % schema.get("multipleOf", 1) == 0 if isinstance(number, int) else True,
    )
    return all(limits)
