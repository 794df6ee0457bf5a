"""python3 -m toast_evacuator beat|watch|decide [--config FILE]"""

import argparse
import logging
import sys

from toast_evacuator import beat, config, decide, watch


def main() -> None:
    """Runs one of the processes, which do not end by themselves."""
    parser = argparse.ArgumentParser(prog="toast-evacuator", description="Evacuates the instances of a compute that died.")
    processes = {"beat": beat.run, "watch": watch.run, "decide": decide.run}
    parser.add_argument("process", choices=processes)
    parser.add_argument("--config", default="/etc/toast-evacuator/config.json")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        options = config.load(arguments.config)
    except (OSError, ValueError, TypeError) as reason:
        sys.exit(f"{arguments.config}: {reason}")
    processes[arguments.process](options)


if __name__ == "__main__":
    main()
