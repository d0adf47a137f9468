"""The demo's report: one HTML file that needs nothing else, readable on paper, on a telephone, by day and by night."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import median

from appliance.demo.charts import (
    NARROW,
    WIDE,
    Bars,
    Dot,
    Stack,
    bar_chart,
    dot_chart,
    line_chart,
    stack_chart,
)
from appliance.demo.results import Results

TITLE = "Four hospitals, one model, no record shared"
CLOSE = 0.02  # an AUC this near to the pooled one is called near
PHASES = ("training", "transfer", "aggregation", "waiting")

_PROTECTION = {
    "Records stay": "training runs at each hospital, in a process that can read one dataset and has no network.",
    "TLS 1.3": "on every line, with certificates of the consortium's own authority on both ends.",
    "Signatures": "every message is signed by its author; the network host can delay it, not forge it.",
    "Sealed updates": "each model update is encrypted to the researcher; the network host cannot open what it stores.",
    "Approval": "each hospital approved the training plan's exact text before it ran. Here the demo played the "
    "hospitals' reviewers; in a consortium, their own staff decide.",
    "Records of it": "each hospital keeps a hash-chained log, and a list of every byte that left.",
}
_LIMITS = """\
The researcher opens each hospital's update: secure aggregation, which hides single updates in their sum, and \
differential privacy were not used in this run. A model update can tell something about the records behind it.
All parts ran on one computer, so the times show the work of the software, not the delay of a hospital's line.
Some hundreds of patients, one split for each seed: differences of a hundredth are within the spread.
The model serves to show the software. It is no medical device and answers no clinical question."""


def write_report(results: Results, path: Path) -> None:
    """Write the report of ``results`` to ``path``."""
    path.write_text(render(results), encoding="utf-8")


def render(results: Results) -> str:
    """The report as HTML text."""
    style = files("appliance.demo").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(
        (
            _header(results),
            _accuracy(results),
            _learning(results),
            _time(results),
            _egress(results),
            _about(results),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>FedWard demo: {TITLE}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "<footer>Made by FedWard's demo. The numbers behind this page are in <code>results.json</code> beside it."
        "</footer>\n</main>\n</body>\n</html>\n"
    )


def _header(results: Results) -> str:
    gap = results.federated_auc - results.pooled_auc
    seconds = median(entry.seconds for entry in results.rounds)
    left = sum(entry.bytes for entry in results.egress.values())
    return f"""<header>
<p class="kind">FedWard demo report</p>
<h1>{TITLE}</h1>
<p class="summary">{escape(summary(results))}</p>
</header>
<ul class="tiles">
<li class="federated"><b>{results.federated_auc:.3f} <small>± {results.federated_auc_sd:.3f}</small></b>
<span>AUC, federated</span></li>
<li><b>{_signed(gap)}</b><span>against pooling all records ({results.pooled_auc:.3f})</span></li>
<li><b>{_signed(results.federated_auc - results.local_mean)}</b>
<span>against a hospital alone (mean {results.local_mean:.3f})</span></li>
<li><b>{duration(seconds)}</b><span>the median round; {size(left)} left the hospitals in all</span></li>
</ul>
<div class="notice"><p><b>Real data.</b> The records are those of the Obstetrics and Periodontal Therapy trial
(de-identified, published for teaching). The model predicts whether, at visit 5, a woman's gums bleed at half or more of
the sites probed. That is a dental measure during pregnancy, <b>not an outcome of birth</b>.</p></div>"""


def summary(results: Results) -> str:
    """The result in two sentences with figures."""
    count = len(results.local_auc)
    gap = abs(results.federated_auc - results.pooled_auc)
    near = "as good as" if gap < CLOSE / 4 else "nearly as good as" if gap <= CLOSE else "not as good as"
    if results.federated_auc - results.pooled_auc > CLOSE / 4:
        near = "better than"
    beaten = sum(auc < results.federated_auc for auc in results.local_auc.values())
    which = "each" if beaten == count else _number(beaten) if beaten else "none"
    return (
        f"{_number(count).capitalize()} hospitals trained one model together over {len(results.rounds)} rounds, and it "
        f"is {near} a model trained on all their records in one place: AUC {results.federated_auc:.3f} against "
        f"{results.pooled_auc:.3f}. It beats {which} of the {_number(count)} hospitals on its own, whose mean is "
        f"{results.local_mean:.3f}."
    )


def size(count: float) -> str:
    """A number of bytes as people read it."""
    units = ("B", "kB", "MB", "GB")
    step = 0
    while count >= 999.5 and step < len(units) - 1:
        count, step = count / 1000, step + 1
    digits = 0 if step == 0 or count >= 99.95 else 1
    return f"{count:.{digits}f}\N{NO-BREAK SPACE}{units[step]}"


def _accuracy(results: Results) -> str:
    alone = [
        Dot(results.name(hospital), auc, results.local_auc_sd.get(hospital, 0.0), "alone")
        for hospital, auc in results.local_auc.items()
    ]
    dots = [
        *sorted(alone, key=lambda dot: dot.mean),
        Dot("Federated", results.federated_auc, results.federated_auc_sd, "federated"),
        Dot("Pooled", results.pooled_auc, results.pooled_auc_sd, "pooled"),
    ]
    best = max(alone, key=lambda dot: dot.mean)
    ahead = results.federated_auc - best.mean
    heading = (
        "Together beats every hospital alone"
        if ahead > 0
        else f"{best.label} alone did as well as all hospitals together"
    )
    legend = _legend([("alone", "A hospital alone", ""), ("federated", "Federated", ""), ("pooled", "Pooled", "")])
    rows = [(dot.label, f"{dot.mean:.4f}", f"{dot.spread:.4f}") for dot in dots]
    return _figure(
        heading,
        f"Area under the ROC curve on held-out patients of every hospital: mean over {_seeds(results)}; the line is "
        "one standard deviation to each side. 0.5 is chance. Pooled means all records in one place, which a consortium "
        "of hospitals cannot have.",
        [dot_chart(dots, title=heading, width=width) for width in (WIDE, NARROW)],
        _table(("Trained on", "AUC, mean", "AUC, s.d."), rows),
        legend=legend,
    )


def _learning(results: Results) -> str:
    values = results.federated_auc_by_round
    near = next((n for n, value in enumerate(values, 1) if value >= results.pooled_auc - CLOSE), None)
    heading = (
        f"Within {CLOSE} of pooling after {near} of {len(values)} rounds"
        if near
        else f"After {len(values)} rounds the model is {results.pooled_auc - values[-1]:.3f} below pooling"
    )
    references = [("Pooled", results.pooled_auc, "pooled"), ("Alone, mean", results.local_mean, "alone")]
    legend = _legend(
        [
            ("federated", "Federated, last round", f"{values[-1]:.3f}"),
            *((style, name, f"{value:.3f}") for name, value, style in references),
        ]
    )
    return _figure(
        heading,
        f"AUC of the federated model on the same held-out patients after each round, mean over {_seeds(results)}.",
        [line_chart(values, references, label="Federated", title=heading, width=width) for width in (WIDE, NARROW)],
        _table(("Round", "AUC, mean"), [(str(n), f"{value:.4f}") for n, value in enumerate(values, 1)]),
        narrow_legend=legend,
    )


def _time(results: Results) -> str:
    medians = {phase: median(getattr(entry, phase) for entry in results.rounds) for phase in PHASES}
    unit, factor = ("ms", 1000.0) if median(entry.seconds for entry in results.rounds) < 1 else ("s", 1.0)
    stacks = [
        Stack(str(entry.round), tuple((phase, getattr(entry, phase) * factor) for phase in PHASES))
        for entry in results.rounds
    ]
    most = max(medians, key=lambda phase: medians[phase])
    whole = duration(median(entry.seconds for entry in results.rounds))
    heading = f"The median round takes {whole}; {duration(medians[most])} of it is {most}"
    rows = [
        (str(entry.round), *(f"{getattr(entry, name):.3f}" for name in ("seconds", *PHASES)))
        for entry in results.rounds
    ]
    return _figure(
        heading,
        "Where each round's time went, in the first seed; beside the names, the medians. "
        "Waiting is for messages, queues and the slowest hospital; the first round also starts each hospital's "
        "training process.",
        [stack_chart(stacks, unit=unit, title=heading, width=width) for width in (WIDE, NARROW)],
        _table(("Round", "Seconds", *(phase.capitalize() for phase in PHASES)), rows),
        legend=_legend([(phase, phase.capitalize(), duration(medians[phase])) for phase in PHASES]),
    )


def _egress(results: Results) -> str:
    groups = [
        Bars(
            results.name(hospital),
            (
                ("left", entry.bytes, f"{size(entry.bytes)} left, in {entry.messages:,} messages and uploads"),
                *_stayed(results, hospital),
            ),
        )
        for hospital, entry in results.egress.items()
    ]
    if not groups:
        return ""
    updates = len(results.rounds) * len(results.seeds)
    heading = "What left each hospital: updates and signed messages, no record"
    rows = [
        (
            results.name(hospital),
            f"{entry.messages:,}",
            f"{entry.bytes:,}",
            *(
                (f"{known.data_bytes:,}", f"{known.patients:,}", f"{known.held_out:,}")
                if (known := results.hospitals.get(hospital))
                else ("", "", "")
            ),
        )
        for hospital, entry in results.egress.items()
    ]
    names = ("Hospital", "Messages", "Bytes out", "Data file, bytes", "Patients", "Held out")
    return _figure(
        heading,
        f"From each hospital's own record of everything that left it, over all {updates} rounds of {_seeds(results)}. "
        "Bytes do not measure what they tell: the record names each file with its recipient, size and hash.",
        [bar_chart(groups, title=heading, width=width) for width in (WIDE, NARROW)],
        _table(names, rows),
        legend=_legend([("left", "Left the hospital", ""), ("stayed", "Data file that stayed", "")]),
    )


def _stayed(results: Results, hospital: str) -> list[tuple[str, float, str]]:
    known = results.hospitals.get(hospital)
    if known is None:
        return []
    return [("stayed", known.data_bytes, f"{size(known.data_bytes)} stayed, of {known.patients:,} patients")]


def _about(results: Results) -> str:
    protection = "".join(f"<li><b>{escape(name)}:</b> {escape(text)}</li>" for name, text in _PROTECTION.items())
    limits = "".join(f"<li>{escape(text)}</li>" for text in _LIMITS.splitlines())
    versions = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in results.versions.items())
    seeds = ", ".join(map(str, results.seeds))
    return f"""<section>
<h2>What this was, and what it was not</h2>
<h3>How it was protected</h3>
<ul class="plain">{protection}</ul>
<h3>Its limits</h3>
<ul class="plain">{limits}</ul>
<h3>The data</h3>
<p>Obstetrics and Periodontal Therapy trial: Michalowicz et al., N Engl J Med 2006;355:1885. The table is
<code>opt</code> of the R package <code>medicaldata</code> (MIT licence), one file for each enrolling hospital. Patients
without a visit 5 are left out.</p>
<h3>Versions and seeds</h3>
<dl>{versions}<div><dt>seeds</dt><dd>{escape(seeds)}</dd></div></dl>
</section>"""


def _figure(
    heading: str, text: str, drawings: Sequence[str], table: str, *, legend: str = "", narrow_legend: str = ""
) -> str:
    wide, narrow = drawings
    return f"""<section>
<h2>{escape(heading)}</h2>
<p>{escape(text)}</p>
<figure>{legend}<div class="wide">{wide}</div><div class="narrow">{narrow_legend}{narrow}</div></figure>
<details><summary>The numbers</summary><div class="scroll">{table}</div></details>
</section>"""


def _legend(entries: Iterable[tuple[str, str, str]]) -> str:
    items = "".join(
        f'<li class="{style}"><i></i>{escape(name)}{f" <b>{escape(value)}</b>" if value else ""}</li>'
        for style, name, value in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def _seeds(results: Results) -> str:
    count = len(results.seeds)
    return "one seed" if count == 1 else f"{_number(count)} seeds"


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """A time as people read it."""
    number, unit = (f"{seconds * 1000:.0f}", "ms") if seconds < 1 else (f"{seconds:.1f}", "s")
    return f"{number}\N{NO-BREAK SPACE}{unit}"
