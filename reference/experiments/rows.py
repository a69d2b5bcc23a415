"""The rows of a results table: each trains one network in one way and scores it on test images.

Every adapted row starts from the same source-only network and differs from the others by its
settings alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from reference.evaluation.evaluate import Scores, evaluate
from reference.evaluation.label_accuracy import AccuracyPoint, PseudoLabelAccuracy
from reference.experiments.scenario import Scenario
from reference.networks.toy import SegmentationNetwork, build_network
from reference.training.config import ROWS, Adaptation, Experiment
from reference.training.method import Method
from reference.training.stages import Trained, adapt, train_supervised

# The rows of the demo, in the order of its table: name in results -> caption.
CAPTIONS: Final[Mapping[str, str]] = {
    "source_only": "source only",
    "source_only_continued": "continued",
    "entropy_only": "entropy only",
    "bicl": "BiCL",
    "oracle": "oracle",
}


def on_schedule_of(settings: Adaptation, experiment: Experiment) -> Adaptation:
    """Give a row an experiment's steps, rounds, batches and optimiser, so that rows compare."""
    schedule = experiment.adaptation
    return replace(
        settings,
        steps=schedule.steps,
        rounds=schedule.rounds,
        source_batch=schedule.source_batch,
        target_batch=schedule.target_batch,
        learning_rate=schedule.learning_rate,
        full_resolution=schedule.full_resolution,
        weight_decay=schedule.weight_decay,
        poly_power=schedule.poly_power,
    )


def adaptation_of(name: str, experiment: Experiment) -> Adaptation:
    """Return the settings of one of `config.ROWS`; "bicl" is the experiment's own adaptation.

    A row with contrast has the contrast of the experiment.
    """
    if name == "bicl":
        return experiment.adaptation
    settings = ROWS[name]
    if settings.contrast is not None:
        settings = replace(settings, contrast=experiment.adaptation.contrast)
    return on_schedule_of(settings, experiment)


@dataclass(frozen=True)
class Row:
    """One trained and scored network.

    Args:
        name: as in results.
        trained: the network and its course.
        scores: on the test images, at full size.
        accuracy: how right pseudo labels were; measured from outside, empty where unknown.
        evaluation_seconds: wall time of scoring.
    """

    name: str
    trained: Trained
    scores: Scores
    accuracy: list[AccuracyPoint] = field(default_factory=list)
    evaluation_seconds: float = 0.0

    @property
    def miou_percent(self) -> float:
        """Mean IoU over the classes that occur in the test labels, 0..100."""
        return self.scores.mean_iou_percent(self.scores.occurring)

    @property
    def iou_percent(self) -> list[float]:
        """IoU of each class that occurs in the test labels, 0..100, in train-id order."""
        iou = self.scores.iou_percent
        return [iou[label] or 0.0 for label in self.scores.occurring]


def _scored(
    name: str, trained: Trained, scenario: Scenario, accuracy: list[AccuracyPoint], progress: bool
) -> Row:
    began = time.perf_counter()
    scores = evaluate(
        trained.network,
        scenario.test.images,
        scenario.test_labels,
        description=f"test {name}",
        progress=progress,
    )
    return Row(name, trained, scores, accuracy, time.perf_counter() - began)


def new_network(experiment: Experiment) -> SegmentationNetwork:
    """Make the network of an experiment with its initial weights."""
    return build_network(seed=experiment.seed, **asdict(experiment.network))


def source_row(
    scenario: Scenario,
    experiment: Experiment,
    *,
    name: str = "source_only",
    augmented: bool = True,
    progress: bool = False,
) -> Row:
    """Train on source labels alone: where every adapted row starts.

    Args:
        scenario: the data.
        experiment: seed, network, augmentation and the settings of the stage.
        name: as in results.
        augmented: False leaves the experiment's augmentation out.
        progress: show bars.
    """
    trained = train_supervised(
        scenario.source,
        experiment.source,
        seed=experiment.seed,
        network=new_network(experiment),
        augmentation=experiment.data.augmentation if augmented else None,
        run=name,
        progress=progress,
    )
    return _scored(name, trained, scenario, [], progress)


def adapted_row(
    name: str,
    settings: Adaptation,
    start: SegmentationNetwork,
    scenario: Scenario,
    experiment: Experiment,
    *,
    method: Method | None = None,
    progress: bool = False,
) -> Row:
    """Adapt the source-only network without any target label.

    Args:
        name: as in results.
        settings: which ingredients are used.
        start: the source-only network; it is not changed.
        scenario: the data.
        experiment: seed and augmentation.
        method: what every step minimises in place of the settings' terms.
        progress: show bars.
    """
    observer = None
    if scenario.target_truth is not None and scenario.target_truth.labels is not None:
        observer = PseudoLabelAccuracy(scenario.target_truth.labels)
    trained = adapt(
        start,
        scenario.source,
        scenario.target_images,
        settings,
        seed=experiment.seed,
        method=method,
        day_images=scenario.day_images,
        augmentation=experiment.data.augmentation,
        run=name,
        observe=observer,
        progress=progress,
    )
    return _scored(name, trained, scenario, observer.points if observer else [], progress)


def oracle_row(scenario: Scenario, experiment: Experiment, *, progress: bool = False) -> Row:
    """Train on the labels of the target training images: the upper bound.

    Raises:
        ValueError: the data set has no such labels.
    """
    if scenario.target_truth is None:
        raise ValueError(
            "oracle_row: expected a target with training labels, got one without gtFine/train. "
            "Hint: leave the oracle out."
        )
    trained = train_supervised(
        scenario.target_truth,
        experiment.oracle,
        seed=experiment.seed,
        network=new_network(experiment),
        run="oracle",
        progress=progress,
    )
    return _scored("oracle", trained, scenario, [], progress)
