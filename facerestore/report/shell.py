"""What every page of ours is made of: a self-contained document in which no other script or style runs."""

import base64
import hashlib
import html
import io
from functools import cache
from importlib.resources import files

from PIL import Image

_QUALITY = 82

WARNING = "Restored detail is invented. It shows what may have been, and is no evidence of who somebody is."


@cache
def asset(name: str) -> str:
    """The text of a file beside this one."""
    return files("facerestore.report").joinpath(name).read_text(encoding="utf-8")


def escaped(value: object) -> str:
    """Text as HTML shows it."""
    return html.escape(str(value), quote=True)


def head(title: str, script: str = "") -> str:
    """The beginning of a page, up to its heading.

    Args:
        title: of the page.
        script: the one that `foot` will end with.
    """
    scripts = _source(script) if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(asset('page.css'))}; "
        f"script-src {scripts}; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{asset('page.css')}</style></head><body><main>"
        f"<h1>{escaped(title)}</h1>"
    )


def foot(script: str = "") -> str:
    """The end of a page, with the script whose hash its head names."""
    return f"</main>{f'<script>{script}</script>' if script else ''}</body></html>\n"


def jpeg_uri(image: Image.Image) -> str:
    """A small picture as it stands in the page."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _source(text: str) -> str:
    """A block as a Content-Security-Policy names it: by its hash, so that no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
