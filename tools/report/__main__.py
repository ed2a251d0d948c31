"""Write a report of the pipeline's results, one page that needs no network: `python -m tools.report [REV]`."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.runtime.errors import UserError
from stages.runtime.run import main
from tools.report import contents


def text_of(value: Any, *, signed: bool = False) -> str:
    """Return a value as the tables show it: numbers with five significant digits, integers whole."""
    if value is contents.MISSING:
        return "–"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:{'+' if signed else ''}.5g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:{'+' if signed else ''}d}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def page(shown: contents.Contents) -> str:
    """Return the page: the template filled in, with the JavaScript that draws the charts."""
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["text"] = text_of
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    template = templates.get_template("template.html")
    return template.render(report=shown, workspace=contents.WORKSPACE, vega=vega)


def write() -> None:
    """Read the command line, write the page, say where it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.report", description=__doc__.partition(":")[0])
    parser.add_argument("rev", nargs="?", metavar="REV", help="a commit, branch, tag or experiment to compare with")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="default: %(default)s")
    options = parser.parse_args()
    content = page(contents.read(options.rev)).encode()
    try:
        Path(options.output).write_bytes(content)
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written: {error.strerror}") from error
    print(f"{options.output}: {len(content) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    main(write)
