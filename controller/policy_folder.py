"""A policy's folder before anything is started with it: where it lies, what it must hold, whether the settings suit it.

Owns: finding a run by its name and a run's newest policy, and `check_policy`. Called by the CLI, the cold start,
evaluation and calibration. Must not know: who made the folder, engines, Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.think_markers import check_cap_acts
from controller.checkpoint import POLICY_FOLDER, CheckpointStore
from controller.config import RunConfig
from controller.run_folder import RunFolder
from envs.environment import find_environment

RUNS = Path("runs")
"""Where a run is looked for by its name."""


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the path, what is missing and the remedy."""


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """A policy that a run made. `version`: the number of steps that it was trained for."""

    folder: Path
    version: int


def find_run(name: str) -> Path:
    """A run's folder, given as a path or as its name below runs/. Raises PolicyError when there is none."""
    for folder in (Path(name).expanduser(), RUNS / name):
        if folder.is_dir():
            return folder
    runs = sorted(
        (path for path in RUNS.glob("*/") if not path.name.startswith(".")), key=lambda path: path.stat().st_mtime
    )
    known = f"; newest: {', '.join(path.name for path in runs[-3:])}" if runs else ""
    raise PolicyError(f"{name!r}: no such folder, here or below {RUNS}/{known}")


def newest_policy(run: RunFolder) -> RunPolicy:
    """The policy of a run's newest checkpoint that is whole; before the first one, the policy that it starts from."""
    config = run.config()
    checkpoint = CheckpointStore(run.checkpoints, config.checkpoint.keep_last).latest()
    if checkpoint:
        return RunPolicy(checkpoint.path / POLICY_FOLDER, checkpoint.state.policy_version)
    return RunPolicy(run.policy if run.policy.is_dir() else Path(config.model).expanduser(), 0)


def find_policy(name: str) -> Path:
    """MODEL of a command: a Hugging Face folder, or a run, whose newest policy it is."""
    folder = find_run(name)
    return folder if (folder / "config.json").is_file() else newest_policy(RunFolder.read(folder)).folder


def check_policy(folder: Path, config: RunConfig) -> None:
    """Raises PolicyError unless `folder` holds a causal LM whose tokenizer can spell the reply format, MarkerError
    unless TTI can act in the replies that `config` allows."""
    if not folder.is_dir():
        raise PolicyError(f'model = "{folder}": no such folder; give "tiny", "smollm2" or the path of a model folder')
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise PolicyError(f"{folder}: {name} is missing; a Hugging Face folder with model and tokenizer is needed")
    if not any(folder.glob("*.safetensors")):
        raise PolicyError(f"{folder}: no *.safetensors file; save the model with save_pretrained()")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(f"{folder}: the tokenizer does not load ({error}); save it with save_pretrained()") from error
    if tokenizer.eos_token_id is None:
        raise PolicyError(f"{folder}: the tokenizer has no eos token; a reply could never end")
    if not tokenizer.chat_template:
        raise PolicyError(f"{folder}: the tokenizer has no chat template; set tokenizer.chat_template and save it")
    environment = find_environment(config.env.name)
    for marker in environment.markers:
        ids = tokenizer.encode(marker, add_special_tokens=False)
        if not ids or tokenizer.decode(ids).strip() != marker:
            raise PolicyError(f"{folder}: the tokenizer cannot spell {marker!r}; add it with tokenizer.add_tokens()")
    check_cap_acts(tokenizer, config.tti, config.inference.response_tokens, environment.forced_queue)
