"""The files of a run: where they lie, how they are committed, locked, checked and merged."""
