"""Writes what is made from the settings: units/virtproxyd.conf and docs/configuration.md.

`script/with python script/generate_settings.py`, after a change of proxyd/config/settings.py.
tests/config/test_example.py and tests/config/test_page.py hold the two files to what it writes.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proxyd.config.example import example  # noqa: E402
from proxyd.config.page import page  # noqa: E402

WRITTEN = {"units/virtproxyd.conf": example, "docs/configuration.md": page}

if __name__ == "__main__":
    for name, made in WRITTEN.items():
        (ROOT / name).write_text(made(), encoding="utf-8")
