"""The commands of an admin session: their names, how they are typed, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from hansa.compat.flare.admin import looking
from hansa.compat.flare.admin.said import Said, said, table
from hansa.compat.flare.admin.verbs import APP_FILES, Target, Verbs
from hansa.errors import InputError

_LINES: Final = 10  # that head and tail show


@dataclass(frozen=True)
class Command:
    """A command: what its arguments are, and what it is good for."""

    usage: str
    about: str
    do: Callable[[Verbs, Sequence[str]], Said]


def run(verbs: Verbs, words: Sequence[str]) -> Said:
    """What the command says.

    Raises:
        InputError: there is no such command, or its arguments are wrong. RefusedError: a person may not do that from afar.
    """
    name, *arguments = words
    if (why := ELSEWHERE.get(name)) is not None:
        raise InputError(f"{name} has no meaning here: {why[0]}", hint=why[1])
    if name not in COMMANDS:
        raise InputError("no such command", got=name, hint="type ? for all of them")
    return COMMANDS[name].do(verbs, arguments)


def explained(name: str = "") -> Said:
    """All commands, or how one is typed."""
    if not name:
        width = max(map(len, COMMANDS))
        lines = [f"{each:<{width}}  {command.about}" for each, command in COMMANDS.items()]
        return said(
            *lines, 'Type "? COMMAND" for how it is typed. "> FILE" also writes what is shown, ">> FILE" adds it to the file alone.'
        )
    if name in ELSEWHERE:
        return said(f"{name} has no meaning here: {ELSEWHERE[name][0]} ({ELSEWHERE[name][1]})")
    if name not in COMMANDS:
        raise InputError("no such command", got=name, hint="type ? for all of them")
    return said(f"{name} {COMMANDS[name].usage}".rstrip(), COMMANDS[name].about)


def target_of(name: str, arguments: Sequence[str], *, all_too: bool = False) -> tuple[Target, list[str]]:
    """`server`, `client SITE ...` or `all`, with the names of sites.

    Raises:
        InputError: it is none of them.
    """
    first, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if first not in ("server", "client", *(["all"] if all_too else [])):
        raise InputError(f"invalid target type {first}. Usage: {name} {COMMANDS[name].usage}")
    return cast("Target", first), rest


def _check(verbs: Verbs, arguments: Sequence[str]) -> Said:
    target, names = target_of("check_status", arguments)
    return looking.check_server(verbs) if target == "server" else looking.check_client(verbs, names)


def _set(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.set_run_number(_number(arguments))


def _delete(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.delete_run_number(_number(arguments))


def _upload(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.upload_app(_only(arguments, "the folder of an app"))


def _deploy(verbs: Verbs, arguments: Sequence[str]) -> Said:
    if len(arguments) < 2:
        raise InputError("syntax error", expected="deploy " + COMMANDS["deploy"].usage)
    target, names = target_of("deploy", arguments[1:], all_too=True)
    return verbs.deploy_app(arguments[0], target, names)


def _start(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.start_app(*target_of("start", arguments, all_too=True))


def _abort(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.abort(*target_of("abort", arguments, all_too=True))


def _shutdown(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return verbs.shutdown(*target_of("shutdown", arguments, all_too=True))


def _stats(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    return looking.stats(verbs)


def _errors(verbs: Verbs, arguments: Sequence[str]) -> Said:
    return looking.errors(verbs, target_of("show_errors", arguments or ["server"])[1])


def _ls(verbs: Verbs, arguments: Sequence[str]) -> Said:
    options, words = _options(arguments, "alRSt")
    target, site, _ = _place("ls", words)
    return looking.ls(verbs, target, site, options)


def _cat(verbs: Verbs, arguments: Sequence[str]) -> Said:
    options, words = _options(arguments, "n")
    lines = _file(verbs, "cat", words)
    return _shown([f"{number:>6}  {line}" for number, line in enumerate(lines, 1)] if "n" in options else lines)


def _head(verbs: Verbs, arguments: Sequence[str]) -> Said:
    count, words = _count(arguments)
    return _shown(_file(verbs, "head", words)[:count])


def _tail(verbs: Verbs, arguments: Sequence[str]) -> Said:
    count, words = _count(arguments)
    lines = _file(verbs, "tail", words)
    return _shown(lines[max(0, len(lines) - count) :])


def _grep(verbs: Verbs, arguments: Sequence[str]) -> Said:
    options, words = _options(arguments, "incv")
    skip = 2 if words[:1] == ["client"] else 1
    if len(words) <= skip:
        raise InputError("syntax error", expected="grep " + COMMANDS["grep"].usage)
    pattern = words.pop(skip)
    return _shown(looking.matching(_file(verbs, "grep", words), pattern, options))


def _sites(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    found = verbs.session.sites()
    rows = [[each.site, each.org, "yes" if each.online else "no", ", ".join(sorted(each.data))] for each in found]
    return Said(table(["SITE", "ORG", "CONNECTED", "DATA"], rows), {"sites": [each.site for each in found]})


def _rules(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    found = {each.site: list(each.demands) for each in verbs.session.sites()}
    rows = [[site, demand] for site, demands in found.items() for demand in demands or ["what the project demands"]]
    return Said(table(["SITE", "DEMANDS OF EVERY JOB"], rows), {"rules": found})


def _sys_info(verbs: Verbs, arguments: Sequence[str]) -> Said:
    target, names = target_of("sys_info", arguments)
    if target == "server":
        raise InputError("the server's machine is its operator's", hint="GET /metrics, with their kit")
    rows = [
        [each.site, each.cores, each.gpus, f"{each.memory_bytes / 2**30:.1f}" if each.memory_bytes else "no limit"]
        for each in verbs.sites(names)
    ]
    return Said(table(["SITE", "CORES", "GPUS", "MEMORY GIB"], rows), {"sites": rows})


def _info(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    kit = verbs.session.kit
    lines = [f"Server: {kit.url}, project {kit.project}", f"You: {kit.name} of {kit.org}, {kit.role}"]
    return said(*lines, f"Local Upload Source: {verbs.uploads.resolve()}", user=kit.name, url=kit.url)


def _jobs(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    found = verbs.session.runs()[::-1]
    rows = [[each.run, each.label, each.author, each.state, f"{each.round}/{each.rounds}"] for each in found]
    return Said(table(["RUN", "LABEL", "AUTHOR", "STATE", "ROUNDS"], rows), {"jobs": [each.run for each in found]})


def _submit(verbs: Verbs, arguments: Sequence[str]) -> Said:
    folder = _only(arguments, "the folder of an app, or a job")
    reference = next(
        (str(verbs.uploads / folder / each) for each in APP_FILES if (verbs.uploads / folder / each).is_file()), folder
    )
    made = verbs.session.submit(reference)
    return said(f"Submitted job: {made.id}", job_id=made.id)


def _abort_job(verbs: Verbs, arguments: Sequence[str]) -> Said:
    status = verbs.session.run(_only(arguments, "a run")).abort("from the admin session")
    return said(f"{status.run} is {status.state}", job_id=status.run)


def _clone(verbs: Verbs, arguments: Sequence[str]) -> Said:
    made = verbs.session.clone(_only(arguments, "a run"))
    return said(f"Cloned job as: {made.id}", job_id=made.id)


def _delete_job(verbs: Verbs, arguments: Sequence[str]) -> Said:
    found = verbs.session.run(_only(arguments, "a run"))
    found.delete()
    return said(f"deleted {found.id}", job_id=found.id)


def _download(verbs: Verbs, arguments: Sequence[str]) -> Said:
    if len(arguments) > 2:
        raise InputError("syntax error", expected="download_job " + COMMANDS["download_job"].usage)
    found = verbs.session.run(arguments[0]) if arguments else verbs.needed_run()
    folder = found.download(Path(arguments[1]) if len(arguments) > 1 else None)
    return said(f"{found.id} is in {folder}", job_id=found.id, folder=str(folder))


def _lpwd(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del arguments
    return said(str(verbs.uploads.resolve()))


def _echo(verbs: Verbs, arguments: Sequence[str]) -> Said:
    del verbs
    return said(" ".join(arguments))


def _shown(lines: Sequence[str]) -> Said:
    return Said(lines, {"text": "\n".join(lines)})


def _number(arguments: Sequence[str]) -> int:
    if not arguments:
        raise InputError("syntax error: missing run number")
    text = _only(arguments, "a run number")
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()) or len(text) > 9:
        raise InputError("run number must be an integer.", got=text[:40])
    return int(text)


def _only(arguments: Sequence[str], what: str) -> str:
    if len(arguments) != 1:
        raise InputError("syntax error", expected=what, got=" ".join(arguments) or "nothing")
    return arguments[0]


def _options(arguments: Sequence[str], known: str) -> tuple[str, list[str]]:
    """Letters after a dash, and the other words."""
    letters = "".join(word[1:] for word in arguments if word.startswith("-"))
    if unknown := sorted(set(letters) - set(known)):
        raise InputError("no such option", got="-" + "".join(unknown), expected=f"of -{known}")
    return letters, [word for word in arguments if not word.startswith("-")]


def _count(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """The number after -n, and the other words."""
    words = list(arguments)
    if "-n" not in words:
        return _LINES, words
    at = words.index("-n")
    text = words[at + 1] if at + 1 < len(words) else ""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise InputError("-n takes a number of lines", got=text[:40] or "nothing")
    return int(text), words[:at] + words[at + 2 :]


def _place(name: str, words: Sequence[str]) -> tuple[Target, str, list[str]]:
    """`server` or `client SITE`, and the words after it."""
    target, rest = target_of(name, words)
    if target == "server":
        return target, "", rest
    if not rest:
        raise InputError("no client is named", expected=f"{name} {COMMANDS[name].usage}")
    return target, rest[0], rest[1:]


def _file(verbs: Verbs, name: str, words: Sequence[str]) -> list[str]:
    target, site, rest = _place(name, words)
    return looking.text(verbs, target, site, _only(rest, "one file"))


_WHERE: Final = "server | client [SITE ...]"
_WHERE_ALL: Final = "server | client [SITE ...] | all"
_FILE: Final = "server FILE | client SITE log.txt"
COMMANDS: Final[Mapping[str, Command]] = {
    "check_status": Command(_WHERE, "how the server and the sites stand, and what came from each", _check),
    "set_run_number": Command("N", "work with the run of this number", _set),
    "delete_run_number": Command("N", "remove the runs of this number from the server", _delete),
    "upload_folder": Command("FOLDER", "read and sign an app, or a folder with a job.toml", _upload),
    "upload_app": Command("FOLDER", "the same", _upload),
    "deploy": Command(f"APP {_WHERE_ALL}", "say where an uploaded app is to run", _deploy),
    "deploy_app": Command(f"APP {_WHERE_ALL}", "the same", _deploy),
    "start": Command(_WHERE_ALL, "submit what is deployed, as one job", _start),
    "start_app": Command(_WHERE_ALL, "the same", _start),
    "abort": Command(_WHERE_ALL, "end the run for good", _abort),
    "shutdown": Command(_WHERE_ALL, "refused: nobody stops another's machine from afar", _shutdown),
    "restart": Command(_WHERE_ALL, "refused as well", _shutdown),
    "remove_client": Command(
        "SITE ...", "work with a site no more, until it is enabled", lambda verbs, names: verbs.remove_client(names)
    ),
    "ls": Command("server | client SITE [-S]", "the files of the run's folder", _ls),
    "cat": Command(f"{_FILE} [-n]", "a text file of it; log.txt is what happened", _cat),
    "head": Command(f"{_FILE} [-n N]", "its first lines", _head),
    "tail": Command(f"{_FILE} [-n N]", "its last lines", _tail),
    "grep": Command("server | client SITE PATTERN FILE [-incv]", "its lines in which a pattern is found", _grep),
    "show_stats": Command("server", "the numbers of the last round", _stats),
    "show_errors": Command(_WHERE, "what went wrong in the run", _errors),
    "show_sites": Command("", "the sites, and their data", _sites),
    "show_rules": Command("", "what each site demands of every job", _rules),
    "sys_info": Command("client [SITE ...]", "cores, GPUs and memory of sites", _sys_info),
    "info": Command("", "who you are, and where", _info),
    "show_info": Command("", "the same", _info),
    "list_jobs": Command("", "all runs, the newest first", _jobs),
    "submit_job": Command("FOLDER | JOB", "submit an app or a job to all sites", _submit),
    "abort_job": Command("RUN", "end a run for good", _abort_job),
    "clone_job": Command("RUN", "submit a run's job again", _clone),
    "delete_job": Command("RUN", "remove a run that has ended from the server", _delete_job),
    "download_job": Command("[RUN] [FOLDER]", "copy a run's folder here", _download),
    "lpwd": Command("", "where you are on your own machine", _lpwd),
    "echo": Command("WORD ...", "the words", _echo),
}
_SIGNED: Final = ("rights stand in the policy that the project signed", "show_rules, or hansa site list")
_HOLDS: Final = ("a run's folder is downloaded whole", "download_job RUN")
ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {  # what has no meaning here: why, and what to type instead
    "abort_task": ("a task belongs to its run", "abort server"),
    "set_timeout": ("an answer is waited for as long as the server lives", "nothing is needed"),
    "reset_errors": ("what happened stays on record", "show_errors"),
    "pwd": ("the folder of a run is reached by the run's name alone", "ls server"),
    "env": ("a machine's environment is its owner's, and not shown", "sys_info client"),
    "call": ("nothing of a site is called from afar", "submit_job"),
    "start_mgpu": ("a job says how many GPUs it takes", "start client"),
    "validate": (
        "cross-site validation is a workflow of its own",
        "a job with workflow cross_site, or an app with CrossSiteModelEval",
    ),
    "list_sessions": ("the server keeps no sessions: each request proves who asks", "hansa audit show"),
    "show_users": ("people stand in the policy that the project signed", "hansa provision, in the administrator's folder"),
    **dict.fromkeys(("show_rights", "show_config", "eval_right", "eval_rule"), _SIGNED),
    **dict.fromkeys(("download_folder", "download_text", "download_binary"), _HOLDS),
    **dict.fromkeys(("upload_text", "upload_binary"), ("only a signed job is sent", "upload_folder FOLDER")),
}
