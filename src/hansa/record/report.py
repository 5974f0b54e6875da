"""report.html: one self-contained page about a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

from hansa.record import matrix as matrices
from hansa.record import results
from hansa.record.info import RunInfo
from hansa.record.series import Curve, curves, extremes, number, site_names
from hansa.record.svg import BAND, GLOBAL, draw, site_colours

_MOST_ROWS: Final = 100  # of a table; the rest is in metrics.jsonl

_STYLE: Final = """
:root{--ink:#14213d;--soft:#5c677d;--line:#e3e7ee;--paper:#fff}
*{box-sizing:border-box}
body{margin:0;background:#f6f7f9;color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:36px 28px 60px}
h1{font-size:30px;margin:0;letter-spacing:-.01em}
h2{font-size:18px;margin:0 0 14px}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:22px 24px;margin-top:20px}
.sub{color:var(--soft);margin:4px 0 0}
.state{display:inline-block;vertical-align:middle;margin-left:12px;padding:2px 12px;border-radius:99px;font-size:13px;
font-weight:600;background:#e8edf5;color:#33415c}
.completed{background:#dff3e6;color:#1d6b3a}.failed,.refused,.aborted{background:#fde4e1;color:#98231a}
.tiles{display:flex;flex-wrap:wrap;gap:14px;margin-top:20px}
.tile{flex:1 1 160px;background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:14px 18px}
.tile b{display:block;font-size:27px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:12px 20px}
.plots.one{grid-template-columns:minmax(0,820px)}
svg{width:100%;height:auto;display:block;font:12px system-ui,"DejaVu Sans",sans-serif;fill:var(--soft)}
svg .title{font-size:15px;font-weight:600;fill:var(--ink)}svg .value{font-weight:600;fill:var(--ink);font-size:13px}
svg .hint{fill:#8a94a6}svg .grid{stroke:#edf0f4}svg .axis{stroke:#aab3c2;fill:none}
svg polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 14px;padding:0;list-style:none;font-size:13px}
.legend i{display:inline-block;width:22px;height:3px;border-radius:2px;margin-right:7px;vertical-align:middle}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;font-size:13px}th:first-child,td:first-child,.text th,.text td{text-align:left}
tr:last-child td{border-bottom:0}table.heat{width:auto;margin:6px 0 18px}table.heat td{border:2px solid #fff}
tr.all td{font-weight:600;border-bottom:2px solid #c8cfda}
td small{color:var(--soft)}
.text td{white-space:normal;overflow-wrap:anywhere}.text td:first-child{color:var(--soft);width:220px}
pre{margin:0;overflow-x:auto;font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
.error{border-color:#f2b8b1;background:#fff6f5}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:0 20px}
footer{color:var(--soft);font-size:13px;margin-top:22px}
@media(max-width:560px){.plots,.pair{grid-template-columns:minmax(0,1fr)}main{padding:22px 14px}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""


def render(info: RunInfo, records: Sequence[Mapping[str, Any]], matrix: Any = None, result: Any = None) -> str:
    """The whole page as HTML. It loads nothing and runs no script; what sites are called is escaped.

    `matrix` and `result` are the content of matrix.json and result.json, where the run has them.
    """
    drawn = curves(records)
    body = [
        _head(info, records),
        _section("What went wrong", f"<pre>{escape(info.error)}</pre>", "error") if info.error else "",
        _tiles(info, records, drawn),
        "" if matrix is None else _section("Every model at every site", matrices.section(matrix)),
        _section("Result", "".join(_table(*each) for each in results.tables(None, result))),
        _plots(drawn),
        _sites(drawn),
        _trouble(records),
        _section("Plan", f"<pre>{escape(info.plan)}</pre>") if info.plan else "",
        '<div class="pair">',
        _section("Settings", _pairs({**flat(info.settings), **_how(info)})),
        _section("Versions and machine", _pairs({**info.versions, **flat(info.machine)})),
        "</div>",
        "<footer>Written by Hansa. The numbers are in metrics.jsonl, the model in model.safetensors, beside this page.</footer>",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info.job)} · {escape(info.id)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _head(info: RunInfo, records: Sequence[Mapping[str, Any]]) -> str:
    done = records[-1]["round"] if records else 0
    facts = [f"{number(info.sites)} sites", f"{done} of {info.rounds} rounds" if done < info.rounds else f"{done} rounds"]
    facts += [f"seed {info.seed}", f"{info.engine} engine", *_times(info)]
    badge = f'<span class="state {info.state}">{info.state}</span>'
    return f'<header><h1>{escape(info.job)}{badge}</h1><p class="sub">{escape(" · ".join(facts))}</p></header>'


def _times(info: RunInfo) -> list[str]:
    if not info.started:
        return []
    started = datetime.fromisoformat(info.started)
    facts = [f"{started:%-d %B %Y, %H:%M} UTC"]
    if info.finished:
        seconds = (datetime.fromisoformat(info.finished) - started).total_seconds()
        facts.append(f"took {duration(seconds)}")
    return facts


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(4.21), duration(185), duration(7384)
    ('4.2 s', '3 min 5 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted key.

    >>> flat({"learner": {"lr": 0.1}})
    {'learner.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def _tiles(info: RunInfo, records: Sequence[Mapping[str, Any]], drawn: Sequence[Curve]) -> str:
    tiles = []
    for curve in [c for c in drawn if c.shared][:4]:
        last, best, at = extremes(curve.name, curve.shared)
        tiles.append((number(last), f"{curve.name} · best {number(best)} in round {at}"))
    moved = sum(r.get("bytes_up", 0) + r.get("bytes_down", 0) for r in records)
    if moved:
        tiles.append((_bytes(moved), "moved, up and down"))
    tiles += [(number(value), escape(name)) for name, value in info.summary.items() if isinstance(value, float)][:4]
    made = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles)
    return f'<div class="tiles">{made}</div>' if tiles else ""


def _plots(drawn: Sequence[Curve]) -> str:
    if not drawn:
        return ""
    colours = site_colours(drawn)
    names = site_names(drawn)
    keys = [("global", GLOBAL, 4), *((site, colour, 3) for site, colour in colours.items())]
    if names and not colours:
        keys.append((f"10–90 % of {len(names):,} sites", BAND, 10))  # noqa: RUF001
    legend = "".join(f'<li><i style="background:{c};height:{h}px"></i>{escape(name)}</li>' for name, c, h in keys)
    many = " one" if len(drawn) == 1 else ""
    plots = "".join(f"<div>{draw(curve, colours)}</div>" for curve in drawn)
    return _section("Curves", f'<ul class="legend">{legend}</ul><div class="plots{many}">{plots}</div>')


def _sites(drawn: Sequence[Curve]) -> str:
    names = site_names(drawn)
    if not names:
        return ""
    head = "<th>site</th>" + "".join(f"<th>{escape(c.name)}, last</th><th>best</th>" for c in drawn)
    rows = [f'<tr class="all"><td>global</td>{"".join(_cells(c.name, c.shared) for c in drawn)}</tr>']
    rows += [
        f"<tr><td>{escape(site)}</td>{''.join(_cells(c.name, c.sites.get(site, [])) for c in drawn)}</tr>"
        for site in names[:_MOST_ROWS]
    ]
    more = f'<p class="sub">and {len(names) - _MOST_ROWS:,} more sites in metrics.jsonl</p>' if len(names) > _MOST_ROWS else ""
    return _section("Sites", f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>{more}')


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST_ROWS])
    more = f'<p class="sub">and {len(rows) - _MOST_ROWS:,} more in result.json</p>' if len(rows) > _MOST_ROWS else ""
    return f'<p class="sub">{escape(title)}</p><div class="scroll"><table><tr>{heads}</tr>{body}</table></div>{more}'


def _cells(name: str, points: list[tuple[int, float]]) -> str:
    last, best, at = extremes(name, points)
    where = f" <small>round {at}</small>" if at else ""
    return f"<td>{number(last)}</td><td>{number(best)}{where}</td>"


def _trouble(records: Sequence[Mapping[str, Any]]) -> str:
    rows: list[tuple[str, str, str]] = []
    for record in records:
        for entry in record.get("refused", ()):
            kind = f"{entry['model']} not evaluated" if "model" in entry else "update refused"
            what = f"{kind}: {entry.get('code', '')}" + (f" at {entry['path']}" if entry.get("path") else "")
            what += f" ({entry['message']})" if entry.get("message") else ""
            rows.append((str(record["round"]), str(entry.get("site", "")), what))
        for entry in record.get("lost", ()):
            site = entry.get("site", "") if isinstance(entry, Mapping) else entry
            rows.append((str(record["round"]), str(site), "no answer"))
    if not rows:
        return _section(
            "Refusals and losses", '<p class="sub">None: every site that was asked answered, and every update was used.</p>'
        )
    shown = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[:_MOST_ROWS])
    more = f'<p class="sub">and {len(rows) - _MOST_ROWS:,} more in metrics.jsonl</p>' if len(rows) > _MOST_ROWS else ""
    head = "<tr><th>round</th><th>site</th><th>what</th></tr>"
    return _section(f"Refusals and losses ({len(rows):,})", f'<div class="text"><table>{head}{shown}</table></div>{more}')


def _how(info: RunInfo) -> dict[str, object]:
    facts: dict[str, object] = {"seed": info.seed, "engine": info.engine, "workers": info.workers, "threads": info.threads}
    facts |= {"deterministic": info.deterministic, "job hash": info.job_hash, "run": info.id}
    if info.reference is not None:
        facts["loaded from"] = " ".join([info.reference.path, *(f"--set {o}" for o in info.reference.overrides)])
    return facts


def _pairs(facts: Mapping[str, object]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(_text(v))}</td></tr>" for k, v in facts.items() if v not in ("", None)
    )
    return f'<div class="text"><table>{rows}</table></div>'


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        ", ".join(map(str, value))
        if isinstance(value, list | tuple)
        else json.dumps(value)
        if isinstance(value, dict)
        else str(value)
    )


def _bytes(count: int) -> str:
    size, units = float(count), iter(["B", "kB", "MB", "GB", "TB"])
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def _section(title: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{escape(title)}</h2>{content}</section>' if content else ""
