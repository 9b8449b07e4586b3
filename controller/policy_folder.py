"""A policy's folder before anything is started with it: what it must hold, and that the settings suit its tokenizer.

Owns: `check_policy`. Called by the cold start and by evaluation. Must not know: who made the folder, engines.
"""

from __future__ import annotations

from pathlib import Path

from actors.think_markers import check_cap_acts
from controller.config import RunConfig
from envs.environment import find_environment


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the path, what is missing and the remedy."""


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
