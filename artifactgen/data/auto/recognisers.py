"""What a file or a folder is, and which choice of `data` reads it.

What can be recognised is the list at the end of this file, asked from its first line to its last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from artifactgen.data.auto.looking import MOST, Seen, look
from artifactgen.data.folders import class_folders, split_folders
from artifactgen.data.parquet.columns import Asked, find_columns
from artifactgen.data.parquet.files import DICT, STATE
from artifactgen.data.parquet.tables import Stored
from artifactgen.data.pictures import ENDINGS
from artifactgen.data.splits import group_by_split
from artifactgen.data.walking import files_below
from artifactgen.errors import DataError
from artifactgen.filetypes import EMPTY, TORCH_FILE, describe_file

_PACKED = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What something is, and how it is read."""

    what: str
    options: tuple[str, ...] = ()
    """Of the command line; none where nothing reads it as it is."""
    remedy: str = ""


def recognise(path: Path) -> Recognised:
    """Look at a file or a folder.

    Raises:
        DataError: there is nothing at the path.
    """
    seen = look(path)
    return next(found for recogniser in RECOGNISERS if (found := recogniser(seen)))


def _empty(seen: Seen) -> Recognised | None:
    if seen.is_folder and not seen.kinds:
        return Recognised("an empty folder", remedy="Is it the right one, and is it mounted?")
    return Recognised("an empty file") if seen.what == EMPTY else None


def _acdc(seen: Seen) -> Recognised | None:
    parts = [part for part in ("training", "testing") if (seen.path / part).is_dir()]
    patients = [p for part in parts for p in (seen.path / part).glob("patient*/Info.cfg")]
    if not patients:
        return None
    what = f"the ACDC release, {_counted(len(patients), 'patient')} in {' and '.join(parts)}"
    return Recognised(what, ("data=cmr_acdc", f"data.root={seen.path}"))


def _saved(seen: Seen) -> Recognised | None:
    if not any((seen.path / name).is_file() for name in (DICT, STATE)):
        return None
    what = "a data set that datasets saved to disk"
    return Recognised(what, ("data=parquet", f"data.path={seen.path}"))


def _tables(seen: Seen) -> Recognised | None:
    count = seen.count(".parquet", ".arrow", ".feather")
    if not count and seen.what not in ("a Parquet table", "an Arrow table"):
        return None
    table = seen.a(".parquet", ".arrow", ".feather") if count else seen.path
    one = _one_table(table)
    if "data=parquet" not in one.options or not seen.is_folder:
        return one
    what = f"{_counted(count, 'table')} of pictures{_of_splits(seen, table.suffix)}"
    return Recognised(what, ("data=parquet", f"data.path={seen.path}"))


def _one_table(table: Path) -> Recognised:
    """A table of pictures, or one of paths to them."""
    try:
        schema = Stored(table).schema
    except DataError as error:
        return Recognised(f"a broken table ({error})")
    if "path" in schema.names:
        return Recognised("a table of paths", ("data=manifest", f"data.path={table}"))
    options = ("data=parquet", f"data.path={table}")
    try:
        columns = find_columns(schema, Asked(), path=str(table))
    except DataError as error:
        return Recognised("a table", options, remedy=str(error))
    label = f", labels in {columns.label}" if columns.label else ", no labels"
    return Recognised(f"a table of pictures in {columns.image}{label}", options)


def _shards(seen: Seen) -> Recognised | None:
    count = seen.kinds[".tar"]
    if not count and seen.what != "a tar archive":
        return None
    if not seen.is_folder:
        what = "a tar archive, as webdataset has them"
        return Recognised(what, ("data=webdataset", f"data.path={seen.path}"))
    pattern = _pattern(seen.path, ".tar")
    what = f"{_counted(count, 'tar shard')}{_of_splits(seen, '.tar')}"
    return Recognised(what, ("data=webdataset", f"data.path={pattern}"))


def _hdf5(seen: Seen) -> Recognised | None:
    endings = (".h5", ".hdf5", ".hdf")
    if seen.what == "an HDF5 file":
        return Recognised("an HDF5 file", ("data=hdf5", f"data.path={seen.path}"))
    if not seen.is_folder or not seen.count(*endings):
        return None
    pattern = _pattern(seen.path, seen.a(*endings).suffix)
    what = _counted(seen.count(*endings), "HDF5 file")
    return Recognised(what, ("data=hdf5", f"data.path={pattern}"))


def _manifest(seen: Seen) -> Recognised | None:
    if not seen.is_folder:
        is_table = (seen.what or "").startswith("a table in text") or (
            seen.what == "a text file (CSV)"
        )
        return _of_csv(seen.path) if is_table else None
    tables = sorted([*seen.path.glob("*.csv"), *seen.path.glob("*.tsv")])
    lists_paths = [table for table in tables if "path" in _head(table)]
    return _of_csv(lists_paths[0]) if lists_paths else None


def _of_csv(table: Path) -> Recognised:
    options = ("data=manifest", f"data.path={table}")
    if "path" in (columns := _head(table)):
        return Recognised("a table of paths", options)
    remedy = f"Its columns are {', '.join(columns)}: which one holds the paths?"
    return Recognised("a table", (*options, "data.path_column=<column>"), remedy)


def _head(table: Path) -> list[str]:
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline(1 << 16).strip()
    separator = max(",;\t|", key=line.count)
    return [name.strip(' "') for name in line.split(separator)]


def _volumes(seen: Seen) -> Recognised | None:
    count = seen.count(".nii", ".nii.gz")
    if not count and "NIfTI" not in (seen.what or ""):
        return None
    what = _counted(count or 1, "NIfTI volume")
    return Recognised(what, ("data=nifti_folder", f"data.root={seen.folder}"))


def _dicom(seen: Seen) -> Recognised | None:
    nameless = seen.first.get("") if seen.is_folder else seen.path
    is_dicom = nameless is not None and describe_file(nameless) == "a DICOM file"
    if not is_dicom and not seen.count(".dcm", ".ima"):
        return None
    count = seen.count(".dcm", ".ima") or seen.kinds[""] or 1
    what = _counted(count, "DICOM file")
    return Recognised(what, ("data=dicom_folder", f"data.root={seen.folder}"))


def _pictures(seen: Seen) -> Recognised | None:
    count = seen.count(*ENDINGS)
    if not count and not (seen.what or "").endswith(" image"):
        return None
    if not seen.is_folder:
        what = f"{seen.what or 'a picture'}; a folder of them is a data set"
        return Recognised(what, ("data=image_folder", f"data.root={seen.path.parent}"))
    splits = split_folders(seen.path)
    classes = class_folders(splits, None)
    told = [f"{s.name} ({_few(files_below(s.folder, endings=ENDINGS))})" for s in splits]
    by_class = f"; {_counted(len(classes), 'class', 'classes')}: {_named(classes)}"
    what = (
        f"a folder of pictures, splits {', '.join(told)}{by_class if classes else '; no classes'}"
    )
    return Recognised(what, ("data=image_folder", f"data.root={seen.path}"))


def _packed(seen: Seen) -> Recognised | None:
    is_packed = "zip archive" in (seen.what or "") or "packed by" in (seen.what or "")
    if not seen.count(*_PACKED) and not is_packed:
        return None
    archive = seen.a(*_PACKED) if seen.count(*_PACKED) else seen.path
    unpack = f"unzip {archive}" if archive.suffix == ".zip" else f"tar -xf {archive}"
    what = seen.what or _counted(seen.count(*_PACKED), "packed archive")
    return Recognised(what, remedy=f"Unpack it, and ask again for the folder: {unpack}")


def _unknown(seen: Seen) -> Recognised:
    known = "Pictures, tables, tar shards, HDF5, NIfTI and DICOM are read."
    own = "A class of your own reads anything: data=custom data.target=mypkg.MyDataset"
    if seen.what == TORCH_FILE:
        return Recognised(seen.what, remedy=f"Is it the model? Then ckpt_path={seen.path}")
    if not seen.is_folder:
        return Recognised(seen.what or "a file of no known kind", remedy=f"{known} {own}")
    kinds = [f"{kind or 'without an ending'} {n:,}" for kind, n in seen.kinds.most_common(8)]
    return Recognised(
        f"a folder of files that are not known ({', '.join(kinds)})", (), f"{known} {own}"
    )


def _of_splits(seen: Seen, ending: str) -> str:
    """`; splits train, val`, as names of files tell."""
    names = islice(files_below(seen.path, endings=(ending,)), MOST)
    try:
        groups = group_by_split(names, remedy="")
    except DataError as error:
        return f"; {str(error).partition('. ')[0]}"
    return f"; splits {', '.join(f'{split} ({len(own):,})' for split, own in groups.items())}"


def _pattern(folder: Path, ending: str) -> str:
    """A glob of the files in a folder, or in folders below it."""
    return f"{folder}/{'*' if any(folder.glob(f'*{ending}')) else '**/*'}{ending}"


def _few(names: Iterator[str]) -> str:
    count = sum(1 for _ in islice(names, MOST))
    return f"{count:,}{' or more' if count == MOST else ''}"


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (", …" if names[6:] else "")


RECOGNISERS: tuple[Callable[[Seen], Recognised | None], ...] = (
    _empty,
    _acdc,
    _saved,
    _tables,
    _shards,
    _hdf5,
    _manifest,
    _volumes,
    _dicom,
    _pictures,
    _packed,
    _unknown,
)
"""The first that recognises what was looked at answers; to add one, write it and add it here."""
