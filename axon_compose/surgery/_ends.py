"""Edits of what is around the layers: embedding, head, residual scheme, and the norms of all branches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from axon_compose.diagnostics import Problems
from axon_compose.language.document import PartComponent
from axon_compose.plan import Use
from axon_compose.registry import Kind, Piece, Registry, transfers_from
from axon_compose.surgery._component import Faulty, names_of, planned, valued
from axon_compose.surgery._draft import ENDS, Draft
from axon_compose.surgery._init import Beginning
from axon_compose.surgery._making import COPIED, Made, Making
from axon_compose.surgery.document import Edit, EditText

__all__ = ["Ends"]

_KINDS: Final[dict[str, Kind]] = {
    "embedding": "embedding", "residual": "residual", "final_norm": "norm", "head": "head", "norm": "norm",
}  # fmt: skip
_PATHS: Final = {section: path for path, section in ENDS.items()}


class Ends:
    """Changes sections of the file that are outside of the stack.

    Args:
        draft: The model.
        text: The edit file.
        registry: The plugins.
        problems: Collects faults.
    """

    def __init__(self, draft: Draft, text: EditText, registry: Registry, problems: Problems) -> None:
        self.draft, self.text, self.registry, self.problems = draft, text, registry, problems

    def has(self, name: str) -> bool:
        """Whether a name is that of a section which the model has."""
        return name in _KINDS and (name == "norm" or _PATHS[name] in self.draft.ends)

    def replace(self, number: int, name: str, component: PartComponent, edit: Edit, beginning: Beginning) -> None:
        """Put another component in the place of a section's.

        Raises:
            Faulty: It does not fit; reported.
        """
        where = ("edits", number, "replace", name)
        self._no_layers(number, name, edit)
        names = names_of(self._old(name), self.draft.dims, None, self.draft.count)
        options = {
            option: valued(value, names, self.text.place(*where, option), self.problems)
            for option, value in component.options.items()
        }
        self._change(name, component.type, options, where, "", beginning)
        self.draft.marks[(name,)] = self.text.place(*where, key=True)

    def set(self, number: int, name: str, options: Mapping[str, Any], edit: Edit, beginning: Beginning) -> None:
        """Change options of a section.

        Raises:
            Faulty: They do not fit; reported.
        """
        where = ("edits", number, "set")
        self._no_layers(number, name, edit)
        names = names_of(self._old(name), self.draft.dims, None, self.draft.count)
        written, type_name = dict(self._written(name)), self._type(name)
        for option, value in options.items():
            span = self.text.place(*where, f"{name}.{option}")
            written[option] = valued(value, names, span, self.problems)
            self.draft.marks[name, option] = span
        self._change(name, type_name, written, where, name, beginning)

    def _no_layers(self, number: int, name: str, edit: Edit) -> None:
        if edit.layers is not None:
            at = self.text.place("edits", number, "layers", key=True)
            message = f"`{name}` is outside of the layers"
            self.problems.error("AX923", message, at, help="leave out `layers`")
            raise Faulty

    def _old(self, name: str) -> Use | None:
        if name != "norm":
            return self.draft.ends[_PATHS[name]].use
        return next((making.use for making, _ in self._norms()), None)

    def _type(self, name: str) -> str | None:
        """The type that a section names, that of `norm` for the final one; None for the default of its kind."""
        section = self.draft.data.get(name)
        found = section.get("type") if isinstance(section, Mapping) else None
        return self._type("norm") if found is None and name == "final_norm" else found

    def _written(self, name: str) -> Mapping[str, Any]:
        section = self.draft.data.get(name)
        found = {key: value for key, value in section.items() if key != "type"} if isinstance(section, Mapping) else {}
        typed = isinstance(section, Mapping) and "type" in section
        return found if name != "final_norm" or typed else {**self._written("norm"), **found}

    def _change(
        self,
        name: str,
        type_name: str | None,
        written: Mapping[str, Any],
        where: tuple[str | int, ...],
        dotted: str,
        beginning: Beginning,
    ) -> None:
        type_name = type_name or self.registry.full_name(self.registry.default(_KINDS[name]))
        dims = self.draft.dims

        def at(path: str) -> Use:
            kinds = (_KINDS[name],)
            return planned(
                self.registry, type_name, written, dims, path, self.text, where, self.problems, kinds=kinds,
                dotted=dotted,
            )  # fmt: skip

        if name == "norm":
            new = at("norm")
            for making, (made, slot) in list(self._norms()):
                made[slot] = beginning.of(replace(new, path=making.use.path), making.use, making)
        else:
            path = _PATHS[name]
            self.draft.ends[path] = self._begin(at(path), self.draft.ends[path], beginning)
        self.draft.data[name] = {"type": type_name, **written}

    def _begin(self, new: Use, making: Making, beginning: Beginning) -> Making:
        """A part begins as its record says; what needs nothing, or less than it had, keeps that."""
        source = beginning.init.source
        if source is not None and source not in self.draft.ends:
            ends = ", ".join(self.draft.ends)
            hint = f"outside of the layers there are {ends}"
            self.problems.error(
                "AX923", f"there is no `{source}` outside of the layers", beginning.init.span, help=hint
            )
            raise Faulty
        if source is not None:
            return beginning.of(new, self.draft.ends[source].use, self.draft.ends[source])
        had = making.use.params
        if beginning.init.name is None and new.type == making.use.type and new.params.items() < had.items():
            return Made(new, "keep", making, {name: Piece((name,), COPIED) for name in new.params})
        table = self.draft.ends["embedding"]
        if new.spec.kind == "head" and not had and transfers_from(new.spec.transfers, new.type, table.use.type):
            return beginning.of(new, table.use, table)  # it was tied
        return beginning.of(new, making.use, making)

    def _norms(self) -> Iterator[tuple[Making, tuple[dict[str, Making], str]]]:
        """Every norm of the file's kind: of branches and of components in them, and the final one."""
        for layer in self.draft.layers:
            for branch in layer.branches:
                places = [
                    ("", branch.written),
                    *((f"{n}.", m) for n, m in enumerate(branch.written.get("parallel", ()))),
                ]
                for prefix, written in places:
                    norm = written.get("norm")
                    if not (isinstance(norm, Mapping) and "type" in norm):
                        for slot in (f"{prefix}pre", f"{prefix}post"):
                            if slot in branch.made:
                                yield branch.made[slot], (branch.made, slot)
        final = self.draft.data.get("final_norm")
        if "norm" in self.draft.ends and not (isinstance(final, Mapping) and "type" in final):
            yield self.draft.ends["norm"], (self.draft.ends, "norm")
