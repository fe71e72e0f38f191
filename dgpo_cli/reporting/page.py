"""HTML pages that are one file: style, script and data inside, nothing asked of any network.

A page is a template of `pages/` with its CSS and JS files. Its policy allows these by their hash and nothing else, so
text that would slip past the escaping still could not run or load anything.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray


def assemble(template: str, *, styles: Sequence[str], scripts: Sequence[str], title: str, data: Any) -> str:
    """The page. Files are named as in `pages/`; `data` is read by the script from the element `#data`.

    A template holds %TITLE%, %POLICY%, %STYLE%, %DATA% and %SCRIPT%, each once.
    """
    style, script = ("\n".join(_read(name) for name in names) for names in (styles, scripts))
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'"
    parts = {
        "%TITLE%": html.escape(title),
        "%POLICY%": f"{policy}; form-action 'none'",
        "%STYLE%": style,
        "%DATA%": script_json(data),
        "%SCRIPT%": script,
    }
    # Split once: a placeholder's name within a text stays as it is.
    return "".join(parts.get(piece, piece) for piece in re.split(f"({'|'.join(parts)})", _read(template)))


def script_json(data: Any) -> str:
    """JSON that can stand within <script>: nothing in it ends the element or a line."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(values: Sequence[float] | Sequence[int] | NDArray[Any], kind: str) -> str:
    """Numbers as base64 of their little-endian bytes: `f4` holds a signal as it is stored, `u2` and `u4` indices."""
    return base64.b64encode(np.asarray(values, dtype=f"<{kind}").tobytes()).decode("ascii")


def _read(name: str) -> str:
    return (files("dgpo_cli.reporting") / "pages" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
