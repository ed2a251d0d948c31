"""Run a stage: `python -m stages train`."""

import sys

from stages.runtime.run import main, run

if __name__ == "__main__":
    main(lambda: run(" ".join(sys.argv[1:])))
