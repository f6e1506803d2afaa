"""How the branches of a layer are joined to the residual state, where a file has a residual scheme."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple, NoReturn

from axon_compose.language.document import Path
from axon_compose.plan._declared import declared
from axon_compose.plan._parts import Broken, Part, Parts
from axon_compose.plan._plan import Branch, Use
from axon_compose.registry import Raised

__all__ = ["Connections", "Joined"]

#: Gives a part its place in the layer, by the name that it shall have there.
Place = Callable[[Part, str], Use]


class Joined(NamedTuple):
    """A branch, the connection that the file names for it, and where it is in the file."""

    branch: Branch
    connection: str | None
    path: Path


class Connections:
    """Puts connections around branches.

    Args:
        parts: Components of the file.
        scheme: Its residual scheme, or None: then branches stay as they are.
    """

    def __init__(self, parts: Parts, scheme: Part | None) -> None:
        self.parts, self.scheme = parts, scheme
        self.document, self.problems = parts.document, parts.problems
        self.known: dict[str, Part] = {}
        self.wide: dict[int, Parts] = {}

    def inside(self, name: str | None, path: Path) -> Parts:
        """The components of a branch with this connection, or with the usual one: what it reads may be wider.

        Raises:
            Broken: If there is none of that name; the fault is reported.
        """
        part = self.part(name, path)
        count = 1 if part is None else part.declared.streams
        if count == 1:
            return self.parts
        if count not in self.wide:
            self.wide[count] = self.parts.of_streams(count)
        return self.wide[count]

    def only_wide(self) -> set[Path]:
        """Where the components and norms are that have only been asked for by branches that read several streams."""
        return set().union(*(parts.asked for parts in self.wide.values())) - self.parts.asked

    def join(self, branches: Iterable[Joined], place: Place) -> tuple[Branch, ...]:
        """Branches with their connections: one around each, or one around several that follow each other.

        Raises:
            Broken: If a branch cannot have its connection; the fault is reported.
        """
        found: list[Branch] = []
        within: Part | None = None
        for branch, name, path in branches:
            part = self.part(name, path)
            if part is None:
                found.append(branch)
            elif part.spec.around != "layer":
                found.append(self.around(part, branch, path, place))
                within = None
            elif part is within:
                found[-1] = replace(found[-1], closes=False)
                found.append(replace(branch, closes=True))
            else:
                found.append(replace(branch, connection=place(part, "residual"), closes=True))
                within = part
        return tuple(found)

    def around(self, part: Part, branch: Branch, path: Path, place: Place) -> Branch:
        """One branch with a connection of its own, which takes what it gives."""
        if not branch.residual:
            use = branch.members[0].use
            whole = "a whole block: it has its own residual connections"
            what = "a norm: it replaces what it reads" if use.spec.kind == "norm" else whole
            self.fault(f"`{use.name}` is {what}", path)
        if branch.skip != 1.0:
            self.fault("`skip` has nothing to multiply: the connection adds this branch to the residual state", path)
        if branch.members and all(member.keep for member in branch.members):
            self.fault("this branch keeps all of its output, and has none for its connection", path)
        label = "_".join(member.use.key for member in branch.members) or branch.add
        return replace(branch, residual=False, connection=place(part, f"{label}_residual"), closes=True)

    def part(self, name: str | None, path: Path) -> Part | None:
        """A connection of the scheme, its first one unless named; None without a scheme.

        Raises:
            Broken: If there is none of that name; the fault is reported.
        """
        if self.scheme is None:
            if name is not None:
                message = f"there is no connection `{name}`: the file has no residual scheme"
                self.fault(message, (*path, "residual"), "give it a section `residual` with a type of kind residual")
            return None
        specs = {spec.name: spec for spec in self.scheme.spec.connections}
        name = name or next(iter(specs))
        if name not in specs:
            near = self.problems.nearest(name, specs)
            hint = f"did you mean `{near}`?" if near else f"its connections are {', '.join(specs)}"
            self.fault(
                f"the residual scheme `{self.scheme.type}` has no connection `{name}`", (*path, "residual"), hint
            )
        if name not in self.known:
            try:
                sizes = declared(specs[name], self.scheme.options, self.scheme.dims)
            except Raised as raised:
                message = f"`residual` does not work with these sizes: {raised.reason}"
                self.problems.error("AX145", message, self.document.place("residual", key=True))
                raise Broken from None
            self.known[name] = replace(self.scheme, name=name, spec=specs[name], declared=sizes)
        return self.known[name]

    def fault(self, message: str, path: Path, hint: str | None = None) -> NoReturn:
        """Report a branch that cannot be joined.

        Raises:
            Broken: Always.
        """
        self.problems.error("AX150", message, self.document.place(*path), help=hint)
        raise Broken
