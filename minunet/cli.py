"""The command `minunet`. Every module a command needs is loaded when it runs, so that help appears at once."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from minunet.kernels import log_compiled

if TYPE_CHECKING:
    from minunet.train.loop import Run

app = typer.Typer(
    name="minunet",
    help="Learn, check, measure and train UNet: image segmentation and denoising from scratch.",
    epilog="[bold]Examples[/]\n\n"
    "minunet demo\n\n"
    "minunet train --images photos --masks masks --out my-model\n\n"
    "minunet predict my-model new-photos --out new-masks\n\n"
    "minunet denoise train photos --noise gaussian --out my-denoiser",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
denoise = typer.Typer(help="Remove noise: train without clean images, apply, evaluate.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(denoise, name="denoise")

Source = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="isbi2012, dsb2018 or cells (generated). For your own images leave it out.")
]
Images = Annotated[Path | None, typer.Option(help="Your images: a folder of PNG, TIFF or JPEG files.")]
Masks = Annotated[Path | None, typer.Option(help="Their masks, under the same names.")]
Binary = Annotated[bool, typer.Option("--binary", help="All mask values above 0 are one class, as where masks number their objects.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda where a GPU is present.")]
Tta = Annotated[bool, typer.Option("--tta", help="Average the predictions over flips and quarter turns: better, eight times slower.")]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command. What the user can put right is told in one sentence on stderr, with exit code 2."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    try:
        with _log_on_stderr():
            app(args=[a for a in given if a != "--debug"], prog_name="minunet")
    except (ValueError, RuntimeError, OSError, ArithmeticError, MemoryError) as problem:
        if debug:
            raise
        print(f"minunet: {_sentence(problem)}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Shows what the package logs, of compiling kernels for example; a live display keeps its place below it."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(record.getMessage(), file=sys.stderr)  # not kept: rich puts its own there while a live display runs

    logger, lines = logging.getLogger("minunet"), Lines()
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        log_compiled()
        logger.setLevel(before)
        logger.removeHandler(lines)


def _sentence(problem: BaseException) -> str:
    if isinstance(problem, MemoryError):
        return f"out of memory ({problem}): use a smaller --batch-size, --crop or --base-channels."
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.strerror}: {problem.filename!r}." if problem.filename else f"{problem.strerror}."
    return " ".join(str(problem).split()) or type(problem).__name__


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None: ...


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the model and the pictures go.")] = Path("minunet-demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train a small UNet on generated images of cells: a minute or two.

    [dim]minunet demo[/]
    """
    from minunet.inference import Segmenter
    from minunet.train.segmentation import evaluate as evaluate_on
    from minunet.train.segmentation import open_known, pooled, preset, train

    console = Console()
    settings = preset("cells", seed=seed)
    _say(console, "A small UNet learns to tell cells from background, on generated microscope images:")
    _, reason = train(settings, out, display=_display(console))
    if reason == "interrupted":
        _say(console, f"Stopped. Continue with: minunet train cells --out {out} --resume")
        raise typer.Exit(130)
    confusion = pooled(evaluate_on(Segmenter.load(out), open_known("cells", "test")))
    _say(
        console,
        f"\nOn 16 new images the IoU of the cells is {confusion.iou[1]:.3f} and {confusion.pixel_error:.1%} of the pixels are wrong.",
    )
    _files(console, out)
    _say(console, "\nNext, with your own images:  minunet train --images DIR --masks DIR --out my-model")
    _say(console, f"Masks for new images:        minunet predict {out} IMAGE… --out masks")


@app.command()
def train(
    source: Source = None,
    images: Images = None,
    masks: Masks = None,
    binary: Binary = False,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder: checkpoints, logs, pictures. [dim]\\[default: minunet-SOURCE][/]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it stopped.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit; the learning rate falls to its end within it.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the random window taken from each image; 0 takes whole images.")] = None,
    base_channels: Annotated[int | None, typer.Option(help="Channels at the top of the UNet; each level below has twice as many.")] = None,
    depth: Annotated[int | None, typer.Option(help="Poolings of the UNet.")] = None,
    norm: Annotated[str | None, typer.Option(help="Normalisation: batch, instance, group or none.")] = None,
    up: Annotated[str | None, typer.Option(help="Upsampling: transposed, nearest or bilinear.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, at its peak.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Share of your images held out for validation.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda where a GPU is present.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or with --device cuda tf32, fp16 or bf16.")] = None,
) -> None:
    """Train a UNet on a known set or on your own images and masks.

    [dim]minunet train isbi2012[/]

    [dim]minunet train --images photos --masks masks --out my-model[/]
    """
    from minunet.train.segmentation import preset, resumed
    from minunet.train.segmentation import train as run_training

    options: dict[str, Any] = {
        "images": images and str(images),
        "masks": masks and str(masks),
        "binary": binary or None,
        "epochs": epochs,
        "minutes": minutes,
        "batch_size": batch_size,
        "crop": crop,
        "base_channels": base_channels,
        "depth": depth,
        "norm": norm,
        "up": up,
        "learning_rate": lr,
        "val_fraction": val_fraction,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    given = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    source = _which_source(source, images, masks) if not (resume and out) or source or images or masks else None
    out = out or Path(f"minunet-{'model' if source == 'folder' else source}")
    _check_run(out, resume)
    settings = resumed(out, given | ({"source": source} if source else {})) if resume else preset(str(source), **given)
    console = Console()
    run, reason = run_training(settings, out, resume=resume, display=_display(console))
    if reason == "interrupted":
        where = settings.source if settings.source != "folder" else f"--images {settings.images} --masks {settings.masks}"
        _say(console, f"Stopped and saved in epoch {run.epoch + 1}. Continue with: minunet train {where} --out {out} --resume")
        raise typer.Exit(130)
    _ended(console, run, reason, _SEGMENTATION)
    _files(console, out)
    _say(console, f"\nMasks for new images:  minunet predict {out} IMAGE… --out masks")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder or a checkpoint.")],
    source: Source = None,
    images: Images = None,
    masks: Masks = None,
    part: Annotated[str, typer.Option(help="Which part of a known set: validation, test or train.")] = "validation",
    tta: Tta = False,
    device: Device = "cpu",
) -> None:
    """Measure a model against true masks: Dice, IoU, pixel error.

    [dim]minunet evaluate minunet-isbi2012 isbi2012[/]
    """
    from minunet import data
    from minunet.inference import Segmenter
    from minunet.train.segmentation import evaluate as evaluate_on
    from minunet.train.segmentation import open_known, pooled, scores

    segmenter = Segmenter.load(model, device)
    dataset: Any
    if _which_source(source, images, masks) == "folder":
        masked = segmenter.config.get("masks", {})
        values = None if masked.get("binary") else masked.get("values") or None
        dataset = data.ImageMaskFolder(str(images), str(masks), binary=masked.get("binary", False), values=values)
    else:
        dataset = open_known(str(source), part)
    console = Console()
    confusions = evaluate_on(segmenter, dataset, tta=tta)
    confusion = pooled(confusions)
    table = Table("class", "Dice", "IoU", "precision", "recall")
    for i, name in enumerate(segmenter.class_names):
        table.add_row(name, *(f"{getattr(confusion, score)[i]:.4f}" for score in ("dice", "iou", "precision", "recall")))
    console.print("Over the pixels of all images:", highlight=False)
    console.print(table)
    means = {name: sum(scores(c, segmenter.class_names)[name] for c in confusions) / len(confusions) for name in ("dice", "iou")}
    but = f"of {segmenter.class_names[1]}" if confusion.classes == 2 else f"without {segmenter.class_names[0]}"
    _say(console, f"pixel error {confusion.pixel_error:.4f} over {len(dataset)} images{', with test-time augmentation' if tta else ''}")
    _say(console, f"mean over images, {but}: Dice {means['dice']:.4f}, IoU {means['iou']:.4f}")
    known = set(segmenter.config.get("train", ())) & set(dataset.names)
    if known:
        _say(console, f"{len(known)} of them have the name of an image the model was trained on: these figures flatter it.")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder or a checkpoint.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders of them; any size.")],
    out: Annotated[Path, typer.Option(help="The folder for the masks.")],
    tta: Tta = False,
    threshold: Annotated[float, typer.Option(help="Probability from which a pixel is object (with two classes).")] = 0.5,
    min_size: Annotated[int, typer.Option(help="Remove objects of fewer pixels.")] = 0,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill the holes in objects.")] = False,
    largest: Annotated[bool, typer.Option("--largest", help="Keep the largest object alone.")] = False,
    instances: Annotated[bool, typer.Option("--instances", help="Number the objects 1, 2, 3 … instead of marking them all.")] = False,
    device: Device = "cpu",
) -> None:
    """Write a mask for each image, in its size and bit depth.

    [dim]minunet predict minunet-demo photo.png --out masks[/]
    """
    import numpy as np

    from minunet import inference
    from minunet.data import read_image

    segmenter = inference.Segmenter.load(model, device)
    binary = len(segmenter.class_names) == 2
    if not binary and (min_size or fill_holes or largest or instances):
        raise ValueError(
            "--min-size, --fill-holes, --largest and --instances work on one class of objects, "
            f"this model has {len(segmenter.class_names) - 1}."
        )
    targets = _targets(images, "mask", lambda file: inference.mask_path(file, out))
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    for target, file in targets.items():
        classes = segmenter.classes(segmenter(read_image(file), tta=tta), threshold)
        if binary:
            mask = classes == 1
            mask = inference.fill_holes(mask) if fill_holes else mask
            mask = inference.remove_small(mask, min_size) if min_size else mask
            mask = inference.keep_largest(mask) if largest else mask
            numbered, count = inference.components(mask)
            classes = numbered if instances else mask.astype(np.int64)
        depth = np.dtype(np.uint16) if instances else inference.bit_depth(file)
        inference.write_mask(target, classes, depth, binary=binary and not instances)
        what = segmenter.class_names[1] if binary else "object"
        found = f"  {count} objects" if binary else ""
        _say(console, f"{target}  {classes.shape[1]}×{classes.shape[0]}  {np.mean(classes > 0):.1%} {what}{found}")


@denoise.command("train")
def denoise_train(
    images: Annotated[
        Path | None, typer.Argument(metavar="IMAGES", help="A folder of PNG, TIFF or JPEG files. With --resume it may be left out.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="The images are clean; make this noise: gaussian, brown, poisson, bernoulli, text, impulse, rendering, mri."),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="Of the noise, where you know it. [dim]\\[default: a range, for any][/]")] = None,
    target: Annotated[str | None, typer.Option(help="With --noise: learn from noisy or clean targets. [dim]\\[default: noisy][/]")] = None,
    second: Annotated[
        Path | None, typer.Option(help="The images are noisy; here are others of the same scenes, under the same names.")
    ] = None,
    blind_spot: Annotated[bool, typer.Option("--blind-spot", help="The images are noisy, and each scene was taken once.")] = False,
    out: Annotated[Path, typer.Option(help="The run's folder: checkpoints, logs, pictures.")] = Path("minunet-denoiser"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out where it stopped.")] = False,
    steps: Annotated[int | None, typer.Option(help="Limit of steps. [dim]\\[default: 20000, or none with --minutes][/]")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit; the learning rate falls to its end within it.")] = None,
    loss: Annotated[str | None, typer.Option(help="l2, l1 or l0. [dim]\\[default: the one that fits --noise, l2 with --second][/]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the random window taken from an image, divisible by 32.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Share of the images held out to measure on, 16 at most.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda where a GPU is present.")] = None,
) -> None:
    """Train a network to denoise: with noise that is made, with pairs of noisy images, or with single ones.

    [dim]minunet denoise train photos --noise gaussian[/]

    [dim]minunet denoise train first --second second[/]

    [dim]minunet denoise train noisy --blind-spot[/]
    """
    from minunet.train import noise2noise

    options: dict[str, Any] = {
        "images": images and str(images),
        "noise": noise,
        "strength": strength,
        "target": target,
        "second": second and str(second),
        "blind_spot": blind_spot or None,
        "steps": steps,
        "minutes": minutes,
        "loss": loss,
        "batch_size": batch_size,
        "crop": crop,
        "learning_rate": lr,
        "val_fraction": val_fraction,
        "seed": seed,
        "device": device,
    }
    given = {name: value for name, value in options.items() if value is not None}
    _check_run(out, resume)
    if images is None and not resume:
        raise ValueError("say which folder holds the images: minunet denoise train DIR, with --noise NAME, --second DIR or --blind-spot.")
    settings = noise2noise.resumed(out, given) if resume else noise2noise.Settings(**given)
    metrics = {"psnr": "PSNR", "ssim": "SSIM"} if settings.noise else {"val_loss": "val loss"}
    console = Console()
    run, reason = noise2noise.train(settings, out, resume=resume, display=_display(console, metrics))
    if reason == "interrupted":
        _say(console, f"Stopped and saved in epoch {run.epoch + 1}. Continue with: minunet denoise train --out {out} --resume")
        raise typer.Exit(130)
    _ended(console, run, reason, metrics)
    _files(console, out)
    _say(console, f"\nDenoise other images:  minunet denoise apply {out} IMAGE… --out clean")


@denoise.command("apply")
def denoise_apply(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, a checkpoint, or weights as .npz.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders of them; any size.")],
    out: Annotated[Path, typer.Option(help="The folder for the denoised images.")],
    device: Device = "cpu",
) -> None:
    """Write each image without its noise, in its format, size and bit depth.

    [dim]minunet denoise apply minunet-denoiser photo.png --out clean[/]
    """
    from minunet.data import pixel_type, read_image
    from minunet.inference import Denoiser, write_image

    denoiser = Denoiser.load(model, device)
    targets = _targets(images, "result", lambda file: out / file.name)
    console = Console()
    for target, file in targets.items():
        clean = denoiser(read_image(file))
        out.mkdir(parents=True, exist_ok=True)
        write_image(target, clean, pixel_type(file))
        _say(console, f"{target}  {clean.shape[2]}×{clean.shape[1]}")


@denoise.command("evaluate")
def denoise_evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, a checkpoint, or weights as .npz.")],
    clean: Annotated[Path, typer.Argument(metavar="CLEAN", help="A folder of clean images.")],
    noisy: Annotated[
        Path | None, typer.Option(help="Their noisy versions, under the same names. [dim]\\[default: noise is made][/]")
    ] = None,
    noise: Annotated[str | None, typer.Option(help="The noise to make. [dim]\\[default: that of the training][/]")] = None,
    picture: Annotated[Path, typer.Option(help="Where to draw noisy, denoised, clean and difference.")] = Path("denoised.png"),
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    device: Device = "cpu",
) -> None:
    """Measure a model against clean images: PSNR and SSIM, before and after.

    [dim]minunet denoise evaluate minunet-denoiser test-photos[/]
    """
    from minunet import data
    from minunet.inference import Denoiser
    from minunet.train.noise2noise import evaluate
    from minunet.train.pictures import draw_restored

    denoiser = Denoiser.load(model, device)
    if noise is not None and noisy is not None:
        raise ValueError("--noisy and --noise are two sources of noise: give one.")
    if noise is not None and noise not in data.NOISES:
        raise ValueError(f"there is no noise {noise!r}: choose {', '.join(data.NOISES)}.")
    made = data.NOISES[noise]() if noise else denoiser.noise
    if noisy is None and type(made) is data.Noise:
        raise ValueError("this model was trained on real noise, which cannot be made: give --noisy DIR, or --noise NAME.")
    pictures: Any = data.Pictures(clean, span=denoiser.span) if noisy is None else data.PicturePairs(noisy, clean, span=denoiser.span)
    console = Console()
    table = Table("image", "PSNR noisy", "denoised", "SSIM noisy", "denoised")
    rows: list[list[float]] = []
    shown: list[Any] = []
    for verdict in evaluate(denoiser, pictures, noise=made, seed=seed):
        rows.append([verdict.before["psnr"], verdict.after["psnr"], verdict.before["ssim"], verdict.after["ssim"]])
        table.add_row(verdict.name, *(f"{value:.{digits}f}" for value, digits in zip(rows[-1], (2, 2, 4, 4), strict=True)))
        if len(shown) < 3:
            shown.append(verdict.restored)
    console.print(table)
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    _say(console, f"mean over {len(rows)} images: PSNR {mean[0]:.2f} → {mean[1]:.2f} dB, SSIM {mean[2]:.4f} → {mean[3]:.4f}")
    draw_restored(shown, picture)
    _say(console, f"{picture}  noisy, denoised, clean, difference")


@app.command()
def reconstruct(
    scan: Annotated[Path | None, typer.Argument(metavar="SCAN", help="A scan in an HDF5 file; without it a phantom is scanned.")] = None,
    phantom: Annotated[str | None, typer.Option(help="shepp-logan or ellipses. [dim]\\[default: shepp-logan][/]")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the phantom. [dim]\\[default: 128][/]")] = None,
    angles: Annotated[int | None, typer.Option(help="Steps of the phantom's scan over 180°. [dim]\\[default: 180][/]")] = None,
    wedge: Annotated[float | None, typer.Option(help="Degrees that are missing: 60 leaves −60° to 60°. [dim]\\[default: 0][/]")] = None,
    noise: Annotated[float | None, typer.Option(help="Its norm, as a share of the sinogram's. [dim]\\[default: 0.02][/]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of ellipses, noise and network. [dim]\\[default: 0][/]")] = None,
    row: Annotated[int, typer.Option(help="The scan's detector row.")] = 0,
    centre: Annotated[float | None, typer.Option(help="The detector that sees the axis of rotation; found where not given.")] = None,
    method: Annotated[str, typer.Option(help="fbp, sirt, fista-tv or network.")] = "fbp",
    iterations: Annotated[int | None, typer.Option(help="Of sirt and fista-tv. [dim]\\[default: 100][/]")] = None,
    model: Annotated[Path | None, typer.Option(help="A trained network. Without it one is trained for the phantom's scan.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of its training. [dim]\\[default: 30][/]")] = None,
    out: Annotated[Path, typer.Option(help="The folder for the image and the pictures.")] = Path("minunet-reconstruction"),
) -> None:
    """Reconstruct a cross-section from a tomographic scan.

    [dim]minunet reconstruct --phantom ellipses --wedge 60 --method fista-tv[/]

    [dim]minunet reconstruct tooth.h5 --method sirt[/]
    """
    import time

    from minunet import tomography
    from minunet.tomography import pictures
    from minunet.tomography.methods import check_method

    console = Console()
    made = {"phantom": phantom, "size": size, "angles": angles, "wedge": wedge, "noise": noise, "seed": seed}
    given = {name: value for name, value in made.items() if value is not None}
    if method != "network":
        check_method(method, iterations)
        if model is not None or epochs is not None:
            raise ValueError(f"--model and --epochs belong to --method network, not to {method}.")
    elif iterations is not None or (model is not None and epochs is not None):
        raise ValueError("a network has no --iterations, and one that is trained already, --model, no --epochs: leave them out.")
    truth = None
    if scan is not None:
        if given:
            raise ValueError(f"--{min(given)} is of a phantom's scan, and {str(scan)!r} is a real one: give one of them.")
        if method == "network" and model is None:
            raise ValueError("the network of a real scan must be trained already: give its --model.")
        sinogram, geometry = _real_scan(console, scan, row, centre)
    else:
        if centre is not None or row:
            raise ValueError("--centre and --row are of a real scan: give its file, or leave them out.")
        chosen: dict[str, Any] = {"phantom": "shepp-logan", "size": 128, "angles": 180, "wedge": 0.0, "noise": 0.02, "seed": 0, **given}
        truth = _phantom(chosen["phantom"], chosen["size"], chosen["seed"])
        geometry = tomography.Geometry.over("reconstruct", truth.shape, tomography.tilts(chosen["angles"], chosen["wedge"]).tolist())
        sinogram = tomography.noisy(tomography.project(truth, geometry), chosen["noise"], chosen["seed"])
    if method == "network":
        restorer = _restorer(console, model, {} if scan else {n: v for n, v in chosen.items() if n != "phantom"}, epochs, out / "network")
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with console.status(f"{method} …") as status:
        first, steps = (restorer.settings.method, restorer.settings.iterations) if method == "network" else (method, iterations)
        image = tomography.reconstruct(
            sinogram, geometry, first, steps, watch=lambda number, _: status.update(f"{first}: iteration {number}")
        )
        if method == "network":
            image = restorer(image)
    seconds = time.perf_counter() - started
    low, high = pictures.extent(image) if truth is None else (float(truth.min()), float(truth.max()))
    pictures.write(image, out, low=low, high=high)
    pictures.draw(out / "comparison.png", sinogram, geometry.angles, image, method, truth, low=low, high=high)
    scores = "" if truth is None else f"  PSNR {tomography.psnr(image, truth):.2f} dB  SSIM {tomography.ssim(image, truth):.4f}"
    _say(console, f"{method}: {image.shape[1]}×{image.shape[0]} from {len(geometry.angles)} angles{scores}  {seconds:.1f} s")
    _say(console, f"  {out / 'reconstruction.tif'}  the image as numbers; reconstruction.png is for looking at")
    _say(console, f"  {out / 'comparison.png'}  the image beside the sinogram{'' if truth is None else ' and the truth'}")


def _real_scan(console: Console, scan: Path, row: int, centre: float | None) -> tuple[Any, Any]:
    """The sinogram of a file and its geometry; the image is as wide as the line of detectors."""
    from minunet import tomography

    read = tomography.read_scan(scan, row)
    detectors = read.sinogram.shape[1]
    if centre is None:
        with console.status("looking for the axis of rotation …"):
            centre = tomography.find_centre(read.sinogram, read.angles)
        _say(console, f"axis of rotation at detector {centre:.1f} of 0 … {detectors - 1}")
    if not 0 <= centre <= detectors - 1:
        raise ValueError(f"--centre is a place among the detectors 0 … {detectors - 1}, got {centre:g}.")
    return read.sinogram, tomography.Geometry.over("reconstruct", (detectors, detectors), read.angles.tolist(), detectors, centre)


def _phantom(name: str, size: int, seed: int) -> Any:
    from minunet.tomography import ellipses, shepp_logan

    if size < 16:
        raise ValueError(f"a phantom's --size is at least 16, got {size}.")
    if name not in ("shepp-logan", "ellipses"):
        raise ValueError(f"the phantom is shepp-logan or ellipses, got {name!r}.")
    return shepp_logan(size) if name == "shepp-logan" else ellipses(size, seed)


def _restorer(console: Console, model: Path | None, scanned: dict[str, Any], epochs: int | None, folder: Path) -> Any:
    """The trained network, or one that is trained now for scans like this one, on other ellipses, and kept in the folder."""
    from minunet.tomography.network import Restorer, Settings, make_pairs, train
    from minunet.train.display import LiveDisplay

    if model is not None:
        restorer = Restorer.load(model)
        told = {name: getattr(restorer.settings, name) for name in ("angles", "wedge", "noise") if name in scanned}
        if other := [name for name, value in told.items() if value != scanned[name]]:
            _say(console, "The network was trained for scans with " + ", ".join(f"{name} {told[name]:g}" for name in other) + ".")
        return restorer
    training = {"seed": scanned["seed"] + 1, **({} if epochs is None else {"epochs": epochs})}  # other objects than the one that is scanned
    settings = Settings(**{**scanned, **training})
    _say(console, f"A UNet learns to correct reconstructions of {settings.phantoms} other objects, scanned alike:")
    with console.status("scanning and reconstructing them …"):
        pairs = make_pairs(settings)
    _, reason = train(settings, folder, pairs=pairs, display=LiveDisplay(console, {"val_loss": "val loss", "psnr": "PSNR"}))
    if reason == "interrupted":
        _say(console, "Stopped: a network that has not learnt to its end is not used.")
        raise typer.Exit(130)
    _say(console, f"  {folder / 'best.safetensors'}  the network, for --model")
    return Restorer.load(folder)


@app.command()
def summary(
    model: Annotated[
        Path | None, typer.Argument(help="A run's folder or a checkpoint; without it, the UNet that the options describe.")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width of the input image.")] = 512,
    in_channels: Annotated[int, typer.Option(help="Channels of the image: 1 gray, 3 colour.")] = 1,
    out_channels: Annotated[int, typer.Option(help="Channels of the result: 1 for two classes.")] = 1,
    base_channels: Annotated[int, typer.Option(help="Channels at the top.")] = 64,
    depth: Annotated[int, typer.Option(help="Poolings.")] = 4,
    norm: Annotated[str, typer.Option(help="batch, instance, group or none.")] = "none",
    up: Annotated[str, typer.Option(help="transposed, nearest or bilinear.")] = "transposed",
) -> None:
    """Print a UNet layer by layer: shapes, parameters, costs.

    [dim]minunet summary --base-channels 16 --size 256[/]
    """
    from minunet.inference import Segmenter
    from minunet.inspection import summary as summarise
    from minunet.models import UNet

    if model is not None:
        segmenter = Segmenter.load(model)
        network, channels = segmenter.model, segmenter.channels
    else:
        network = UNet(in_channels, out_channels, base_channels=base_channels, depth=depth, norm=None if norm == "none" else norm, up=up)
        channels = in_channels
    _say(Console(), str(summarise(network, (1, channels, size, size))))


@app.command()
def check(
    operations: Annotated[
        list[str] | None, typer.Argument(metavar="OPERATIONS", help="conv2d, batch_norm …; all of them without it.")
    ] = None,
) -> None:
    """Compare every operation with finite differences, PyTorch, Keras.

    [dim]minunet check conv2d max_pool2d[/]
    """
    from minunet.testing import report
    from minunet.testing.opcases import CASES

    cases = [case for case in CASES if not operations or case.name in operations]
    unknown = set(operations or ()) - {case.name for case in cases}
    if unknown:
        raise ValueError(f"there is no operation {min(unknown)!r}: choose among {', '.join(case.name for case in CASES)}.")
    torch, keras = _reference("torch"), _reference("keras")
    console = Console()
    table = Table("operation", "cases", "differences", "PyTorch", "Keras", "")
    table.columns[0].no_wrap = True
    rows = []
    with console.status("checking …") as status:
        for case in cases:
            status.update(f"checking {case.name}")
            rows.append(report.check(case, torch, keras))
            row = rows[-1]
            numbers = ["—" if value is None else f"{value:.1e}" for value in (row.differences, row.torch, row.keras)]
            table.add_row(row.name, str(row.samples), *numbers, "" if row.passes else "[bold red]wrong[/]")
    console.print(table)
    _say(console, "Worst relative errors, against finite differences, PyTorch and Keras.")
    _say(console, f"Tolerated are {report.DIFFERENCES:g}, {report.TORCH:g} and {report.KERAS:g}.")
    for name, module in (("PyTorch", torch), ("Keras", keras)):
        if module is None:
            _say(console, f"{name} is not installed: that column is empty.")
    wrong = [row.name for row in rows if not row.passes]
    _say(console, f"{len(rows) - len(wrong)} of {len(rows)} operations pass{': wrong are ' + ', '.join(wrong) if wrong else ''}.")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def bench(
    what: Annotated[str | None, typer.Argument(metavar="WHAT", help="ops, unet, models or accuracy, all four without it; or gpu.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes and few runs: that it works, not how fast it is.")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of both sides. [dim]\\[default: 1, then 2][/]")] = None,
    only: Annotated[str, typer.Option(metavar="TEXT", help="Rows whose name or shape holds this text, such as 'max pool'.")] = "",
    avx2: Annotated[bool, typer.Option("--avx2", help="Both sides as on a processor without AVX-512.")] = False,
    rivals: Annotated[bool, typer.Option("--rivals", help="Also torch.compile and Keras on JAX, for whole networks.")] = False,
    out: Annotated[Path, typer.Option(help="The folder for results as JSON, and the roofline plot.")] = Path("minunet-bench"),
) -> None:
    """Time operations and whole networks beside PyTorch on this machine.

    [dim]minunet bench ops --threads 2 --only "conv 3×3"[/]

    [dim]minunet bench gpu[/]
    """
    from minunet.bench import measure, report, session

    if only and not what:
        raise ValueError("--only chooses rows of one benchmark: say which, ops, unet, models or accuracy.")
    if what == "gpu":
        if threads is not None or avx2 or rivals:
            raise ValueError("--threads, --avx2 and --rivals belong to the processor's benchmarks: leave them out for gpu.")
        _bench_gpu(quick, only, out)
        return
    counts = (threads,) if threads is not None else tuple(range(1, min(2, measure.cores()) + 1))
    requests = [session.Request(name, counts, quick, only, avx2, rivals) for name in ([what] if what else session.BENCHMARKS)]
    for request in requests:
        session.check(request)
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    if not session.has_torch():
        _say(console, "PyTorch is not installed, so minunet is measured alone: pip install torch to compare.")
    for request in requests:
        path, told = out / f"{request.name}.json", {"benchmark": request.name, "quick": quick, "only": only}
        so_far = path.with_suffix(".partial.json")  # what is stopped keeps what it has measured, and what was measured before
        with console.status(f"{request.name}: starting …") as status:
            for runs, rows, newest in session.measure(request):
                measure.write(so_far, {**told, "runs": runs}, rows)
                status.update(newest) if console.is_terminal else _say(console, newest)
        for run in runs:
            _say(console, f"\n{session.BENCHMARKS[request.benchmark]}: {report.heading(run)}")
            console.print(report.table(run, rows))
        measure.write(path, {**told, "runs": runs}, rows)
        so_far.unlink()
        _say(console, str(path))
        if request.benchmark == "ops":
            report.draw_roofline(runs[-1], rows, out / f"{request.name}-roofline.png")
            _say(console, f"{out / request.name}-roofline.png")
    if session.has_torch() and what != "accuracy":
        _say(
            console,
            "ratio: PyTorch's time in its faster memory order divided by ours; the median of paired runs ± half their quartiles' distance.",
        )


def _bench_gpu(quick: bool, only: str, out: Path) -> None:
    from minunet.bench import measure, on_gpu, report

    torch = _reference("torch")
    card = on_gpu.card(torch)
    path = out / f"{card.file}.json"
    told = {"benchmark": "gpu", "quick": quick, "only": only}
    console = Console()
    with console.status("gpu: starting …") as status:
        for run, rows in on_gpu.measure(card, torch, quick, only):
            status.update(on_gpu.title(rows[-1]))
            measure.write(path, {**told, "complete": False, "runs": [run]}, rows)  # what dies keeps what it has measured
    _say(console, report.gpu_heading(run))
    console.print(report.gpu_table(rows))
    measure.write(path, {**told, "complete": True, "runs": [run]}, rows)
    _say(console, str(path))


_REASONS = {
    "finished": "all epochs are done",
    "time": "another epoch would not fit into the time limit",
    "no improvement": "no better epoch came any more",
}


def _which_source(source: str | None, images: Path | None, masks: Path | None) -> str:
    """A known set's name, or 'folder'."""
    if (images is None) != (masks is None):
        raise ValueError("--images and --masks belong together: give both.")
    if source is not None and images is not None:
        raise ValueError(f"{source!r} and --images are two sources: give one.")
    if source is None and images is None:
        raise ValueError("say what with: isbi2012, dsb2018 or cells, or your own folders with --images DIR --masks DIR.")
    return source or "folder"


def _check_run(out: Path, resume: bool) -> None:
    """A run is resumed where there is one, and started where there is none."""
    started = (out / "last.safetensors").exists()
    if resume and not started:
        raise ValueError(f"there is no run to resume in {str(out)!r}: it has no last.safetensors. Leave --resume out to start one.")
    if started and not resume:
        raise ValueError(f"{str(out)!r} holds a run already: continue it with --resume, or choose another --out.")


def _targets(images: list[Path], what: str, name: Callable[[Path], Path]) -> dict[Path, Path]:
    """{file to write: image file}, for files and folders of them. Nothing is overwritten, no two are written to one file."""
    from minunet.data import image_files

    files = list(dict.fromkeys(file for path in images for file in (image_files(path) if path.is_dir() else [path])))
    targets = {name(file): file for file in files}
    for target, file in targets.items():
        if target.resolve() in {f.resolve() for f in files}:
            raise ValueError(f"the {what} of {str(file)!r} would overwrite the image: choose another --out.")
    if len(targets) < len(files):
        twice = next(file for file in files if targets[name(file)] != file)
        raise ValueError(f"two images would be written to {str(name(twice))!r}: write them into different folders.")
    return targets


_SEGMENTATION = {"val_loss": "val loss", "pixel_error": "pixel error", "dice": "Dice", "iou": "IoU"}  # metrics and their headings


def _display(console: Console, metrics: dict[str, str] = _SEGMENTATION) -> Any:
    from minunet.train.display import LiveDisplay

    return LiveDisplay(console, metrics)


def _say(console: Console, text: str) -> None:
    """Plain text, unbroken and uncoloured, so that it can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _ended(console: Console, run: Run, reason: str, metrics: dict[str, str]) -> None:
    """Why it ended, and the best epoch's metrics."""
    best = run.history[run.best_epoch - 1]
    _say(console, f"\nEnded: {_REASONS[reason]}. The best epoch was {run.best_epoch}:")
    _say(console, "  ".join(f"{name.replace('_', ' ')} {best[name]:.4f}" for name in metrics))


def _files(console: Console, out: Path) -> None:
    texts = {
        "best.safetensors": "the model",
        "last.safetensors": "the end of the run, to resume from",
        "predictions.png": "image, truth, probability, agreement",
        "denoised.png": "noisy, denoised, and how they differ",
        "curves.png": "loss and scores over the epochs",
        "metrics.csv": "the same as numbers, also metrics.json",
    }
    for name, text in texts.items():
        if (out / name).exists():
            _say(console, f"  {out / name}  {text}")


def _reference(name: str) -> Any:
    """The module of another framework, or None where it is not installed."""
    if importlib.util.find_spec(name) is None:
        return None
    os.environ.setdefault("KERAS_BACKEND", "jax" if importlib.util.find_spec("jax") else "torch")
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError:
            return None
