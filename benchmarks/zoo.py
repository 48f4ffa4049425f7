"""Which networks can be teachers: all CNN classifiers of torchvision, and with timm installed those of many families.

    python benchmarks/zoo.py                                    # torchvision and timm, two networks at a time
    python benchmarks/zoo.py --models torchvision:resnet18 timm:repvgg_a0 --students 5

Each network, with random weights, is traced in a process of its own and compared with what is rebuilt (batches of 2 and 5, bit for bit). Then
random students of its search space, under both groupings, are built, trained one step, and counted by torch's own means. With
torch-pruning installed its groups stand beside ours. Finished rows stay in the results' file and are not measured again, unless
named by --models or asked for by --again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "zoo"
TRANSFORMERS = ("vit_", "swin_", "maxvit_")
SIZES = (64, 96, 128, 224, 299, 331)
PRUNING_LIMIT_S = 30
TIMM = (
    *("convnext_atto", "convnextv2_atto", "cs3darknet_s", "cspdarknet53", "cspresnet50"),
    *("darknet53", "densenet121", "dla34", "dla46_c", "dm_nfnet_f0", "dpn68", "eca_nfnet_l0"),
    *("ecaresnet26t", "efficientnet_b0", "efficientnet_es", "efficientnetv2_rw_t"),
    *("ese_vovnet19b_dw", "fasternet_t0", "fbnetc_100", "fbnetv3_b", "gernet_s", "ghostnet_050"),
    *("ghostnetv2_100", "hardcorenas_a", "hgnet_tiny", "hgnetv2_b0", "hrnet_w18_small"),
    *(
        "inception_next_atto",
        "inception_resnet_v2",
        "inception_v4",
        "lcnet_035",
        "legacy_seresnet18",
    ),
    *("legacy_xception", "mambaout_femto", "mixnet_s", "mnasnet_small", "mobilenetv2_035"),
    *("mobilenetv3_small_050", "mobilenetv4_conv_small", "mobileone_s0", "nf_regnet_b0"),
    *("nf_resnet26", "pnasnet5large", "regnetx_002", "regnety_002", "regnetz_005"),
    *("repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_14w_8s", "res2next50"),
    *("resnest14d", "resnet26d", "resnetblur50", "resnetrs50", "resnetv2_50", "rexnet_100"),
    *("selecsls42", "skresnet18", "spnasnet_100", "starnet_s1", "tf_efficientnet_lite0"),
    *("tf_mixnet_s", "tinynet_e", "tresnet_m", "vgg11_bn", "vovnet39a", "xception41"),
)
COLUMNS = {
    "name": "network",
    "status": "status",
    "size": "input",
    "num_params": "parameters",
    "layers": "layers",
    "opaque": "opaque",
    "groups": "free groups",
    "channels": "free channels",
    "their_groups": "torch-pruning's groups",
    "their_channels": "its channels",
    "students": "students",
    "trace_s": "trace, s",
    "seconds": "all, s",
    "rss_mib": "MiB",
}


def all_names() -> list[str]:
    """The networks of the sweep."""
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    chosen = [f"torchvision:{name}" for name in names if not name.startswith(TRANSFORMERS)]
    if importlib.util.find_spec("timm"):
        chosen += [f"timm:{name}" for name in TIMM]
    return chosen


def make(name: str) -> Any:
    """The module, with random weights and 10 classes."""
    import torch

    torch.manual_seed(0)
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        return timm.create_model(model, pretrained=False, num_classes=10)
    import torchvision

    options = {"init_weights": False} if model in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(model, weights=None, num_classes=10, **options)


def smallest_size(module: Any) -> int:
    """The first of `SIZES` that the network takes."""
    import torch

    for size in SIZES:
        with contextlib.suppress(Exception), torch.no_grad():
            module(torch.randn(2, 3, size, size))
            return size
    raise SystemExit(f"the network takes no input of {SIZES}")


def check_teacher(module: Any, shape: tuple[int, int, int]) -> tuple[Any, dict[str, Any]]:
    """Traces a teacher and compares what is rebuilt."""
    import torch

    from raysearch.architecture import Architecture
    from raysearch.models import build, trace

    start = time.process_time()
    architecture = trace(module, shape, cache=False)
    trace_s = time.process_time() - start
    rebuilt = build(architecture, inherit_from=module).eval()
    equal = True
    for batch in (2, 5):
        images = torch.randn(batch, *shape)
        with torch.no_grad():
            equal &= torch.equal(rebuilt(images), module(images))
    return architecture, {
        "num_params": architecture.num_params,
        "layers": len(architecture.layers),
        "opaque": sum(layer.op == "opaque" for layer in architecture.layers),
        "trace_s": round(trace_s, 1),
        "bit_for_bit": equal,
        "round_trip": Architecture.from_json(architecture.to_json()) == architecture,
        "keys_are_the_teachers": set(rebuilt.state_dict()) <= set(module.state_dict()),
    }


def check_students(architecture: Any, module: Any, num: int) -> dict[str, Any]:
    """Builds random students, trains them one step and counts them by torch's means."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from raysearch.architecture import SearchSpace
    from raysearch.models import build

    right, groups, wrong = 0, [], []
    for grouping in ("by_size", "coupled"):
        space = SearchSpace(architecture, grouping=grouping)
        groups = space.groups
        batch = space.sample(num, seed=0)
        for edits, params, macs in zip(
            batch, space.num_params(batch), space.macs(batch), strict=True
        ):
            student = build(space.apply(edits), inherit_from=module)
            images = torch.randn(2, *architecture.input_shape)
            optimiser = torch.optim.SGD(student.train().parameters(), lr=1e-3)
            student(images).square().mean().backward()
            optimiser.step()
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                student.eval()(images[:1])
            complaints = {
                "parameters": sum(p.numel() for p in student.parameters()) != params,
                "MACs": counter.get_total_flops() != 2 * macs,
                "gradients": any(p.grad is None for p in student.parameters()),
            }
            right += not any(complaints.values())
            wrong += [f"{grouping} {edits}: {what}" for what, bad in complaints.items() if bad]
    found = {
        "students": f"{right}/{2 * num}",
        "groups": len(groups),
        "channels": free_channels(architecture),
    }
    return {**found, "wrong": wrong[:3]} if wrong else found


def free_channels(architecture: Any) -> int:
    """The output channels of convolutions and linear layers whose number may change, depthwise ones left out."""
    from raysearch.architecture.channels import analyse

    found = analyse(architecture)
    makers = {name for variable in found.variables for name in variable.producers}
    return sum(
        found.variables[number].size * multiplicity
        for layer, blocks in zip(architecture.layers, found.outputs, strict=True)
        if layer.name in makers
        for number, multiplicity in blocks
        if not found.variables[number].frozen
    )


def torch_prunings_groups(module: Any, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The groups of torch-pruning, where it is installed and takes the network."""
    if not importlib.util.find_spec("torch_pruning"):
        return {}
    import torch
    import torch_pruning
    from torch import nn

    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    signal.alarm(PRUNING_LIMIT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            graph = torch_pruning.DependencyGraph().build_dependency(module, torch.randn(2, *shape))
            makers = (nn.Linear, nn.modules.conv._ConvNd)
            last = [child for child in module.modules() if isinstance(child, makers)][-1]
            groups = graph.get_all_groups(ignored_layers=[last], root_module_types=list(makers))
            num_groups, channels = 0, {}
            for group in groups:
                num_groups += 1
                for dependency, _ in group:
                    made = dependency.target.module
                    depthwise = getattr(made, "groups", 1) == getattr(made, "in_channels", 0) > 1
                    cuts = graph.is_out_channel_pruning_fn(dependency.handler)
                    if isinstance(made, makers) and cuts and not depthwise:
                        channels[made] = made.weight.shape[int(getattr(made, "transposed", False))]
    except Exception as error:  # noqa: BLE001  # whatever it dies of is its row
        return {"their_groups": type(error).__name__, "their_channels": ""}
    finally:
        signal.alarm(0)
    return {"their_groups": num_groups, "their_channels": sum(channels.values())}


def measure(name: str, students: int) -> dict[str, Any]:
    """One row of the table; runs in a process of its own."""
    import torch

    from raysearch.errors import RaysearchError

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start = time.process_time()
    row: dict[str, Any] = {"name": name, "status": "ok"}
    try:
        module = make(name).eval()
        row["size"] = smallest_size(module)
        shape = (3, row["size"], row["size"])
        architecture, found = check_teacher(module, shape)
        row.update(found)
        row.update(check_students(architecture, module, students))
        right = found["bit_for_bit"] and found["round_trip"] and "wrong" not in row
        row["status"] = "ok" if right else "wrong"
        row.update(torch_prunings_groups(module, shape))
    except RaysearchError as error:
        row.update(status="refused", reason=str(error)[:400])
    except Exception as error:  # noqa: BLE001  # a crash is what the sweep looks for
        row.update(status="crashed", reason=f"{type(error).__name__}: {str(error)[:400]}")
    row["seconds"] = round(time.process_time() - start, 1)
    row["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return row


def measure_apart(name: str, students: int, limit_s: float) -> dict[str, Any]:
    """`measure` in a process of its own, with a time limit."""
    command = [sys.executable, __file__, "--one", name, "--students", str(students)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "status": "too slow", "reason": f"more than {limit_s:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"name": name, "status": "died", "reason": f"exit {done.returncode}: {last[:300]}"}
    return json.loads(lines[-1])


def markdown(figures: dict[str, Any]) -> str:
    """The table as text."""
    rows = figures["rows"].values()
    lines = ["# Which networks can be teachers", "", f"Machine: {figures['machine']}."]
    lines += ["Command: `python benchmarks/zoo.py`.", ""]
    for library in ("torchvision", "timm"):
        own = [row for row in rows if row["name"].startswith(library)]
        good = [row for row in own if row["status"] == "ok"]
        whole = sum(row["opaque"] == 0 for row in good)
        if own:
            lines.append(
                f"{library}: {len(good)} of {len(own)} networks captured bit for bit with right students, {whole} without opaque operations."
            )
    both = [row for row in rows if isinstance(row.get("their_groups"), int) and "channels" in row]
    ran = [row for row in rows if "their_groups" in row]
    if ran:
        more = sum(row["channels"] > row["their_channels"] for row in both)
        less = sum(row["channels"] < row["their_channels"] for row in both)
        lines.append(
            f"torch-pruning runs on {len(both)} of {len(ran)}; there we have more free channels on {more}, fewer on {less} "
            "(output channels of convolutions and linear layers that may be cut, depthwise ones left out)."
        )
    lines += ["", f"| {' | '.join(COLUMNS.values())} |", f"|{'---|' * len(COLUMNS)}"]
    for row in rows:
        lines.append(f"| {' | '.join(str(row.get(key, '')) for key in COLUMNS)} |")
    lines += ["", *(f"- {row['name']}: {row['reason']}" for row in rows if "reason" in row)]
    lines += [f"- {row['name']}: {row['wrong']}" for row in rows if "wrong" in row]
    return "\n".join(lines) + "\n"


def write(figures: dict[str, Any], out: Path) -> None:
    figures["rows"] = dict(sorted(figures["rows"].items()))
    out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    out.with_suffix(".md").write_text(markdown(figures), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", help="torchvision:NAME or timm:NAME; default: all")
    parser.add_argument("--students", type=int, default=2, help="of each grouping")
    parser.add_argument("--timm", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time")
    parser.add_argument("--limit", type=float, default=300, help="seconds for a network")
    parser.add_argument("--again", action="store_true", help="measure finished rows again")
    parser.add_argument("--out", type=Path, default=RESULTS, help="path of the .json and .md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.students)))
        return

    import torch
    import torchvision

    kept = options.out.with_suffix(".json")
    rows = json.loads(kept.read_text("utf-8"))["rows"] if kept.exists() else {}
    names = options.models or [
        name
        for name in all_names()
        if (options.timm or not name.startswith("timm")) and (options.again or name not in rows)
    ]
    figures = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}",
        "rows": rows,
    }
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(measure_apart, name, options.students, options.limit) for name in names]
        for done in as_completed(jobs):
            row = done.result()
            figures["rows"][row["name"]] = row
            write(figures, options.out)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
