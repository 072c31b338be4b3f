"""Where a module can be changed, and into what.

The changes are those of mutmut, whose runner mutates functions alone and so leaves out tables, constants and default
values; two of its kinds that fail wherever the line runs (`a = None`, an argument `None`) say little and are left out.
"""

import ast
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators


@dataclass(frozen=True)
class Mutant:
    """One change. `before` and `after` are the changed lines, stripped, which name it even where lines move."""

    file: str
    kind: str
    line: int
    before: str
    after: str
    code: str  # the whole module, changed

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.before, self.after


def negated(node: cst.If | cst.While) -> Iterable[cst.CSTNode]:
    """`if a` becomes `if not a`. mutmut does this to `a if b else c` alone."""
    if not m.matches(node.test, m.UnaryOperation(operator=m.Not())):  # the removed `not` is a change of its own
        test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


def one_less(node: cst.Integer) -> Iterable[cst.CSTNode]:
    """mutmut makes a number one greater."""
    if node.evaluated_value > 0:
        yield node.with_changes(value=repr(node.evaluated_value - 1))


def dropped(node: cst.Call) -> Iterable[cst.CSTNode]:
    """A call without one of its keyword arguments. What stands by position is needed nearly always."""
    for i, argument in enumerate(node.args):
        if argument.keyword:
            yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])


KINDS: tuple[tuple[str, type, Callable], ...] = (
    ("number", cst.BaseNumber, mutators.operator_number),
    ("number", cst.Integer, one_less),
    ("string", cst.SimpleString, mutators.operator_string),
    ("name", cst.Name, mutators.operator_name),
    ("not", cst.UnaryOperation, mutators.operator_remove_unary_ops),
    ("keyword", cst.CSTNode, mutators.operator_keywords),
    ("operator", cst.CSTNode, mutators.operator_swap_op),
    ("augmented", cst.AugAssign, mutators.operator_augmented_assignment),
    ("method", cst.Call, mutators.operator_symmetric_string_methods_swap),
    ("method", cst.Call, mutators.operator_unsymmetrical_string_methods_swap),
    ("branch", cst.IfExp, mutators.operator_if_exp),
    ("branch", cst.If, negated),
    ("branch", cst.While, negated),
    ("argument", cst.Call, dropped),
)

# What is left alone, with all in it: texts for people, types, and `strict=True`, which looks for our own mistakes.
SAYS = m.Name("warn") | m.Name("warning") | m.Name("info") | m.Name("debug")
LEFT_ALONE = (
    m.Annotation()
    | m.Raise()
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.Assert()
    | m.Arg(keyword=m.Name("strict"))
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.Call(func=m.Name("TypeVar") | m.Attribute(attr=SAYS))
    | m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())])
    | m.AnnAssign(annotation=m.Annotation(annotation=m.Name("TypeAlias")))
)


class Places(cst.CSTVisitor):
    """Collects the nodes that may change: those outside of `LEFT_ALONE`."""

    def __init__(self):
        self.nodes: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, LEFT_ALONE):
            return False
        self.nodes.append(node)
        return True


@dataclass(frozen=True)
class Place:
    """A node of a module, and all that it can become."""

    file: str
    source: str
    module: cst.Module
    node: cst.CSTNode
    line: int
    changes: tuple[tuple[str, cst.CSTNode], ...]

    def mutant(self, choice: int) -> Mutant | None:
        """The place changed in one way. None for what Python cannot read, and for what means the same to it."""
        kind, new = self.changes[choice]
        code = self.module.deep_replace(self.node, new).code
        try:
            same = ast.dump(ast.parse(code)) == ast.dump(ast.parse(self.source))
        except SyntaxError:
            return None
        before, after = _difference(self.source.splitlines(), code.splitlines())
        guard = "strict=" in before and "strict=" not in after
        return None if same or guard else Mutant(self.file, kind, self.line, before, after, code)


def places(file: str, source: str) -> list[Place]:
    """Where a module can be changed, in its order."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    lines = wrapper.resolve(PositionProvider)
    visitor = Places()
    wrapper.module.visit(visitor)
    found = []
    for node in visitor.nodes:
        if changes := tuple((kind, new) for kind, of, change in KINDS if isinstance(node, of) for new in change(node)):
            found.append(Place(file, source, wrapper.module, node, lines[node].start.line, changes))
    return found


def _difference(old: list[str], new: list[str]) -> tuple[str, str]:
    """The lines that differ, stripped and joined."""
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changed = [(old[a:b], new[c:d]) for tag, a, b, c, d in blocks if tag != "equal"]
    before, after = ([line.strip() for lines in side for line in lines] for side in zip(*changed, strict=True))
    return " ".join(before), " ".join(after)
