"""``fedpeft infer``: a NIfTI in, a mask on the same grid out."""

import argparse
import json
from pathlib import Path
from typing import Any

from fedpeft.cli.options import add_checkpoint_options, checkpoint_of, subparser
from fedpeft.data.datalist import Case
from fedpeft.data.volumes import read_volume, save_mask
from fedpeft.train.evaluate import predict
from fedpeft.train.run_folder import BEST, GLOBAL, find_run


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = subparser(
        subparsers, "infer", "segment one volume with a run's model; the mask has the image's own grid and affine",
        "fedpeft infer --run runs/demo/flap_sam/seed-0/federated --image ct.nii.gz --out mask.nii.gz",
    )
    parser.add_argument("--run", type=Path, required=True, dest="folder", help="run folder, or a parent of one")
    parser.add_argument("--image", type=Path, required=True, help="NIfTI volume")
    parser.add_argument("--out", type=Path, required=True, help="mask to write, .nii or .nii.gz")
    parser.add_argument("--best", action="store_true", help="the best validated round instead of the last one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_checkpoint_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the mask and say how many voxels each class has."""
    if args.out.exists() and args.out.samefile(args.image):
        raise ValueError(f"--out {args.out} is the image itself; a mask needs a file of its own")
    if not args.out.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"--out is {args.out}, expected a name that ends in .nii or .nii.gz")
    folder = find_run(args.folder)
    spec = folder.run
    labels = spec.label_table
    model = folder.model(checkpoint_of(spec.backbone_row, args), BEST if args.best else GLOBAL)
    # One volume stands alone: it is normalised by its own statistics.
    volume = read_volume(Case(args.image.name, args.image), labels, folder.preprocessing)
    mask = predict(model, volume, spec)
    save_mask(args.out, mask, volume)
    inside = mask[volume.content]
    voxels = {name: int((inside == index).sum()) for index, name in labels.items() if index}
    if args.json:
        print(json.dumps({"mask": str(args.out), "voxels": voxels, "normalised_by": volume.normalised}, indent=2))
        return 0
    found = ", ".join(f"{name} {count:,}" for name, count in voxels.items())
    print(f"{args.out}: {found} voxels of {inside.numel():,}; normalised by the {volume.normalised}'s own statistics")
    return 0
