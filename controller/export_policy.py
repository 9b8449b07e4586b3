"""`t2po export`: the policy of a checkpoint as a plain Hugging Face folder, outside the run.

Owns: the copy, complete or not there. Called by the CLI. Must not know: what the learner writes, engines. May be used
while the run goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from controller.checkpoint import POLICY_FOLDER, CheckpointError, CheckpointStore
from controller.durable_files import RunFolderError
from controller.run_folder import RunFolder


def export_policy(run: Path, which: str = "last", to: Path | None = None) -> Path:
    """Copies the policy of checkpoint `which` ("last", "best", or a step) to `to`; where it is now.

    Without `to` it goes to `exported/step-N` in the run. Every file of the checkpoint is compared with its checksum
    first. Raises CheckpointError when there is no such checkpoint, RunFolderError when `to` holds something.
    """
    folder = RunFolder.read(run)
    checkpoint = CheckpointStore(folder.checkpoints, keep_last=1).choose(which)
    target = (to or folder.path / "exported" / checkpoint.path.name).expanduser().absolute()
    fresh = target.with_name(f".{target.name}.new")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise RunFolderError(f"{target}: is there already and is not empty; name another folder with --to")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(checkpoint.path / POLICY_FOLDER, fresh)
        fresh.replace(target)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{error.filename}: is gone; the run removed this checkpoint meanwhile: try again"
        ) from error
    except OSError as error:
        raise RunFolderError.of(target, error, "write the exported policy") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target
