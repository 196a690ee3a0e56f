"""Arguments that several jobs take."""

from typing import Annotated

import tyro

# Folder or URI of the corpus.
Root = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
# --json: print one JSON object instead of text.
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Sources = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=PATH")]
