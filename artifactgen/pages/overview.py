"""The contact sheet of a split: what came out, at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from artifactgen.pages.base import MergedRun, Page
from artifactgen.store.layout import Layout, safe_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview(Page):
    """The contact sheet of a split: some records of each class."""

    files: ClassVar[tuple[str, ...]] = ("overview_*.png",)

    records: int = 16
    """At most so many."""

    def path(self, layout: Layout, split: str) -> Path:
        return layout.root / f"overview_{safe_name(split)}.png"

    def write(self, run: MergedRun, split: str) -> None:
        # Drawing takes half a second to import; whether a page is due is asked without it.
        from artifactgen.pages.contact_sheet import make_sheet
        from artifactgen.rendering.png import encode_png
        from artifactgen.rendering.sheet import draw_sheet
        from artifactgen.store.atomic import write_bytes
        from artifactgen.store.sample import sample_evenly

        layout = run.job.layout
        manifest = layout.scope(split).manifest
        chosen, total = sample_evenly(manifest, most=self.records)
        sheet = make_sheet(run, split, chosen, total=total)
        png = encode_png(draw_sheet(sheet), {**run.job.provenance, "Split": split})
        write_bytes(self.path(layout, split), png, temp_dir=layout.temp)
