# SPDX-License-Identifier: Apache-2.0
"""report - the results as JSON, as a Markdown document, as charts."""
import statistics
from xml.sax.saxutils import escape

COLOURS = {"Kilat": "#d9480f", "Postfix": "#4263eb", "Exim": "#2b8a3e", "OpenSMTPD": "#862e9c",
           "Haraka": "#868e96"}


def undisturbed(runs):
    return [run for run in runs if not run["disturbed"]] or runs


def median(runs, *path):
    values = []
    for run in undisturbed(runs):
        for key in path:
            run = run[key]
        values.append(run)
    return statistics.median(values)


def spread(runs, *path):
    values = []
    for run in undisturbed(runs):
        for key in path:
            run = run[key]
        values.append(run)
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def mark(runs):
    return " (disturbed)" if all(run["disturbed"] for run in runs) else ""


# -- tables ------------------------------------------------------------------------------------

RATE_HEAD = ["", "messages/s", "±", "Kilat is", "CPU s per 1,000", "Kilat's is", "p50 ms", "p99 ms",
             "p99.9 ms", "disk flushes", "octets written", "core busy"]


def ratio(a, b):
    return f"{a / b:.1f} times" if b else ""


def rate_rows(results):
    kilat = results.get("Kilat")
    for name, runs in results.items():
        rate, cpu = median(runs, "rate"), median(runs, "cpu_per_1000")
        is_other = kilat and name != "Kilat"
        times = [f"{median(runs, 'source', 'end_of_data_to_250', k):.2f}"
                 for k in ("p50_ms", "p99_ms", "p99.9_ms")]
        yield [name + mark(runs), f"{rate:,.0f}", f"{spread(runs, 'rate'):.0%}",
               ratio(median(kilat, "rate"), rate) if is_other else "", f"{cpu:.3f}",
               f"1/{cpu / median(kilat, 'cpu_per_1000'):.1f}" if is_other else "", *times,
               f"{median(runs, 'flushes'):.2f}", f"{median(runs, 'written'):,.0f}",
               f"{median(runs, 'busy'):.0%}"]


LATENCY_HEAD = ["", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "taken/s"]


def latency_rows(results):
    for name, runs in results.items():
        times = [f"{median(runs, 'times', key):.2f}"
                 for key in ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")]
        yield [name + mark(runs), *times, f"{median(runs, 'rate'):,.0f}"]


MEMORY_HEAD = ["", "octets a session"]


def memory_rows(results):
    for name, runs in results.items():
        yield [name, f"{median(runs, 'octets'):,.0f}"]


TABLES = {"rate": (RATE_HEAD, rate_rows), "latency": (LATENCY_HEAD, latency_rows),
          "memory": (MEMORY_HEAD, memory_rows)}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def document(found):
    """The whole of docs/bench/README.md."""
    m = found["machine"]
    lines = [
        "# Side by side", "",
        f"Made by `{found['command']}` on {found['date']}; the numbers of every run are in "
        "[results.json](results.json). Medians, and half of the distance between the least and "
        "the most (±); "
        f"{found['repeat']} runs of {found['seconds']} s each, systems taking turns.", "",
        f"The machine: {m['cores']} cores of {m['cpu']}, {m['memory_gib']} GiB, {m['system']}, "
        f"Linux {m['kernel']}, {m['filesystem']}. All processes of a server (with Kilat's its "
        "Redis) have one core, `kilat-source` and `kilat-sink` the other. Trust ratios, not "
        "absolute figures.", "",
        table(["system", "version", "what its 250 promises"],
              [[s["name"], s["version"], s["durability"]] for s in found["systems"]]), ""]
    if found["limits"]:
        lines += ["## Limits of this machine", "", table(["", "", ""], found["limits"]), ""]
    for scenario in found["scenarios"]:
        head, rows = TABLES[scenario["measure"]]
        lines += [f"## {scenario['title']}", ""]
        if scenario["measure"] == "rate":
            lines += [f"![{scenario['title']}]({scenario['name']}.svg)", ""]
        lines += [f"`kilat-source {' '.join(scenario['source'])}`" +
                  (f", `kilat-sink {' '.join(scenario['sink'])}`" if scenario["sink"] else ""), "",
                  table(head, rows(scenario["results"])), ""]
    return "\n".join(lines)


# -- charts ------------------------------------------------------------------------------------

def chart(title, results):
    """Bars, messages a second, as SVG."""
    bars = [(name, median(runs, "rate")) for name, runs in results.items()]
    most, row, left, width = max(value for _, value in bars), 30, 110, 720
    height = 50 + row * len(bars)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
           f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="10" y="24" font-weight="bold">{escape(title)}: messages/s</text>']
    for i, (name, value) in enumerate(bars):
        y, length = 42 + i * row, max(1, value / most * (width - left - 90))
        out += [f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{left}" y="{y}" width="{length:.0f}" height="20" '
                f'fill="{COLOURS.get(name, "#495057")}"/>',
                f'<text x="{left + length + 6:.0f}" y="{y + 15}">{value:,.0f}</text>']
    return "\n".join([*out, "</svg>", ""])
