"""Sweep a param over values: `python -m tools.sweep train.learning_rate 0.05 0.1 0.2 --seeds 1 2 3`.

Each value, with each seed, is an experiment of DVC. The results are a table, which says what is more than chance, and
a picture in sweeps/. Started again, the sweep runs only what is missing: a finished experiment counts as long as the
other params, the code and the data are the same.
"""

import argparse
import re

from stages.runtime.run import main


def run() -> None:
    """Run what is missing of the sweep, then print and draw the results. Raises UserError if a run failed."""
    chosen = arguments()
    from stages.plot.pictures import write_picture
    from stages.runtime import params
    from stages.runtime.errors import UserError, counted
    from tools.sweep import experiments, slots, summary
    from tools.sweep.picture import draw_sweep
    from tools.sweep.plan import plan

    params.load("params.yaml")  # reports its faults under its own name
    with slots.one_sweep_at_a_time() as lock:
        prepared = slots.prepared(min(chosen.jobs, len(chosen.values) * max(1, len(chosen.seeds))), lock)
        runs = plan(prepared[0].path, chosen.key, chosen.values, chosen.seed_param, chosen.seeds)
        results, failed = experiments.run_missing(runs, prepared, chosen.metric)
    values = summary.by_value(runs, results)
    if not results:
        raise UserError(f"all {counted(len(runs), 'run')} failed")
    print()
    print("\n".join(summary.table(values, chosen.key, chosen.metric, maximize=chosen.maximize)))
    picture = f"sweeps/{re.sub('[^A-Za-z0-9_.-]+', '-', f'{chosen.key}-{chosen.metric}')}.png"
    write_picture(picture, draw_sweep(values, chosen.key, chosen.metric))
    print(f"The picture is {picture}; `dvc exp list -A` has the names of all runs.")
    if failed:
        raise UserError(f"{counted(failed, 'run')} of {len(runs)} failed; the same command tries again")


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tools.sweep", description="Sweep a param over values.")
    parser.add_argument("key", metavar="PARAM", help="the param, such as train.learning_rate")
    parser.add_argument("values", metavar="VALUE", nargs="+", help="its values, written as for `dvc exp run -S`")
    parser.add_argument("--seeds", metavar="N", nargs="+", type=int, default=[], help="run each value with each seed")
    parser.add_argument(
        "--seed-param", metavar="PARAM", default="train.seed", help="the param that is the seed (default: %(default)s)"
    )
    parser.add_argument("--metric", default="test_rmse", help="what to compare (default: %(default)s)")
    parser.add_argument("--maximize", action="store_true", help="more is better, as for test_r2")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="runs at a time (default: %(default)s)")
    chosen = parser.parse_args()
    if chosen.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {chosen.jobs}")
    if chosen.seeds and chosen.seed_param == chosen.key:
        parser.error(f"--seed-param must be another param than the swept one, {chosen.key}")
    return chosen


if __name__ == "__main__":
    main(run)
