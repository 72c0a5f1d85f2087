"""One word, one meaning: a public class or function stands in one module, and no other module's name is the same."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2] / "tips_dist"
OF_EVERY_IMPORTER = {"open_source"}  # what the importers' contract calls in each


def defined(tree: ast.Module) -> dict[str, bool]:
    """The public names of a module's top level, and whether each is a class or a function."""
    found: dict[str, bool] = {}
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = True
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.setdefault(name, False)
    return {name: made for name, made in found.items() if not name.startswith("_")}


def in_two_modules(sources: dict[str, str]) -> dict[str, list[str]]:
    """Names of classes and functions that another module gives to something else; constants may repeat."""
    where: dict[str, list[str]] = defaultdict(list)
    made: set[str] = set()
    for module, text in sources.items():
        for name, is_made in defined(ast.parse(text)).items():
            where[name].append(module)
            made |= {name} if is_made else set()
    return {name: modules for name, modules in where.items() if name in made and len(modules) > 1}


def test_a_public_class_or_function_stands_in_one_module() -> None:
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    assert len(sources) > 100
    assert {n: m for n, m in in_two_modules(sources).items() if n not in OF_EVERY_IMPORTER} == {}


def test_a_second_one_would_be_found() -> None:
    sources = {
        "a.py": "class Look: ...\nLIMIT = 1\n",
        "b.py": "Look = int\nLIMIT = 2\n",
        "c.py": "def _private(): ...\n",
    }
    assert in_two_modules(sources) == {"Look": ["a.py", "b.py"]}
