"""Looks at folders of the corpus, each in a child with limits of time and memory.

    python -m corpus_runner < lines of "name<TAB>path<TAB>options as JSON"

prints one JSON line a folder: the findings as [name, level], or the error's family.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

#: CPU seconds and address space beyond that of the parent that a kind may take.
SECONDS = 20
MEMORY = 1 << 30


def look(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What `volprep check` says of a folder or config."""
    from volprep import pipeline
    from volprep.errors import VolprepError

    try:
        config = pipeline.load_target(path, **options)
        report = pipeline.check(config, pipeline.list_cases(config))
    except VolprepError as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {
        "findings": sorted({(f.name, f.level) for f in report.findings}),
        "text": "\n".join(map(str, report.findings)),
    }


def in_a_child(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """As `look`, in a process that may take so much and no more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        with open("/proc/self/statm") as pages:
            have = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY, have + MEMORY))
        try:
            result = look(path, options)
        except BaseException as error:
            result = {"error": f"traceback: {type(error).__name__}", "text": str(error)}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        with os.fdopen(writing, "w") as out:
            json.dump({**result, "peak": peak}, out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return {"error": f"killed: {status}", "text": ""}
    return dict(json.loads(text))


def main() -> None:
    """Read the list, print the results; the first kind of the list must be a sound one."""
    for number, line in enumerate(sys.stdin):
        name, path, options = line.rstrip("\n").split("\t")
        given = json.loads(options)
        if number == 0:  # what is imported and compiled before the children are made is theirs
            look(Path(path), given)
        print(json.dumps({"name": name, **in_a_child(Path(path), given)}), flush=True)


if __name__ == "__main__":
    main()
