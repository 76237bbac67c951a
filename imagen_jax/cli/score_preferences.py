"""`imagen score preferences.csv`: what people prefer, in shares with intervals."""

import glob
import json
from pathlib import Path
from typing import Any

from imagen_jax.evaluate import preferences
from imagen_jax.evaluate.preferences import Share
from imagen_jax.io.atomic import write_atomic

FILE = "preferences.json"


def run(address: str, out: Path) -> None:
    """Score one file of answers, or all that a pattern such as 'votes/*.csv' names.

    Errors: FileNotFoundError for none; as `preferences.read_votes`.
    """
    files = [Path(address)] if Path(address).exists() else sorted(map(Path, glob.glob(address)))
    if not files:
        raise FileNotFoundError(f"no file {address}: give preferences.csv, or 'FOLDER/*.csv'")
    votes = preferences.read_votes(files)
    whole, parts = preferences.score(votes), preferences.by_category(votes)
    document: dict[str, Any] = {
        "study": votes[0].study,
        "raters": len({vote.rater for vote in votes}),
        "prompts": len({vote.index for vote in votes}),
        "answers": len(votes),
        "percent": _plain(whole),
        "by_category": {name: _plain(found) for name, found in parts.items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    for name, found in {"": whole, **parts}.items():
        for question, shares in found.items():
            cells = [f"{c} {s.share:.1f} ({s.low:.1f} to {s.high:.1f})" for c, s in shares.items()]
            print(f"{name:<20}{question:<11}{'   '.join(cells)}")
    print(f"percent, with intervals of 95 %; {len(votes):,} answers; all of it is in {out / FILE}")


def _plain(found: dict[str, dict[str, Share]]) -> dict[str, Any]:
    return {q: {c: share._asdict() for c, share in shares.items()} for q, shares in found.items()}
