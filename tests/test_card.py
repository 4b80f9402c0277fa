"""A model card says what the file knows, and nothing of the file is taken for Markdown."""

import re
import shlex
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

import acll
from acll.cli.main import main
from acll.errors import ODD_LETTER
from acll.networks.spec import BackboneNetwork, DecoderNetwork
from acll.packing import packed_file, tensor_file
from acll.packing.accounting import bytes_alone
from acll.packing.ownership import commit_finetuned
from acll.serving.card import card_of, code_span
from conftest import tiny_packed
from test_hostile import forged, set_at

MARKDOWN = MarkdownIt("commonmark").enable("table")
UNET = DecoderNetwork(decoder="unet", encoder="resnet_small", width=0.25)
# headings of modelcard_template.md of huggingface_hub, in its order
HEADINGS = """Model Details, Model Description, Uses, Direct Use, Out-of-Scope Use,
Bias, Risks, and Limitations, How to Get Started with the Model, Training Details, Training Data,
Training Procedure, Preprocessing, Training Hyperparameters, Speeds, Sizes, Times, Evaluation,
Testing Data, Factors & Metrics, Testing Data, Metrics, Results, Technical Specifications,
Model Architecture and Objective, Compute Infrastructure, Software, Model Card Contact"""


def written(tmp_path, packed, name="network.safetensors"):
    """The card of a network's file: its metadata, and its text."""
    packed_file.write_packed(tmp_path / name, packed)
    return parts(card_of(packed_file.open_packed(tmp_path / name)))


def parts(card):
    _, metadata, text = card.split("---\n", 2)
    return yaml.safe_load(metadata), text


def tables(text):
    """The tables of a card: rows of cells, the headings first."""
    found, rows = [], None
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            rows = []
            found.append(rows)
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows is not None:
            rows[-1].append("".join(child.content for child in token.children))
        elif token.type == "table_close":
            rows = None
    return found


def spans(text):
    """Each token in running text and tables, with its content."""
    return [
        (child.type, child.content)
        for token in MARKDOWN.parse(text)
        for child in token.children or ()
    ]


@pytest.fixture(scope="module")
def packed():
    """Two tasks of masks and one of classes, which leave out weights of earlier ones."""
    return tiny_packed(
        "discs: segmentation", "crowd: segmentation", "digits", spec=UNET, size=16, left_out=0.3
    )


def test_headings_are_those_of_hugging_face_in_their_order(packed, tmp_path):
    _, text = written(tmp_path, packed)
    headings = re.findall("^##+ (.*)$", text, re.MULTILINE)
    assert ", ".join(headings) == " ".join(HEADINGS.split())
    levels = [len(marks) for marks in re.findall("^(#+) ", text, re.MULTILINE)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert re.search("^# Model Card for `network.safetensors`$", text, re.MULTILINE)


def test_a_card_says_of_each_task_what_the_file_knows(packed, tmp_path):
    records = [
        replace(
            packed.tasks[0],
            classes=("sky", "disc", "rim"),
            mean=(0.1, 0.25, 0.5),
            std=(0.2, 0.2, 0.3),
            tile_overlap=4,
            validation_score=0.87654,
            curve=(0.1, 0.2, 0.3),
            choice={
                "ratio": 0.9,
                "ratio_searched": 0.95,
                "ratio_low": 0.925,
                "ratio_high": 0.97,
                "cap": 0.25,
                "capped": True,
                "cost": 3.5,
            },
        ),
        replace(packed.tasks[1], rotate=30.0, choice={}),
        replace(packed.tasks[2], permute=7, mean=(0.5,), std=(0.25,)),
    ]
    network = replace(packed, tasks=tuple(records), method="adaptive", seed=3)
    _, text = written(tmp_path, network)
    tasks, prepared, chosen, weights, scores = tables(text)
    assert tasks[1:] == [
        ["1", "discs", "segmentation", "3", "16 x 16", "3"],
        ["2", "crowd", "segmentation", "3", "16 x 16", "3"],
        ["3", "digits", "classification", "3", "16 x 16", "1"],
    ]
    assert "\n- `discs`: `sky`, `disc`, `rim`\n" in text
    overlap = "cut into tiles that overlap by 4 pixels"
    assert prepared[1:] == [
        ["discs", "uint8", overlap, "0.1, 0.25, 0.5", "0.2, 0.2, 0.3"],
        ["crowd", "uint8", "resized, rotated by 30 degrees", "0.5, 0.5, 0.5", "0.3, 0.3, 0.3"],
        ["digits", "uint8", "resized, pixels reordered by seed 7", "0.5", "0.25"],
    ]
    assert chosen[1:] == [
        ["discs", "3", "0.900", "0.100", "0.950", "0.925 to 0.970", "0.250"],
        ["crowd", "", "", "", "", "", ""],
        ["digits", "", "0.500", "0.500", "", "", ""],
    ]
    assert scores[1:] == [
        ["discs", "mean IoU", "validation", "0.8765"],
        ["crowd", "mean IoU", "validation", "0.5000"],
        ["digits", "accuracy", "validation", "0.5000"],
    ]
    opened = packed_file.open_packed(tmp_path / "network.safetensors")
    private = packed_file.parts_of(opened.header).private
    expected = []
    for position, record in enumerate(records, 1):
        state = opened.state(record.name)
        owned = sum(int((own == position).sum()) for own in packed.owner.values())
        read = sum(int((state[name] != 0).sum()) for name in packed.owner if name in state)
        left_out = sum(int(mask.sum()) for mask in packed.unread.get(record.name, {}).values())
        counts = (owned, read, left_out, private[record.name])
        expected.append([record.name, *(f"{count:,}" for count in counts)])
    assert weights[1:] == expected
    for line in (
        "- **Method:** `adaptive`, as its configuration calls it",
        "- **Seed:** 3",
        "- **Model type:** image classification and image segmentation; decoder `unet` on the "
        "encoder `resnet_small`",
        "- **Finetuned from model:** none; weights were drawn at random",
        "- **License:** [More Information Needed]",
        "Decoder `unet` on the encoder `resnet_small`; 3 channels, width 0.25",
    ):
        assert f"\n{line}\n" in text


def test_a_card_says_the_bytes_of_the_file_against_those_of_separate_networks(packed, tmp_path):
    _, text = written(tmp_path, packed)
    path = tmp_path / "network.safetensors"
    size, header = path.stat().st_size, packed_file.open_packed(path).header
    free = sum(int((owner == 0).sum()) for owner in packed.owner.values())
    total = sum(owner.numel() for owner in packed.owner.values())
    assert f"- {total:,} shared weights, of which {free:,} are free\n" in text
    assert f"- {size:,} bytes: weights " in text
    separate = sum(bytes_alone(header, record.name) for record in packed.tasks)
    words = " ".join(text.split())
    assert (
        f"- {size / separate:.1%} of the bytes of a network for each task ({separate:,})" in words
    )


def test_metadata_are_plain_and_have_a_pipeline_where_all_tasks_are_of_one_kind(packed, tmp_path):
    assert written(tmp_path, packed)[0] == {
        "library_name": "acll",
        "tags": [
            "continual-learning",
            "multi-task-learning",
            "image-classification",
            "image-segmentation",
        ],
    }
    metadata, text = written(tmp_path, tiny_packed("a"))
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["tags"][2:] == ["image-classification"]
    assert "One network with one task, in the order of learning: `a`." in text
    assert "multilayer perceptron with ReLU, hidden layers of 6 units" in text


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("imagenet", "`resnet_small` with weights of ImageNet"),
        ("own/a`b.safetensors", "the weights of the file ``own/a`b.safetensors``"),
    ],
)
def test_where_weights_came_from_is_said(tmp_path, weights, words):
    spec = BackboneNetwork(backbone="resnet_small", width=0.25)
    known = tiny_packed("a", spec=spec, size=16)
    known = replace(known, network=known.network | {"weights": weights})
    _, text = written(tmp_path, known)
    assert f"\n- **Finetuned from model:** {words}\n" in text


def test_what_a_method_does_not_promise_is_said(tmp_path):
    packed = tiny_packed("a")
    assert "promises that what a task has learned never changes" in written(tmp_path, packed)[1]
    state = packed.shared | packed.private["a"]
    record = replace(packed.tasks[0], name="b")
    _, text = written(tmp_path, commit_finetuned(packed, record, state))
    assert "Its method does not promise that `b` stayed as learned" in text
    weights = tables(text)[3]
    assert [row[1] == "" for row in weights[1:]] == [False, True]


# --------------------------------------------------------------------------------------------------
# names of strangers


LETTERS = st.characters(exclude_categories=("Cs", "Cc")).filter(
    lambda one: not ODD_LETTER.match(one)
)
HOSTILE = st.text(st.one_of(LETTERS, st.sampled_from("`|\\<>[]()*_ &;!$@#-:~")), min_size=1)


@given(HOSTILE)
def test_any_text_is_shown_as_it_is_in_a_span_of_code(text):
    tokens = MARKDOWN.parseInline(f"before {code_span(text)} after")[0].children
    assert [(token.type, token.content) for token in tokens] == [
        ("text", "before "),
        ("code_inline", text),
        ("text", " after"),
    ]


NAMES = (
    "`", "``", "a`b", " ", " x ", "` x", "|", "a|b", "\\", "\\`",
    "</code><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "[a](http://example.com)", "![a](http://example.com/a.png)",
    "www.example.com", "http://example.com", "a@example.com", "@somebody", "#1", "$x$", ":smile:",
    "*a*", "_a_", "~~a~~", "&lt;", "---", "# a", "- a", "1. a", "[More Information Needed]: x",
    "{{ a }}", "<!-- a -->", "été", "日本",
)  # fmt: skip


def test_no_name_of_a_stranger_is_taken_for_markdown_or_html(tmp_path):
    packed = tiny_packed("a", classes=len(NAMES))
    packed = replace(
        packed,
        tasks=(replace(packed.tasks[0], classes=NAMES),),
        method="[m](http://example.com) | `<b>",
    )
    metadata, text = written(tmp_path, packed)
    found = spans(text)
    assert {kind for kind, _ in found} <= {"text", "code_inline", "softbreak", "strong_open",
                                           "strong_close"}  # fmt: skip
    shown = [content for kind, content in found if kind == "code_inline"]
    first = shown.index(NAMES[0])
    assert shown[first : first + len(NAMES)] == list(NAMES)
    assert packed.method in shown
    assert not any("example" in content for kind, content in found if kind == "text")
    assert metadata == written(tmp_path, tiny_packed("a"))[0]


def test_versions_and_choices_that_are_none_make_no_card_of_another_form(tmp_path):
    packed_file.write_packed(tmp_path / "network.safetensors", tiny_packed("a", "b"))
    known = tables(parts(card_of(packed_file.open_packed(tmp_path / "network.safetensors")))[1])
    for change in (
        set_at("versions", value={"torch": "1`\n# x" * 99, "timm": ["|"], "x": "y"}),
        set_at("versions", value=[["# x"]]),
        set_at("tasks", 0, "choice", value={"ratio_low": "|", "ratio_high": True, "cap": [1]}),
    ):
        path = forged(tmp_path / "network.safetensors", tmp_path, change)
        text = parts(card_of(packed_file.open_packed(path)))[1]
        assert [[len(row) for row in rows] for rows in tables(text)] == [
            [len(row) for row in rows] for rows in known
        ]
        assert re.findall("^#.*x", text, re.MULTILINE) == []


# --------------------------------------------------------------------------------------------------
# the command


def test_the_snippets_of_a_card_run(packed, tmp_path, monkeypatch, capsys):
    name = "a 'net' \"work\"`.safetensors"
    _, text = written(tmp_path, packed, name)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    (python,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    (shell,) = re.findall("```sh\n(.*?)```", text, re.DOTALL)
    exec(compile(python, "card", "exec"), {})
    label, *_ = capsys.readouterr().out.splitlines()
    expected = acll.load(tmp_path / name).predict("digits", pixels)
    assert label == f"{expected.label} {expected.top(3)}"
    for line in shell.splitlines():
        main(shlex.split(line)[1:])
    assert f"image.png  {expected.label} " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        "image.mask.png",
        "image.overlay.png",
    }


def test_a_card_is_printed_or_written_and_reads_the_header_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, tiny_packed("a", "b"))

    def read(self, name):
        raise AssertionError(name)

    monkeypatch.setattr(tensor_file.TensorFile, "tensor", read)
    capsys.readouterr()
    main(["card", str(path)])
    text = capsys.readouterr().out
    assert text == card_of(packed_file.open_packed(path))
    main(["card", str(path), "--out", str(tmp_path / "made/card.md")])
    assert (tmp_path / "made/card.md").read_text(encoding="utf-8") == text
    assert "made/card.md: fill in what the file does not know" in capsys.readouterr().out


def test_a_card_is_not_written_over_a_network(tmp_path, capsys):
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, tiny_packed("a"))
    before = path.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["card", str(path), "--out", str(path)])
    assert ended.value.code == 1
    assert "a model card is Markdown; give it a name that ends with .md" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_network_that_is_built_from_nothing_has_no_card(tmp_path, capsys):
    path = tmp_path / "network.safetensors"
    packed_file.write_packed(path, tiny_packed("a"))
    odd = forged(path, tmp_path, set_at("network", value={"zebra": 1}))
    with pytest.raises(SystemExit):
        main(["card", str(odd)])
    assert f"error: {odd}: the network is not sound: it cannot be built from" in (
        capsys.readouterr().err
    )
