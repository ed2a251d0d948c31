"""Say whether the test errors of two trainings differ by more than chance: `python -m tools.compare [REV …]`.

Without REV the workspace is compared with HEAD, with one REV with that; of several, all are compared with the first.
"""

import argparse
from typing import Any

from stages.runtime.run import main
from tools.compare.sides import read
from tools.compare.table import as_markdown, as_text, compare
from tools.revisions import WORKSPACE


def run() -> None:
    """Read the command line; print the comparison, and draw it if asked to."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=summary.partition(":")[0], epilog=rest.replace("\n", " ")
    )
    parser.add_argument("revs", nargs="*", metavar="REV", help=f"a commit, branch, tag or experiment, or `{WORKSPACE}`")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--picture", metavar="FILE", help="draw the intervals into a PNG")
    options = parser.parse_args()
    revs: list[Any] = options.revs or ["HEAD"]
    comparison = compare(read(revs if len(revs) > 1 else [*revs, WORKSPACE]))
    print((as_markdown if options.markdown else as_text)(comparison), end="")
    if options.picture:
        from stages.plot.pictures import write_picture  # late, as is the next: matplotlib takes a moment to load
        from tools.compare.picture import draw

        write_picture(options.picture, draw(comparison))


if __name__ == "__main__":
    main(run)
