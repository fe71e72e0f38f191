"""Shell completion that knows the commands: a short script a shell, which asks `dgpo _complete` for the candidates.

`dgpo _complete WORD ...` gets the words after `dgpo` up to the cursor and prints the completions of the last one; so
every shell completes the paths in `resume=outp` and `runs=[o/a,o/` in the same way.
"""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from pathlib import Path

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.path_keys import files_at, is_path, paths_at
from dgpo_cli.errors import UsageError

BASH = """\
_dgpo() {
  local line=${COMP_LINE:0:COMP_POINT} candidates
  local -a words
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local last=${words[-1]}
  local before=${last%"${last##*[=:]}"}
  mapfile -t candidates < <(dgpo _complete "${words[@]:1}" 2>/dev/null)
  COMPREPLY=("${candidates[@]#"$before"}")
  [[ ${#candidates[@]} -eq 1 && ${candidates[0]} == *[=./:] ]] && compopt -o nospace
  [[ ${#candidates[@]} -eq 0 ]] && compopt -o default
  return 0
}
complete -F _dgpo dgpo"""

ZSH = """\
_dgpo() {
  local -a line candidates
  line=("${(@z)LBUFFER}")
  local first=${line[(I)dgpo]}
  line=("${(@Q)line[first,-1]}")
  [[ $LBUFFER == *' ' ]] && line+=('')
  local typed=${line[-1]#[\\'\\"]}
  candidates=("${(@f)$(dgpo _complete "${(@)line[2,-2]}" "$typed" 2>/dev/null)}")
  candidates=(${candidates:#})
  # After runs=[ zsh completes what follows the bracket alone.
  [[ $1 == subscript ]] && candidates=("${(@)candidates#"${typed%"$PREFIX"}"}")
  compadd -S '' -a candidates
}
_dgpo_subscript() {
  if [[ $LBUFFER == (|*[[:space:]])dgpo\\ * ]]; then _dgpo subscript; else _subscript; fi
}
compdef _dgpo dgpo
compdef _dgpo_subscript -subscript-
alias dgpo='noglob dgpo'  # or runs=[a,b] would be a pattern"""

FISH = """\
complete -c dgpo -f -a '(dgpo _complete (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
FLAGS = ("-h", "-m", "--cfg", "--config-dir", "--info")


def script(words: list[str]) -> str:
    """The script of a shell; raises UsageError for a shell that has none."""
    if len(words) != 1 or words[0] not in SCRIPTS:
        shells = "|".join(SCRIPTS)
        given = f"got '{' '.join(words)}'" if words else "got none"
        raise UsageError(f"completion: expected a shell, {given}", f"dgpo completion {shells}")
    return SCRIPTS[words[0]]


def candidates(words: list[str]) -> list[str]:
    """The completions of the last word, given the words before it. Empty if there are none."""
    *before, word = words or [""]
    if not before:
        return _starting(word, [*COMMANDS, "help", "completion", "--version", "-h"])
    verb = before[0]
    if verb == "completion":
        return _starting(word, list(SCRIPTS))
    if verb == "help":
        known = {key for command in COMMANDS for key in catalogue.keys(command)}
        name, equals, _ = word.partition("=")
        if equals:
            verb = next((verb for verb in COMMANDS if name in (*catalogue.groups(verb), "recipe")), "train")
            return _values(verb, name, word.partition("=")[2], [])
        return _starting(word, ["keys", "recipe", *sorted(known)])
    if verb not in COMMANDS:
        return []
    if before[-1] in ("--config-dir", "-cd"):
        return files_at(word, ())
    if before[-1] == "--cfg":
        return _starting(word, ["job", "hydra", "all"])
    if word.startswith("-"):
        return _starting(word, list(FLAGS))
    name, equals, value = word.partition("=")
    if equals:
        return _values(verb, name, value, _config_dirs(before))
    return _starting(word, _names(verb, word)) or files_at(word, (".yaml", ".yml"))


def _names(verb: str, word: str) -> list[str]:
    """Groups, keys of the section that is typed, and sections; not the whole tree at once."""
    names = ["recipe=" if group == catalogue.RECIPES else f"{group}=" for group in catalogue.groups(verb)]
    section = word.rpartition(".")[0]
    for path, key in catalogue.keys(verb).items():
        if path.rpartition(".")[0] == section:
            names.append(f"{path}." if key.is_section else f"{path}=")
    return names


def _values(verb: str, name: str, value: str, config_dirs: list[Path]) -> list[str]:
    done = value[: max(value.rfind(","), value.rfind("[")) + 1]  # of a sweep or list: seed=0,1, or runs=[o/a,
    group = catalogue.RECIPES if name == "recipe" else name
    if group in catalogue.groups(verb):
        known = catalogue.options(group, config_dirs)
    elif is_path(name):
        known = paths_at(name, value.removeprefix(done))
    else:
        key = catalogue.keys(verb).get(name)
        plain = catalogue.plain_type(key.type) if key else None
        if plain is bool:
            known = ["true", "false"]
        else:
            known = [member.name for member in plain] if isinstance(plain, type) and issubclass(plain, Enum) else []
    return _starting(f"{name}={value}", [f"{name}={done}{option}" for option in known])


def _config_dirs(before: list[str]) -> list[Path]:
    flags = ("--config-dir", "-cd")
    return [Path(after) for flag, after in pairwise(before) if flag in flags]


def _starting(word: str, known: list[str]) -> list[str]:
    return [candidate for candidate in dict.fromkeys(known) if candidate.startswith(word)]
