"""Which of the project's modules a module imports, directly or through others."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent


def project_modules(entry: Path) -> list[Path]:
    """The files of `entry` and of every module in this package that it needs, sorted.

    Also imports inside functions count. The package's own `__init__.py` is always among them.
    """
    found = {PACKAGE / "__init__.py"}
    todo = [entry.resolve()]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                package, _, module = name.partition(".")
                candidate = PACKAGE / f"{module}.py"
                if package == PACKAGE.name and module and candidate.is_file():
                    todo.append(candidate)
    return sorted(found)
