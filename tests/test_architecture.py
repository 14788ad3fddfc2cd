"""The rules that keep the program easy to change, read from its imports and syntax trees."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("artifactgen", "distributed")

LAYERS = {
    "errors": set(),
    "types": set(),
    "clock": set(),
    "embeddings": set(),
    "data": {"errors", "types"},
    "models": {"errors", "types"},
    "introspect": {"errors", "types", "models"},
    "rendering": {"errors", "types"},
    "store": {"errors", "types", "artifacts"},
    "artifacts": {"errors", "types", "models", "introspect", "rendering", "store"},
    "device": {"errors"},
    "engine": {"errors", "types", "models", "introspect", "artifacts", "device"},
    "job": {
        *("errors", "types", "data", "models", "introspect", "store"),
        *("artifacts", "device", "engine"),
    },
}
"""What each part of the library may import of it. What is not listed stands on top of all."""

KINDS = ("embedding", "cam.gradcam", "attention")

ONLY_IN = {
    "ray": {"distributed/runners/ray.py"},
    "hydra": {"distributed/cli.py", "distributed/job.py"},
    "submitit": set(),
    "pydantic": {"distributed/settings.py", "distributed/build.py"},
    "omegaconf": {
        "distributed/cli.py",
        "distributed/job.py",
        # Checkpoints of Lightning hold its classes; imported where one is read, if installed.
        "artifactgen/models/checkpoint.py",
        "artifactgen/models/pickles.py",
    },
    # The methods beside GradCAM; imported where one is asked for, if installed.
    "pytorch_grad_cam": {"artifactgen/artifacts/cam/methods.py"},
}
"""The only files that may import a package."""

COMMANDS = ("artifactgen.demo.checkpoint",)
"""Modules that are run and not imported: they may need more than the library."""


def modules(package: str) -> list[Path]:
    found = sorted((REPOSITORY / package).rglob("*.py"))
    assert found, package
    return found


def dotted(path: Path) -> str:
    """`artifactgen/data/base.py` → `artifactgen.data.base`."""
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(source: str) -> Iterator[str]:
    """Dotted names of everything that is imported, anywhere in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    return set(imports(path.read_text("utf-8")))


def part(name: str) -> str | None:
    """The part of the library that a dotted name lies in: `artifactgen.data.hdf5` in `data`."""
    package, _, rest = name.partition(".")
    first = rest.partition(".")[0]
    folder = REPOSITORY / "artifactgen" / first
    is_part = first and (folder.is_dir() or folder.with_suffix(".py").exists())
    return first if package == "artifactgen" and is_part else None


def handles_everything(node: ast.AST) -> bool:
    """Whether a node is a bare `except`, or one of `Exception`, or suppresses it."""
    if isinstance(node, ast.ExceptHandler):
        caught = ast.unparse(node.type) if node.type else "BaseException"
        return bool(re.search(r"\b(Base)?Exception\b", caught))
    if isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
        return any(ast.unparse(a) in ("Exception", "BaseException") for a in node.args)
    return False


def test_the_reader_of_imports_finds_them_all() -> None:
    source = (
        "import a.b, c as d\nfrom e.f import g as h, i\n"
        "def later():\n    import j\n    if j:\n        from k import l\n"
    )
    assert set(imports(source)) == {"a.b", "c", "e.f.g", "e.f.i", "j", "k.l"}
    with pytest.raises(AssertionError):
        list(imports("from . import a"))
    assert part("artifactgen.data.hdf5.Hdf5") == "data"
    assert part("artifactgen.__version__") is None


@pytest.mark.parametrize("handler", ["", "Exception", "(KeyError, BaseException)"])
def test_the_reader_of_handlers_finds_the_broad_ones(handler: str) -> None:
    found = ast.walk(ast.parse(f"try:\n    pass\nexcept {handler}:\n    pass"))
    assert any(map(handles_everything, found))
    narrow = ast.walk(ast.parse("try:\n    pass\nexcept (KeyError, OSError):\n    pass"))
    assert not any(map(handles_everything, narrow))
    assert any(map(handles_everything, ast.walk(ast.parse("with suppress(Exception): pass"))))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_library_is_built_in_layers(layer: str) -> None:
    folder = REPOSITORY / "artifactgen" / layer
    for path in modules(f"artifactgen/{layer}") if folder.is_dir() else [folder.with_suffix(".py")]:
        used = {found for name in imports_of(path) if (found := part(name))}
        assert used <= LAYERS[layer] | {layer}, f"{path} imports {used - LAYERS[layer] - {layer}}"


def test_every_folder_of_the_library_has_its_layer() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "artifactgen").glob("*/__init__.py")}
    assert folders <= LAYERS.keys()


def test_the_library_does_not_know_how_it_is_run() -> None:
    for path in modules("artifactgen"):
        roots = {name.partition(".")[0] for name in imports_of(path)}
        assert not roots & {"distributed", "ray", "hydra", "submitit", "pydantic"}, path


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    users = {
        str(path.relative_to(REPOSITORY))
        for folder in PACKAGES
        for path in modules(folder)
        if package in {name.partition(".")[0] for name in imports_of(path)}
    }
    assert users == ONLY_IN[package]


def test_kinds_of_artifacts_do_not_know_each_other() -> None:
    for kind in KINDS:
        others = {f"artifactgen.artifacts.{other}" for other in KINDS if other != kind}
        used = imports_of(REPOSITORY / "artifactgen" / "artifacts" / f"{kind.replace('.', '/')}.py")
        assert not {name.rpartition(".")[0] for name in used} & others, kind


@pytest.mark.parametrize(
    ("layer", "packages"),
    [("data", {"torch", "timm"}), ("rendering", {"torch", "timm"}), ("store", {"timm"})],
)
def test_data_pictures_and_files_know_no_model(layer: str, packages: set[str]) -> None:
    for path in modules(f"artifactgen/{layer}"):
        assert not {name.partition(".")[0] for name in imports_of(path)} & packages, path


def test_one_place_in_the_program_catches_everything() -> None:
    broad = [
        dotted(path)
        for package in PACKAGES
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if handles_everything(node)
    ]
    assert broad == ["artifactgen.data.base"]


def test_nothing_prints() -> None:
    for path in (path for package in PACKAGES for path in modules(package)):
        calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
        assert "print" not in {ast.unparse(call.func) for call in calls}, path


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_ours(package: str) -> None:
    """Another package on PyPI, of dask, is called `distributed` as well."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(REPOSITORY)


IMPORT_WITHOUT = """
import importlib, sys
blocked = sys.argv[1].split(",")
for name in blocked:
    sys.modules[name] = None
for name in sys.argv[2:]:
    importlib.import_module(name)
print(sorted(set(blocked) & {name.partition(".")[0] for name, m in sys.modules.items() if m}))
"""


def test_the_library_needs_nothing_of_the_command_line() -> None:
    blocked = "ray,hydra,submitit,omegaconf,pydantic,rich,pytorch_grad_cam,distributed"
    library = [name for path in modules("artifactgen") if (name := dotted(path)) not in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, blocked, *library],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
