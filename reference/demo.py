"""Adapt a network from a source to a target domain and show what that changed.

    python -m reference.demo
    python -m reference.demo --seed 1 --run runs/seed1
    python -m reference.demo --target night --run runs/night

Trains the source-only network and the oracle side by side, then from the former the control and
BiCL, with --all-rows entropy alone, too: runs of reference.train, in folders below the run's.
Prints IoU per class and writes ``results.json`` and ``report.html``. A demo that was stopped goes
on where it stopped.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import tyro

from reference.commands import answer, laid_out, read
from reference.data.settings import refusal, require
from reference.experiments import tables, targets
from reference.experiments.rows import CAPTIONS, CONTROL, ENTROPY, ORACLE, SOURCE
from reference.experiments.runs import Run, record_of, refuse_other_settings, rows_of, train_all
from reference.experiments.targets import NIGHT, TOY
from reference.run.files import require_new_folder, write_json
from reference.run.folder import COMPARISON, command

RESULTS: Final = "results.json"
_TARGETS: Final = {
    TOY: "drawn street scenes, another look",
    NIGHT: "drawn street scenes, another look, after dark",
}
_ROLES: Final = {SOURCE: "source", CONTROL: "control", "bicl": "method", ORACLE: "oracle"}


@dataclass(frozen=True)
class Options:
    """Adapt a segmentation network with BiCL, compare it, write a report."""

    # folder for the results; new or empty, or of a demo with these settings that was stopped
    run: Annotated[Path, tyro.conf.arg(aliases=["--folder"])] = Path("runs/demo")
    # of the drawn images, the initial weights and every batch
    seed: int = 0
    # folder of the drawn images, reused if they were drawn with the same settings; by default one
    # in data/ beside the run folder
    data: Path | None = None
    # toy for drawn street scenes with another look, night for them after dark
    target: str = TOY
    # train with entropy alone, too, which takes two more minutes
    all_rows: bool = False
    # of torch, on the CPU, in each process; another number rounds differently
    threads: int = 1
    # processes side by side
    jobs: int = 2


def prepare(options: Options) -> list[Run]:
    """Check the folder, draw what is missing, write what the page is to show; list the runs."""
    if options.target not in _TARGETS:
        hint = "photographs are a matter of python -m reference.ablate --target carla-to-camvid"
        raise refusal("demo", "target", options.target, "toy or night", hint + " --root FOLDER")
    for name, got in (("threads", options.threads), ("jobs", options.jobs)):
        require("demo", name, got, "of at least 1", got >= 1)
    preset = targets.target_settings(
        options.target, options.seed, data=options.run.parent / "data", scenes=options.data
    )
    preset = replace(preset, machine=replace(preset.machine, threads=options.threads))
    folder, rows = options.run, [row for row in CAPTIONS if options.all_rows or row != ENTROPY]
    runs = rows_of(rows, preset, folder)
    hint = f"choose another one with --run, such as {folder}-2, or remove it first"
    if (folder / RESULTS).exists() or not (folder / COMPARISON).is_file():
        require_new_folder("demo", folder, hint, argument="run")
    for run in runs:
        refuse_other_settings(run, "demo", hint)
    targets.draw_missing([preset])
    told = {
        "title": "BiCL on drawn street scenes",
        "target": _TARGETS[options.target],
        "note": "This is one seed; docs/results.md has the spread over seeds, and every ingredient "
        "switched off in turn.",
        "rows": [
            {"folder": r.row, "caption": CAPTIONS[r.row], "role": _ROLES.get(r.row, "other")}
            for r in runs
        ],
    }
    write_json(folder / COMPARISON, told)
    return runs


def mean_ious(results: Mapping[str, Any]) -> dict[str, float]:
    """Mean IoU of every row in percent."""
    return {record["row"]: record["miou"] for record in results["rows"]}


def table(results: Mapping[str, Any]) -> str:
    """Lay out IoU per class, the means, and the gain over the control."""
    records, means = results["rows"], mean_ious(results)
    lines = [["class", *(CAPTIONS[row] for row in means)]]
    for label in records[0]["iou"]:
        lines.append([label, *(f"{record['iou'][label]:.1f}" for record in records)])
    lines.append(["mIoU", *(f"{miou:.1f}" for miou in means.values())])
    gains = (f"{miou - means[CONTROL]:+.1f}" * (row != CONTROL) for row, miou in means.items())
    lines.append(["over continued", *gains])
    return f"IoU in percent, {results['images']['test']} test images:\n\n{laid_out(lines)}"


def run_demo(options: Options) -> dict[str, Any]:
    """Draw, train, score and write; results.json last: where it is, the demo is complete."""
    from reference import report

    began = time.perf_counter()
    runs = prepare(options)
    missing = [run for run in runs if record_of(run) is None]
    for run, problem in train_all(missing, options.jobs):
        record = record_of(run)
        if problem is not None or record is None:
            raise FloatingPointError(problem)
        caption = CAPTIONS[run.row]
        print(f"{caption:<14} {record['miou']:5.1f} %  {record['seconds']:4.0f} s", flush=True)
    report.write_report(report.Options((options.run,)))
    settings = runs[0].settings
    records = [record for run in runs if (record := record_of(run)) is not None]
    results = tables.summarise(
        records, target=settings.data.target_set, command=command(), split=settings.data.val_split,
        images=targets.image_counts(settings), seconds=time.perf_counter() - began,
    )  # fmt: skip
    write_json(options.run / RESULTS, results)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    options = read(Options, "demo", arguments)
    results = answer(lambda: run_demo(options), "Stopped; the same command goes on.")
    print(f"\n{table(results)}\n")
    means = mean_ious(results)
    gain = means["bicl"] - means[CONTROL]
    print(f"BiCL {gain:+.1f} points over the control, {results['seconds']:.0f} s in all.")
    print(f"Open {options.run / 'report.html'}")


if __name__ == "__main__":
    main()
