"""Writes a trained model in a form that others can use: python -m mmcl_jax.export MODEL OUT [--format=bundle].

    python -m mmcl_jax.export workdir/nw_ucla_joint nw_ucla_bundle
    python -m mmcl_jax.export workdir/nw_ucla_joint nw_ucla_stablehlo --format=stablehlo
    python -m mmcl_jax.export workdir/nw_ucla_joint nw_ucla_onnx --format=onnx
    python -m mmcl_jax.export workdir/nw_ucla_joint nw_ucla_page --format=web --serve

MODEL is what `mmcl_jax.load_model` takes: the workdir of a run or of an import, a bundle, a name on the Hugging Face
Hub, or `any_camera`, the model that comes with the package. OUT is a new folder. A bundle holds the weights, what
prediction needs to know, and a model card. StableHLO and ONNX files hold the whole program, from raw clips to
probabilities, and run without this package's models. A web page watches a camera or a video in the browser; any static
server can serve it. With --serve, OUT may be a page that was exported before.
"""

import argparse
import contextlib
import csv
import dataclasses
import datetime
import http.server
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from absl import logging

from mmcl_jax import bundle, checkpoints
from mmcl_jax.deploy.exported import MANIFEST, ExportError
from mmcl_jax.description import Description, check_classes, read_description
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import read_json
from mmcl_jax.trained_model import TrainedModel, load_model
from mmcl_jax.web.server import HOST, PORT, address, open_server

FORMATS = ("bundle", "stablehlo", "onnx", "web")
_DTYPES = ("float32", "float16", "int8")
_MODULES = ("skeleton", "all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.ERROR)  # Orbax warns although nothing is wrong
    with plain_errors("interrupted; nothing was written"):
        _check_options(options)
        if options.format == "bundle":
            export_bundle(options.model, options.out, options.modules, options.dtype, options.license)
        elif options.serve:
            port = PORT if options.port is None else options.port
            with served_page(options.model, options.out, options.dtype, port) as server:
                print(f"open {address(server)} in a browser; Ctrl-C ends the server", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    server.serve_forever()
        elif options.format == "web":
            export_page(options.model, options.out, options.dtype)
        else:
            export_program(options.model, options.out, options.format, options.features, options.dtype)


def export_bundle(
    model: str, out: pathlib.Path, modules: str = "skeleton", dtype: str = "float32", license: str = ""
) -> None:
    """Writes a model as a bundle.

    Args:
      model: what `load_model` takes.
      out: a new folder.
      modules: 'skeleton', or 'all': FAM and FRM too, if the model has them.
      dtype: of the stored weights, 'float32' or 'float16'.
      license: of the weights and their training data, for the card.

    Raises: BundleError, CheckpointError, DescriptionError, WorkdirError, RecordsError, ConfigError, OSError.
    """
    folder = bundle.locate(model)
    if bundle.is_bundle(folder):
        description, variables, step = bundle.read_all(folder)
        stored = bundle.read_provenance(folder)
        accuracy, license = stored.accuracy, license or stored.license
    else:
        description = read_description(folder)
        step, variables = checkpoints.read_variables(folder)
        accuracy = _measured(folder, description, step)
    check_classes(description, variables["params"][BACKBONE], model)
    description = without_paths(description)
    names = {BACKBONE, *(("alignment", "refinement") if modules == "all" else ())}
    variables = {kind: {name: tree for name, tree in part.items() if name in names} for kind, part in variables.items()}
    bundle.write_bundle(out, description, variables, bundle.Provenance(step, accuracy, license), dtype)
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    classes = len(description.class_names)
    print(f"{out}: {description.config.model.backbone}, {classes} classes, step {step}, {size:.1f} MB")
    print(f'load it with mmcl_jax.load_model("{out}")')


def without_paths(description: Description) -> Description:
    """The description without the folders of this machine, which nobody else needs to know."""
    config = description.config
    data = dataclasses.replace(config.data, records="")
    model = dataclasses.replace(config.model, image_encoder_weights="")
    return dataclasses.replace(description, config=dataclasses.replace(config, data=data, model=model, init_from=""))


def export_program(model: str, out: pathlib.Path, format: str, features: bool = False, dtype: str = "float32") -> None:
    """Writes a model as a program: a file that takes raw clips and returns probabilities, and `model.json`.

    Args:
      model: what `load_model` takes.
      out: a new folder.
      format: 'stablehlo' or 'onnx'.
      features: whether the input is transformed clips; otherwise the test transform is inside.
      dtype: of the weights and products in an ONNX file, one of `deploy.onnx_model.DTYPES`.

    Raises: ExportError and what `load_model` raises.
    """
    trained = load_model(model)
    if format == "stablehlo":
        from mmcl_jax.deploy.stablehlo import export_stablehlo

        export_stablehlo(trained, out, features)
        hint = f'run it with mmcl_jax.load_exported("{out}")'
    else:
        from mmcl_jax.deploy.onnx_model import export_onnx

        export_onnx(trained, out, features, dtype)
        hint = f'run it with onnxruntime.InferenceSession("{out}/model.onnx")'
    _report(trained, out, hint)


def export_page(model: str, out: pathlib.Path, dtype: str = "float32") -> None:
    """Writes a model as a web page, which finds a person in a camera or a video and says what that person does.

    Args:
      model: what `load_model` takes.
      out: a new folder.
      dtype: of the ONNX file in it, one of `deploy.onnx_model.DTYPES`.

    Raises: ExportError, PosesError, LayoutError, PackagesError, OSError, and what `load_model` raises.
    """
    from mmcl_jax.web.folder import export_web

    trained = load_model(model)
    export_web(trained, out, dtype)
    served = f"python -m http.server {PORT} --bind={HOST} --directory={shlex.quote(str(out))}"
    _report(trained, out, f"serve it with any static server, or: {served}")


@contextlib.contextmanager
def served_page(
    model: str, out: pathlib.Path, dtype: str = "float32", port: int = PORT
) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server of a page, for this machine only; `serve_forever` starts it.

    Args:
      model, out, dtype: of `export_page`. If `out` is such a page, it is served as it is.
      port: 0: any that is free. A taken one is refused before anything is written.

    Raises: ServerError and what `export_page` raises.
    """
    from mmcl_jax.web.folder import is_page

    with open_server(out, port) as server:
        if is_page(out):
            print(
                f"{out}: exported before and served as it is, with its own model for {_classes_of(out)}; to export "
                "again, remove it or name another folder"
            )
        else:
            export_page(model, out, dtype)
        yield server


def _classes_of(page: pathlib.Path) -> str:
    """The classes of an exported page's model, in words. Raises: OSError, ValueError if its manifest is damaged."""
    names = [str(name) for name in read_json(page / MANIFEST).get("class_names", ())]
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _report(trained: TrainedModel, out: pathlib.Path, hint: str) -> None:
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    classes, backbone = len(trained.class_names), trained.description.config.model.backbone
    print(f"{out}: {backbone}, {classes} classes, step {trained.step}, {size:.1f} MB\n{hint}")


def _check_options(options: argparse.Namespace) -> None:
    """Raises ExportError for an option that the format does not have."""
    known = {
        "bundle": ("modules", "dtype", "license"),
        "stablehlo": ("features",),
        "onnx": ("features", "dtype"),
        "web": ("dtype", "serve", "port"),
    }
    for name in ("modules", "dtype", "license", "features", "serve", "port"):
        default = _parser().get_default(name)
        if getattr(options, name) != default and name not in known[options.format]:
            raise ExportError(f"--{name} has no effect on --format={options.format}; leave it out")
    if options.port is not None and not options.serve:
        raise ExportError("--port has no effect without --serve; leave it out, or add --serve")
    if options.port is not None and not 0 <= options.port <= 65535:
        raise ExportError(f"--port={options.port}: expected 0 to 65535")
    if options.format == "bundle" and options.dtype not in bundle.DTYPES:
        raise ExportError(f"--dtype={options.dtype}: a bundle's weights are {' or '.join(bundle.DTYPES)}")


def _measured(workdir: pathlib.Path, description: Description, step: int) -> tuple[str, ...]:
    """The accuracy that training logged for this checkpoint, in sentences for the card."""
    path = workdir / "metrics.csv"
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if row.get("step") == str(step) and row.get("test_top1")]
        if not rows:
            return ()
        top1, mean_class = (100 * float(rows[-1][column]) for column in ("test_top1", "test_mean_class"))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        print(f"NOTE: {path}: damaged ({error!r}); the card states no accuracy")
        return ()
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date()
    return (
        f"top-1 {top1:.2f} %, mean class {mean_class:.2f} % "
        f"on the test clips of {description.info.dataset}, protocol {description.protocol}, last epoch, not the best "
        f"(python -m mmcl_jax.main --mode=eval --workdir={workdir.name}; {when.isoformat()})",
    )


def _parser() -> argparse.ArgumentParser:
    module = sys.argv[0].endswith(".py")  # else the console script
    parser = argparse.ArgumentParser(
        prog="python -m mmcl_jax.export" if module else None,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", help="workdir of a run or an import, a bundle, user/name on the Hugging Face Hub, or any_camera"
    )
    parser.add_argument("out", type=pathlib.Path, help="a new folder; with --serve, also an exported page")
    parser.add_argument("--format", choices=FORMATS, default="bundle", help="default: bundle")
    parser.add_argument("--modules", choices=_MODULES, default="skeleton", help="all: FAM and FRM too")
    parser.add_argument(
        "--dtype",
        choices=_DTYPES,
        default="float32",
        help="of the weights in a bundle (not int8), an ONNX file or a page",
    )
    parser.add_argument(
        "--features", action="store_true", help="stablehlo, onnx: the input is clips that were transformed already"
    )
    parser.add_argument("--serve", action="store_true", help="web: then show the page, on this machine only")
    parser.add_argument("--port", type=int, help=f"of --serve; 0: any that is free; default: {PORT}")
    parser.add_argument("--license", default="", metavar="TEXT", help="of weights and training data, for the card")
    return parser


if __name__ == "__main__":
    main()
