"""The export command: what it writes, programs that compute the same, what it refuses."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from reference import export
from reference.commands import read
from reference.evaluation.class_table import class_table, write_class_table
from reference.evaluation.protocol import Evaluation, Protocol, Scores
from reference.export import Options, exported, run_export, write_onnx
from reference.networks.release import read_release
from tests.reference.killed import assert_starts_again
from tests.reference.small_networks import (
    IMAGES,
    NETWORKS,
    build_network,
    refuses,
    small_deeplab,
    write_checkpoint,
)

DATA = {"source_set": "gta5", "target_set": "acdc", "merge": ["rider=person"]}


@pytest.fixture
def options(tmp_path):
    path = write_checkpoint(
        tmp_path / "last.pth", small_deeplab(seed=1), data=DATA, labelled=list(range(18))
    )
    return Options(path, tmp_path / "out", program=False, onnx=False)


def test_card_weights_and_program(options):
    card, notes = run_export(replace(options, program=True))
    assert notes == []
    names = sorted(path.name for path in options.out.iterdir())
    assert names == ["card.json", "model.pt2", "model.safetensors"]
    expected = small_deeplab(seed=1).eval()(IMAGES).logits
    release = read_release(card)
    assert torch.equal(release.network(IMAGES).logits, expected)
    assert release.labelled == tuple(range(18))
    assert torch.equal(torch.export.load(options.out / "model.pt2").module()(IMAGES)[0], expected)
    held = json.loads(card.read_text())
    assert held["programs"]["files"] == ["model.pt2"]
    assert "(B, 3, 16, 24), RGB in [0, 1]; any B, this size alone" in held["programs"]["input"]
    assert (held["source"], held["input_size"], held["iteration"]) == ("gta5", [16, 24], 40)
    assert held["data"] == {"target_set": "acdc", "merge": ["rider=person"]}


@pytest.mark.parametrize("name", ["toy", "dlv2"])
def test_the_program_computes_the_same_at_any_batch_size(tmp_path, name):
    network = NETWORKS[name]().train()
    torch.export.save(exported(network, (16, 24)), tmp_path / "model.pt2")
    assert network.training
    run = torch.export.load(tmp_path / "model.pt2").module()
    network.eval()
    for batch in (1, 3):
        logits, features = run(IMAGES[:batch])
        expected = network(IMAGES[:batch])
        assert torch.equal(logits, expected.logits)
        assert torch.equal(features, expected.features)
    with pytest.raises(Exception, match="16"):
        run(torch.rand(1, 3, 24, 24))


@pytest.mark.skipif(
    None in (find_spec("onnx"), find_spec("onnxscript"), find_spec("onnxruntime")),
    reason="onnx, onnxscript and onnxruntime are not installed",
)
@pytest.mark.parametrize("name", ["toy", "dlv2", "dlv2_gn"])
def test_onnx_computes_the_same(tmp_path, name):
    import onnxruntime

    network = NETWORKS[name]().eval()
    assert write_onnx(tmp_path / "model.onnx", exported(network, (16, 24))) == ""
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 3):
        for ours, theirs in zip(
            session.run(None, {"images": IMAGES[:batch].numpy()}),
            network(IMAGES[:batch]),
            strict=True,
        ):
            scale = float(theirs.detach().abs().max())
            assert float((torch.from_numpy(ours) - theirs.detach()).abs().max()) <= 1e-5 * scale


def test_without_onnx_one_sentence_says_what_to_install(options, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    card, notes = run_export(replace(options, onnx=True))
    assert notes == [
        "No model.onnx: it needs onnx and onnxscript. Hint: pip install 'protocontrast[onnx]'."
    ]
    assert json.loads(card.read_text())["programs"] == []


def test_scores_and_size_can_be_named(options, tmp_path):
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = 60, 40, 100
    evaluation = Evaluation(Scores(confusion), Protocol(source="gta5"), 2, True)
    write_class_table(tmp_path, class_table(evaluation, network="DeepLab dlv2"))
    named = {"size": (24, 40), "scores": tmp_path / "classes.json"}
    card, _ = run_export(replace(options, **named))
    held = json.loads(card.read_text())
    assert held["scores_percent"]["means"]["miou19"] == pytest.approx((60 + 100 / 1.4) / 2)
    told = held["scores_percent"]["header"]
    assert told[0].startswith("IoU in percent, source gta5; DeepLab, backbone resnet14, head dlv2 ")
    assert held["input_size"] == [24, 40]


def test_a_program_may_be_of_any_size() -> None:
    network, images = build_network(seed=0).eval(), torch.rand(1, 3, 17, 23)
    logits, _ = exported(network, (17, 23)).module()(images)
    torch.testing.assert_close(logits, network(images).logits)


def test_wrong_inputs_write_nothing(options, tmp_path):
    wrong, folder = tmp_path / "wrong.json", options.checkpoint.parent
    for changes, sentence in [
        ({"scores": wrong}, "read_evaluation: expected the JSON file of a table per class, got "),
        ({"size": (0, 24)}, "export: expected a size within 1..16384, got (0, 24)."),
        ({"which": "teacher"}, "read_checkpoint: expected a checkpoint with"),
        (
            {"checkpoint": folder},
            f"export: expected weights in {folder}, got a folder. Hint: name a file in it",
        ),
    ]:
        with refuses(sentence):
            run_export(replace(options, **changes))
    assert not options.out.exists()


def test_the_command_prints_what_it_wrote(options, monkeypatch, capsys):
    words = [str(options.checkpoint), "--out", str(options.out), "--no-program", "--no-onnx"]
    monkeypatch.setattr(sys, "argv", ["export", *words])
    export.main(read(Options, "export"))
    assert capsys.readouterr().out.splitlines() == [
        f"Wrote card.json, model.safetensors to {options.out}",
        f"Try: python -m reference.predict FOLDER --weights {options.out / 'card.json'} "
        "--out predictions",
    ]
    with pytest.raises(SystemExit, match=r"^export: expected out to be a new or empty folder"):
        export.main(read(Options, "export"))


def test_export_that_was_killed_starts_again(options, tmp_path):
    assert_starts_again(tmp_path, lambda out: run_export(replace(options, out=out)), least=4)
