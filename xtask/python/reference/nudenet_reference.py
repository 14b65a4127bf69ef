"""Writes what the package nudenet finds in a picture: nudenet_boxes.json.

Usage: nudenet_reference.py MODELS OUTPUT, where MODELS is the folder that `cargo xtask models` fills.
"""

import json
import sys
from pathlib import Path

from nudenet import NudeDetector

SOURCE = (
    "nudenet 3.4.2, NudeDetector on the picture, in the picture's pixels: [x, y, width, height] of the box from its "
    "left upper corner, cut to integers. It fills the picture up to a square at the right and at the bottom (Ultralytics "
    "does at all sides), scales that to 320 x 320 bilinearly, keeps scores of 0.25 and drops overlaps above 0.45; made "
    "by xtask/python/reference/nudenet_reference.py"
)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    found = NudeDetector(str(models / "nudenet/320n.onnx")).detect(str(models / "samples/astronaut.png"))
    boxes = [
        {"label": box["class"], "score": round(box["score"], 5), "box": [int(side) for side in box["box"]]}
        for box in found
    ]
    text = json.dumps({"source": SOURCE, "picture": "astronaut.png", "boxes": boxes}, indent=1) + "\n"
    (output / "nudenet_boxes.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
