"""Reading a cell's source without running it."""

import ast

# Importing any of these leads to torch; the first three import it at once.
TORCH_AT_ONCE = {"torch", "torchvision", "torchaudio"}
TORCH = TORCH_AT_ONCE | {"ultralytics", "transformers", "diffusers"}
TENSORFLOW = {"tensorflow", "keras"}
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a cell; IPython's `%` and `!` lines count as nothing. None if not
    Python."""
    lines = []
    for line in source.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(f"{indent}pass" if line.lstrip().startswith(("%", "!")) else line)
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return None


def imports(source: str) -> list[tuple[str, int]]:
    """The top-level modules that a cell imports and the lines (from 1), in the order of the
    text."""
    found = []
    for node in ast.walk(parse(source) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            found += [(node.lineno, n, a.name) for n, a in enumerate(node.names)]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.lineno, 0, node.module))
    return [(name.partition(".")[0], line) for line, _, name in sorted(found)]


def unsafe_loads(source: str) -> list[tuple[str, int]]:
    """Calls and imports that unpickle, with their lines: a stranger's file could run code."""
    found = [(f"{n} unpickles", line) for n, line in imports(source) if n in UNPICKLERS]
    for node in ast.walk(parse(source) or ast.Module([], [])):
        if not isinstance(node, ast.Call):
            continue
        options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        called = ast.unparse(node.func)
        if called == "torch.load" and options.get("weights_only") is not True:
            found.append(("torch.load without weights_only=True unpickles", node.lineno))
        elif options.get("allow_pickle") is True:
            found.append((f"{called} with allow_pickle=True unpickles", node.lineno))
        elif called.endswith(".read_pickle"):
            found.append((f"{called} unpickles", node.lineno))
    return found


def defines(source: str) -> bool:
    """True if the cell defines a function or class at its top level."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    tree = parse(source)
    return tree is not None and any(isinstance(node, kinds) for node in tree.body)


def can_fail(source: str) -> bool:
    """True if the cell asserts, raises, or calls something that does so by its name."""
    for node in ast.walk(parse(source) or ast.Module([], [])):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("compare", "check") or name.startswith(("assert_", "check_")):
                return True
    return False
