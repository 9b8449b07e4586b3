"""Is a file for Ray's cluster launcher right? `python -m controller.ray_launcher_file FILE`.

Owns: asking Ray's own validation, without reaching any machine. Called by `controller.remote_cluster` and tests. Must
not know: what the file describes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from controller.causes import cause_of
from controller.local_cluster.state import ClusterError


def check_file(path: Path) -> dict[str, Any]:
    """The file as Ray completes it. ClusterError with Ray's own words."""
    import yaml  # type: ignore[import-untyped]
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        prepared: dict[str, Any] = prepare_config(config)
        validate_config(prepared)
    except Exception as error:  # the boundary that stops: Ray raises what jsonschema raises
        cause = getattr(error, "message", "") or cause_of(error)  # jsonschema's: without a page of schema
        raise ClusterError(f"{path}: not a file for `ray up`: {cause}") from error
    return prepared


if __name__ == "__main__":
    try:
        check_file(Path(sys.argv[1]))
    except ClusterError as problem:
        sys.exit(str(problem))
    print(f"{sys.argv[1]}: Ray accepts it")
