"""Equal bytes in every test: MKL must not round by where arrays happen to lie in memory."""

from __future__ import annotations

import os

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
