"""Docstrings are valid for the API reference: `make docs` checks the same, but takes longer."""

import ast
import re
from pathlib import Path

from tests.test_docs.pages import ROOT

PACKAGE = ROOT / "pcm_plugin"
NOT_IN_REFERENCE = ("cli.py", "commands", "toyworld", "model_zoo", ".mim")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in NOT_IN_REFERENCE
}
_ROLE = re.compile(r":(?:py:)?(\w+):`~?([^`]+)`")
_CODE = re.compile(r":\w+:`[^`]*`|``.*?``")
_OTHER_PACKAGES = ("torch.", "mmengine.", "mmpretrain.", "numpy.", "transformers.", "diffusers.")


def docstrings(module: str, path: Path):
    """Yield the full name, the docstring and the kind of each documented object of a module."""

    def visit(node: ast.AST, name: str):
        if text := ast.get_docstring(node):
            yield name, text, type(node).__name__
        body = node.body
        for i, child in enumerate(body):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if not child.name.startswith("_") or child.name == "__call__":
                    is_property = any("property" in ast.unparse(d) for d in child.decorator_list)
                    for found in visit_all(child, f"{name}.{child.name}"):
                        yield (*found[:2], "Attribute") if is_property else found
            elif isinstance(child, ast.Assign | ast.AnnAssign) and i + 1 < len(body):
                target = child.targets[0] if isinstance(child, ast.Assign) else child.target
                text = body[i + 1]
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    full_name = f"{name}.{ast.unparse(target)}"
                    if "._" not in full_name:
                        yield full_name, str(text.value.value), "Attribute"

    def visit_all(node: ast.AST, name: str):
        if isinstance(node, ast.ClassDef):
            yield from visit(node, name)
        elif text := ast.get_docstring(node):
            yield name, text, "Function"

    yield from visit(ast.parse(path.read_text()), module)


DOCUMENTED = {module: [*docstrings(module, path)] for module, path in MODULES.items()}
NAMES = {name for found in DOCUMENTED.values() for name, *_ in found}


def is_resolved(target: str, name: str) -> bool:
    """Return whether a cross-reference in the docstring of ``name`` has exactly one target."""
    if target.startswith(_OTHER_PACKAGES):
        return True
    if target.startswith("."):
        return sum(known.endswith(target) for known in NAMES) == 1
    scopes = [".".join(name.split(".")[:end]) for end in range(len(name.split(".")), 0, -1)]
    return target in NAMES or any(f"{scope}.{target}" in NAMES for scope in scopes)


def test_references_have_one_target():
    found = [
        f"{name}: {role[0]}"
        for documented in DOCUMENTED.values()
        for name, text, _ in documented
        for role in _ROLE.finditer(text)
        if not is_resolved(role[2], name)
    ]
    assert not found, "document the target, or name it as in :class:`.Name`"


def test_no_text_is_parsed_as_a_type():
    """Napoleon parses the text before a colon as the type of an attribute or a return value."""
    found = []
    for name, text, kind in (item for documented in DOCUMENTED.values() for item in documented):
        first_lines = re.findall(r"^ *(?:Returns|Yields):\n +(.*)", text, re.MULTILINE)
        if kind == "Attribute":
            first_lines.append(text.strip().splitlines()[0])
        found += [
            f"{name}: {line}"
            for line in first_lines
            if re.search(r":(\s|$)", _CODE.sub("", line)) and not line.startswith("- ")
        ]
    assert not found, "rephrase the line without a colon"
