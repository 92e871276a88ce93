"""The model card that lies beside a student: what it is, how it was made, how to load it, what is left to say."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sskd.escaping import markdown, markdown_block
from sskd.models.folders import HANDED_OVER, TORCHVISION, is_factory, is_importable

LISTED = 50  # class names


def model_card(config: Mapping[str, Any], result: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Markdown with the Hugging Face hub's header.

    `config` and `result` are the run's config.json and result.json, `settings` the student's config.json.
    """
    arguments, data, record = config["arguments"], config["data"], result.get("best") or result["last"]
    test, pretrained = record["test"], settings["pretrained_cfg"]
    names: Sequence[str] = config["class_names"]
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [image-classification, knowledge-distillation, sskd]",
        "license: other  # to fill in",
        "---",
        f"# {markdown(result['network'])}, {markdown(_how(arguments))}",
        "",
        f"Top-1 accuracy **{test['top1']:.2%}**, top-5 {test['top5']:.2%}, on the {data['test_images']:,} test images "
        f"of {markdown(data['name'])} ({result['student']}, epoch {record['epoch']}). "
        f"{result['parameters']:,} parameters.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {markdown(data['name'])}: {data['train_images']:,} training images{_of_all(data)}{_wrong(config)} |",
        f"| teacher | {markdown(_teacher(config))} |",
        f"| method | {markdown(arguments['method'])}, seed {arguments['training']['seed']}, "
        f"{arguments['training']['epochs']} epochs |",
        f"| options | {markdown(json.dumps(arguments['options']))} |",
        f"| input | {'x'.join(map(str, pretrained['input_size']))}, mean {_numbers(pretrained['mean'])}, "
        f"std {_numbers(pretrained['std'])}, for pixels from 0 to 1 |",
        f"| classes | {len(names)}: {_listed(names)} |",
        "",
        "## Use",
        *_use(str(settings.get("architecture") or result["network"])),  # as it is loaded
        "",
        "## Made by",
        markdown_block(str(config["environment"]["command"])),
        f"with sskd {config['environment']['sskd']}, torch {config['environment']['torch']}, "
        f"timm {config['environment']['timm']}.",
        "",
        "## To fill in",
        "- Licence of the weights (header above), of the training images and of the teacher:",
        "- Intended use, and uses that it is not made for:",
        "- Who or what is pictured in the data, and who is missing:",
        "- Contact:",
        "",
    ]
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(markdown, names[:LISTED]), *(["..."] if len(names) > LISTED else [])])


def _how(arguments: Mapping[str, Any]) -> str:
    if arguments["method"] == "ce":
        return f"fine-tuned on {arguments['data']}" if arguments.get("init") else "trained on labels"
    return f"distilled with {arguments['method']}"


def _of_all(data: Mapping[str, Any]) -> str:
    return f" of {data['teacher_images']:,}" if data["teacher_images"] != data["train_images"] else ""


def _wrong(config: Mapping[str, Any]) -> str:
    wrong = config.get("labels", {}).get("student", {}).get("wrong_labels")
    return f", {wrong:,} of them with a wrong label on purpose" if wrong else ""


def _teacher(config: Mapping[str, Any]) -> str:
    teacher = config["teacher"]
    return f"{teacher['architecture']}, weights {teacher['weights'][:16]}" if teacher else "none"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _use(network: str) -> list[str]:
    """How to load the network, and how to label files with it."""
    if network.startswith(HANDED_OVER):
        return [
            "This is a module that was handed over in Python, which no file describes: name a function that returns "
            "such a module, `package.module:factory`.",
            "```python",
            *_loading(', "package.module:factory"'),
            "```",
            "For `sskd predict` and `sskd export`, make a run of it: `sskd teacher --init FOLDER --model "
            "package.module:factory --data DATA --epochs 0 --out RUN`, and give RUN with `--trust_code true`.",
        ]
    trust = " --trust_code true" if is_importable(network) else ""
    if is_factory(network) or network.startswith(TORCHVISION):
        loading = _loading(", trust_code=True" if trust else "")
    else:
        ours = ["import sskd  # makes the architecture known to timm"] if network.startswith("cifar_") else []
        loading = ["import timm", *ours, "", 'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()']
    return [
        "```python",
        *loading,
        "```",
        f"or, for files and folders: `sskd predict --run FOLDER --images IMAGES{trust}`; as one "
        f"file for ONNX: `sskd export FOLDER --out NAME.onnx{trust}`.",
    ]


def _loading(more: str) -> list[str]:
    """Python that reads the folder with this package."""
    return [
        "from pathlib import Path",
        "from sskd.models.load import load_folder",
        "",
        f'model = load_folder(Path("FOLDER"){more}).eval()  # takes images in [0, 1]',
    ]
