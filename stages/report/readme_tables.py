"""Tables and sentences of README.md, README_zh.md and docs/ about results: Markdown made from recorded runs.

Every sentence is chosen by the figures. A difference is called one only where its interval leaves out zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.report.knob_runs import knob_table
from stages.report.recorded_metrics import CHIEF, METRICS, Language, RecordedMetric
from stages.report.recorded_runs import (
    CONTROL,
    CURRICULUM,
    PRETRAIN,
    RecordedRun,
    SeedMean,
    difference_over_seeds,
    over_seeds,
    seeds,
)
from stages.report.regime_runs import figures_table, regime_table
from stages.report.run.metric_specs import signed
from stages.report.run.regime import GROUNDED_CONDITIONS

DASH = "–"
_TWO_ALTERNATIVE = {
    "en": "Two-alternative accuracy: chance is 50 %.",
    "zh": "二选一准确率：随机猜测是 50 %。",
}
LONGER = "max-len-256"  # the recorded run of `dvc exp run -S sft.max_len=256`


class Sources(NamedTuple):
    """What tables are made from. ``listed``: metrics/*.json as {file name: {metric: value}}."""

    root: Path
    runs: Mapping[str, RecordedRun]
    listed: Mapping[str, Mapping[str, float | None]]

    @property
    def seeds(self) -> list[RecordedRun]:
        return seeds(dict(self.runs))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines).replace("|  |", "| |")


def cell(metric: RecordedMetric, found: SeedMean, with_sign: bool = False) -> str:
    """7.4 [5.2, 9.6]; 7.4 without an interval; a dash where it is undefined. ``with_sign``: +7.4."""
    if found.value is None:
        return DASH

    def number(value: float) -> str:
        text = signed(metric.scale * value, metric.decimals)
        return text if with_sign else text.removeprefix("+")

    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def span(values: Iterable[float], decimals: int = 0) -> str:
    """1 to 3, or 2 where all are equal."""
    known = sorted(values)
    ends = [f"{value:,.{decimals}f}" for value in (known[0], known[-1])]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _values(value: Any) -> list[Any]:
    """A machine has a list where the checkpoints of a run differ."""
    return value if isinstance(value, list) else [value]


def _listing(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))


def _commits(runs: Iterable[RecordedRun]) -> str:
    return _listing(run.commit[:10] for run in runs)


# The answer to the project's question


def answer(sources: Sources, language: Language) -> str:
    """Whether CHAIR-i differs between the curriculum and its control, from all recorded seeds."""
    runs = sources.seeds
    if len(runs) < 2:
        return {
            "en": "**Open.** Fewer than two runs are recorded with this code, and a single run cannot answer it.",
            "zh": "**尚无答案。** 用这份代码记录的运行不足两次，而单次运行不能回答这个问题。",
        }[language]
    difference = difference_over_seeds(runs, CURRICULUM, CONTROL, "chair_i")
    recall = cell(METRICS["recall"], difference_over_seeds(runs, CURRICULUM, CONTROL, "recall"), with_sign=True)
    figure = cell(METRICS["chair_i"], difference, with_sign=True)
    count, commits = len(runs), _commits(runs)
    if language == "zh":
        head = {
            "unclear": "没有明显差别",
            "higher": "课程学习组的 CHAIR-i 更高",
            "lower": "课程学习组的 CHAIR-i 更低",
            "undefined": "无法比较：CHAIR-i 在某个种子下没有定义",
        }[difference.relation]
        limit = {
            "unclear": f"区间包含零：{count} 个种子既不能说明有差别，也不能说明两者相等。",
            "undefined": "",
        }.get(difference.relation, f"区间不包含零；它只依据 {count} 个种子和这一种设置。")
        return (
            f"**{head}**（{count} 个种子，提交 {commits}）。CHAIR-i（错误提及占比），课程学习组减对照组："
            f"{figure} 个百分点（方括号内为跨种子的 95 % t 区间）；召回率：{recall}。{limit}"
        )
    head = {
        "unclear": "No clear difference",
        "higher": "CHAIR-i is higher with the curriculum",
        "lower": "CHAIR-i is lower with the curriculum",
        "undefined": "Cannot be compared, as CHAIR-i is undefined for a seed",
    }[difference.relation]
    limit = {
        "unclear": f" The interval includes zero: {count} seeds show neither a difference nor that there is none.",
        "undefined": "",
    }.get(difference.relation, f" The interval leaves out zero; it rests on {count} seeds and this one setting.")
    return (
        f"**{head}**, from {count} seeds at commit {commits}. The share of mentioned objects that are wrong (CHAIR-i), "
        f"curriculum minus control: {figure} percentage points (95 % t-interval over seeds); recall: "
        f"{recall}.{limit}"
    )


def results(sources: Sources, language: Language) -> str:
    """Chief metrics of pretraining, curriculum and control, and the difference of the two arms."""
    runs = sources.seeds
    if not runs:
        return {"en": "No runs are recorded yet.", "zh": "尚未记录任何运行。"}[language]
    head = {
        "en": ["", "pretrain", "curriculum (`sft-long`)", "control (`sft-direct`)", "difference"],
        "zh": ["", "pretrain", "课程学习组（`sft-long`）", "对照组（`sft-direct`）", "差"],
    }[language]
    rows = [head]
    keys = _recorded(runs, CHIEF)
    for key in keys:
        metric = METRICS[key]
        alone = [cell(metric, over_seeds(runs, name, key)) for name in (PRETRAIN, CURRICULUM, CONTROL)]
        difference = cell(metric, difference_over_seeds(runs, CURRICULUM, CONTROL, key), with_sign=True)
        rows.append([metric.named(language), *alone, difference])
    parts = [
        markdown(rows),
        *([_TWO_ALTERNATIVE[language]] if "two_alternative" in keys else []),
        _source(runs, language),
    ]
    return "\n\n".join(parts)


def _recorded(runs: Sequence[RecordedRun], metrics: Iterable[str]) -> list[str]:
    """Those of ``metrics`` that any run has a value of."""
    return [key for key in metrics if any(run.value(name, key) is not None for run in runs for name in run.checkpoints)]


def _source(runs: Sequence[RecordedRun], language: Language) -> str:
    """Which runs the table is made from, in one paragraph."""
    numbers = _listing(run.seed for run in runs)
    counted = [run for run in runs if {CURRICULUM, CONTROL} <= run.target_tokens.keys()]
    budget = [span(run.target_tokens[name] for run in counted) if counted else "?" for name in (CURRICULUM, CONTROL)]
    some = _listing(run.seed for run in counted) if len(counted) < len(runs) else ""
    processors, torch, cores = (
        _listing(value for run in runs for value in _values(run.machine.get(key, "?")))
        for key in ("processor", "torch", "cores")
    )
    commits = _commits(runs)
    scenes = span(run.scenes or 0 for run in runs)
    minutes = [run.seconds / 60 for run in runs if run.seconds]
    if language == "zh":
        time = f"，每次运行 {span(minutes).replace(' to ', ' 到 ')} 分钟" if minutes else ""
        budget = [text.replace(" to ", " 到 ") for text in budget]
        only = f"（仅种子 {some} 有记录）" if some else ""
        intervals = "均值与 95 % t 区间" if len(runs) > 1 else "只有一个种子，没有区间"
        return (
            f"种子 {numbers}，{intervals}；每个种子 {scenes} 个测试场景的长描述；目标词元 {budget[0]}（课程学习组）与 "
            f"{budget[1]}（对照组）{only}。提交 {commits}；{processors}，{cores} 核，torch {torch}{time}。"
        )
    time = f"; {span(minutes)} minutes a run" if minutes else ""
    only = f" (recorded for seed {some})" if some else ""
    intervals = "mean [95 % t-interval]" if len(runs) > 1 else "a single seed, so no intervals"
    return (
        f"Seeds {numbers}: {intervals}; long descriptions of {scenes} test scenes a seed; {budget[0]} (curriculum) and "
        f"{budget[1]} (control) target tokens{only}. Commit {commits}; {processors}, {cores} cores, torch "
        f"{torch}{time}."
    )


# docs/results.md


def checkpoints(sources: Sources, language: Language) -> str:
    """All recorded metrics of all checkpoints, means over seeds."""
    runs = sources.seeds
    if not runs:
        return results(sources, language)
    names = [name for name in runs[0].checkpoints if all(name in run.checkpoints for run in runs)]
    names.sort(key=lambda name: name != PRETRAIN)
    rows = [["", *names]]
    for key in _recorded(runs, METRICS):
        metric = METRICS[key]
        rows.append([metric.named(language), *(cell(metric, over_seeds(runs, name, key)) for name in names)])
    return markdown(rows)


def by_seed(sources: Sources, language: Language) -> str:
    """Curriculum / control, a row for each seed."""
    runs = sources.seeds
    if not runs:
        return results(sources, language)
    keys = _recorded(runs, CHIEF)
    rows = [[{"en": "seed", "zh": "种子"}[language], *(METRICS[key].named(language) for key in keys)]]
    for run in runs:
        cells = []
        for key in keys:
            pair = [SeedMean(run.value(name, key), None, None) for name in (CURRICULUM, CONTROL)]
            cells.append(" / ".join(cell(METRICS[key], found) for found in pair))
        rows.append([str(run.seed), *cells])
    return markdown(rows)


_GROUNDING = ("two_alternative", "swap_gap_object", "blind_gap_object", "probe_auc")


def grounding(sources: Sources, language: Language) -> str:
    """How much the checkpoints use the picture: every fine-tuned one minus pretraining."""
    runs = sources.seeds
    if not runs:
        return results(sources, language)
    rows = [["minus pretrain", *(METRICS[key].named(language) for key in _GROUNDING)]]
    for name in runs[0].checkpoints:
        if name != PRETRAIN and "/" not in name:
            found = [(METRICS[key], difference_over_seeds(runs, name, PRETRAIN, key)) for key in _GROUNDING]
            rows.append([name, *(cell(metric, change, with_sign=True) for metric, change in found)])
    return markdown(rows)


def metrics_show(sources: Sources, _: Language) -> str:
    """What `dvc metrics show` prints of the committed metrics/*.json."""
    columns = sorted({key for values in sources.listed.values() for key in values})
    rows = [["Path", *columns]]
    for name in sorted(sources.listed):
        values = sources.listed[name]
        rows.append([f"metrics/{name}", *(_number(values.get(column)) for column in columns)])
    return _printed(rows)


def metrics_diff(sources: Sources, _: Language) -> str:
    """The curriculum's rows of what `dvc metrics diff` printed after the recorded run with longer texts.

    Dots stand for its figures until it is recorded.
    """
    file = f"metrics/{CURRICULUM}.json"
    rows = [["Path", "Metric", "HEAD", "workspace", "Change"]]
    if LONGER in sources.runs:
        for metric, change in sorted(sources.runs[LONGER].metrics_diff.get(file, {}).items()):
            rows.append([file, metric, *(_number(change.get(key)) for key in ("old", "new", "diff"))])
    else:
        for metric, value in sorted(sources.listed.get(f"{CURRICULUM}.json", {}).items()):
            rows.append([file, metric, _number(value), "...", "..."])
    return _printed(rows)


def _number(value: float | None) -> str:
    return "-" if value is None else str(round(value, 5))


def _printed(rows: Sequence[Sequence[str]]) -> str:
    """As DVC prints a table, a head two characters wider than its text; indented, which Markdown shows as it is."""
    widths = [max(len(head) + 2, *map(len, values)) for head, *values in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(f"    {line}" for line in lines)


# docs/minimind.md

EXPERIMENTS = (
    "pretrain-1-epoch",
    "pretrain-4-epochs",
    "sft-1-epoch",
    "sft-2-epochs",
    "no-pretrained-weights",
    "ldpv2-3-epochs",
    "published",
)
_EXPERIMENT_METRICS = ("chair_i", "precision", "recall", "pope_accuracy", "length")


def experiments(sources: Sources, language: Language) -> str:
    """Every checkpoint of the recorded experiments, one seed each."""
    rows = [
        ["experiment", "checkpoint", *(METRICS[key].named(language) for key in _EXPERIMENT_METRICS), "commit, date"]
    ]
    for name in EXPERIMENTS:
        run = sources.runs.get(name)
        for checkpoint in run.checkpoints if run else ():
            found = [SeedMean(run.value(checkpoint, key), None, None) for key in _EXPERIMENT_METRICS]
            cells = [cell(METRICS[key], value) for key, value in zip(_EXPERIMENT_METRICS, found, strict=True)]
            rows.append([f"`{name}`", checkpoint, *cells, f"{run.commit[:10]}, {run.date}"])
    if len(rows) == 1:
        return "None of them has been recorded with this code yet."
    missing = [f"`{name}`" for name in EXPERIMENTS if name not in sources.runs]
    rest = f"\n\nNot recorded with this code yet: {', '.join(missing)}." if missing else ""
    return f"{markdown(rows)}\n\nOne seed each, so differences between rows are no evidence by themselves.{rest}"


def regime(sources: Sources, language: Language) -> str:
    """Every recorded attempt at the regime, with the conditions that it meets."""
    return markdown(regime_table(sources.root))


def grounded(sources: Sources, language: Language) -> str:
    """Whether the model learns what it must where it is helped."""
    rows = regime_table(sources.root, GROUNDED_CONDITIONS)
    return _table_or_note(rows if len(rows) > 1 else [])


def regime_figures(sources: Sources, language: Language) -> str:
    """The default regime's texts beside those of the notes."""
    return _table_or_note(figures_table(sources.root))


def knobs(sources: Sources, language: Language) -> str:
    """What each knob of the regime buys."""
    return _table_or_note(knob_table(sources.root))


def _table_or_note(rows: list[list[str]]) -> str:
    return markdown(rows) if rows else "Not recorded with this code yet."


TABLES: Mapping[str, Callable[[Sources, Language], str]] = {
    "answer": answer,
    "results": results,
    "checkpoints": checkpoints,
    "by-seed": by_seed,
    "grounding": grounding,
    "metrics-show": metrics_show,
    "metrics-diff": metrics_diff,
    "experiments": experiments,
    "regime": regime,
    "grounded": grounded,
    "regime-figures": regime_figures,
    "knobs": knobs,
}
