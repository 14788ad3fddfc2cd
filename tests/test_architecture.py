"""The rules that keep the program easy to change, read from its imports and syntax trees."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("artifactgen", "distributed")

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "clock": set(),
    "filetypes": {"errors"},
    "patience": {"errors"},
    "data": {"errors", "filetypes", "patience", "types"},
    "models": {"errors", "filetypes", "patience", "types"},
    "introspect": {"errors", "models"},
    "rendering": {"errors", "types"},
    "store": {"errors", "types"},
    "labels": {"types"},
    "confusion": {"labels", "types"},
    "device": {"errors", "types"},
    "embeddings": {"errors", "store"},
    "plan": {"data", "errors", "store", "types"},
    "artifacts": {
        *("device", "errors", "introspect", "models", "rendering", "store", "types"),
    },
    "engine": {"artifacts", "device", "introspect", "types"},
    "pixels": {"engine", "types"},
    "job": {"artifacts", "data", "engine", "labels", "models", "store", "types"},
    "assembly": {
        *("artifacts", "device", "engine", "errors", "introspect", "job", "models"),
        *("rendering", "types"),
    },
    "explainer": {
        *("artifacts", "assembly", "device", "engine", "errors", "introspect", "models"),
        *("pixels", "rendering", "types"),
    },
    "shard": {"artifacts", "job", "labels", "store", "types"},
    "worker": {
        *("assembly", "clock", "data", "device", "engine", "errors", "job", "shard", "store"),
        *("types",),
    },
    "firstlook": {"confusion", "data", "engine", "introspect", "job", "pixels", "types"},
    "reducer": {"embeddings", "plan", "store", "types"},
    "preflight": {
        *("artifacts", "assembly", "data", "engine", "errors", "firstlook", "introspect", "job"),
        *("models", "store", "types"),
    },
    "pages": {
        *("artifacts", "confusion", "data", "errors", "job", "rendering", "store", "types"),
    },
    "demo": {"clock", "data", "errors", "models", "store", "types"},
}
"""What each part of the library may import of it. From bottom to top."""

KINDS = ("embedding", "cam.gradcam", "attention")

ONLY_IN = {
    "ray": {"distributed/runners/ray_data.py", "distributed/runners/ray_session.py"},
    "hydra": {"distributed/cli.py", "distributed/job.py"},
    "submitit": {"distributed/slurm/submit.py"},
    "pydantic": {"distributed/settings.py", "distributed/instantiate.py"},
    "omegaconf": {
        "distributed/cli.py",
        "distributed/job.py",
    },
    # One family of models; and a closed form that is derived for its ViT.
    "timm": {
        "artifactgen/models/timm.py",
        "artifactgen/models/timm_adapt.py",
        "artifactgen/models/timm_build.py",
        "artifactgen/models/candidates.py",
        "artifactgen/models/recognise.py",
        "artifactgen/artifacts/cam/closed_forms.py",
    },
    # Each one family of models.
    "torchvision": {"artifactgen/models/torchvision.py"},
    "transformers": {
        "artifactgen/models/huggingface.py",
        "artifactgen/models/transformers_nets.py",
    },
    # Where it gives what Pillow does.
    "simplejpeg": {"artifactgen/data/jpeg.py"},
    # An extra; imported where a file is DICOM.
    "pydicom": {"artifactgen/data/dicom.py"},
    # The methods beside GradCAM; imported where one is asked for, if installed.
    "pytorch_grad_cam": {"artifactgen/artifacts/cam/methods.py"},
}
"""The only files that may import a package."""

COMMANDS = ("artifactgen.demo.__main__", "artifactgen.demo.checkpoint")
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


def test_every_part_of_the_library_has_its_layer() -> None:
    top = REPOSITORY / "artifactgen"
    folders = {path.parent.name for path in top.glob("*/__init__.py")}
    assert folders | {path.stem for path in top.glob("*.py")} - {"__init__"} == LAYERS.keys()


def test_the_layers_have_an_order() -> None:
    order = list(LAYERS)
    for layer, below in LAYERS.items():
        assert below <= set(order[: order.index(layer)]), layer


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Types may name each other; what is imported when a file is run has no circle."""
    files = {dotted(path): path for package in PACKAGES for path in modules(package)}
    graph = {name: imported_at_once(path, set(files)) for name, path in files.items()}
    tuple(TopologicalSorter(graph).static_order())


def imported_at_once(path: Path, known: set[str]) -> set[str]:
    """Files of ours that are run when this one is: not those for types, nor within functions."""
    tree = ast.parse(path.read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found: set[str] = set()
    for node in at_once:
        names = [f"{node.module}.{a.name}" for a in node.names] if hasattr(node, "module") else []
        for name in names or [alias.name for alias in node.names]:
            found |= {name, name.rpartition(".")[0]} & known
    return found - {dotted(path)}


def test_files_of_tests_have_names_of_their_own() -> None:
    """Without packages of tests, pytest takes two of one name for the same."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_looking_into_a_model_knows_no_family() -> None:
    for path in modules("artifactgen/introspect"):
        used = {n for n in imports_of(path) if n.startswith("artifactgen.models")}
        known = {"artifactgen.models.base", "artifactgen.models.shape"}
        assert {name.rpartition(".")[0] for name in used} <= known, path


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
    [("data", {"torch", "timm"}), ("rendering", {"torch", "timm"}), ("store", {"torch", "timm"})],
)
def test_data_pictures_and_files_know_no_model(layer: str, packages: set[str]) -> None:
    for path in modules(f"artifactgen/{layer}"):
        assert not {name.partition(".")[0] for name in imports_of(path)} & packages, path


def test_only_what_a_source_does_is_caught_whatever_it_is() -> None:
    broad = [
        dotted(path)
        for package in PACKAGES
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if handles_everything(node)
    ]
    # Around the decoding of a record, and around what a source does besides.
    assert broad == ["artifactgen.data.base", "artifactgen.data.reading"]


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


def test_what_needs_no_model_is_known_without_torch() -> None:
    """A wrong option, a missing file or a finished run must not wait for it."""
    blocked = "torch,timm,torchvision,ray,matplotlib,submitit"
    light = ["distributed.job", "distributed.cli", "artifactgen.pages.overview"]
    light += [
        f"artifactgen.data.{name}"
        for name in ("hdf5", "base", "parquet", "webdataset", "custom", "auto")
    ]
    light += [f"distributed.runners.{name}" for name in ("inline", "local", "ray", "slurm")]
    light += [f"distributed.slurm.{name}" for name in ("check", "task", "options", "follow")]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, blocked, *light],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_help_needs_nothing_at_all() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, "hydra,numpy,yaml", "distributed.launch"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
