"""Writes the references that the tests of the vision pipelines compare with.

    python vision_references.py MODELS

MODELS is the folder of `cargo xtask models`. Needs numpy, opencv-python-headless, pillow and onnxruntime. The YOLO part
repeats what ultralytics 8.3 does with an exported network: LetterBox(auto=False), non_max_suppression, scale_boxes.
"""

import json
import pathlib
import sys

import cv2
import numpy as np
import onnxruntime
from PIL import Image

HERE = pathlib.Path(__file__).parent


def sample(width, height):
    """A picture without smooth places, which the tests make by the same formula."""
    y, x, c = np.indices((height, width, 3))
    return ((x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5) % 256).astype(np.uint8)


def resized():
    cases = []
    for source, target in [((37, 23), (16, 10)), ((17, 13), (25, 20)), ((17, 13), (17, 7)), ((8, 8), (3, 17))]:
        picture = sample(*source)
        results = {"opencv_linear": cv2.resize(picture, target, interpolation=cv2.INTER_LINEAR)}
        for name in ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]:
            results[name] = np.array(Image.fromarray(picture).resize(target, Image.Resampling[name.upper()]))
        for name, result in results.items():
            cases.append({"source": source, "target": target, "filter": name, "pixels": result.flatten().tolist()})
    return cases


def letterboxed(picture, size):
    height, width = picture.shape[:2]
    ratio = min(size / height, size / width)
    inner = round(width * ratio), round(height * ratio)
    dw, dh = (size - inner[0]) / 2, (size - inner[1]) / 2
    if (width, height) != inner:
        picture = cv2.resize(picture, inner, interpolation=cv2.INTER_LINEAR)
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    return cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def overlap(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def detections(session, picture, size, confidence_min, overlap_max):
    tensor = letterboxed(picture, size).transpose(2, 0, 1)[None].astype(np.float32) / 255
    output = session.run(None, {"images": tensor})[0][0].T
    found = []
    for row in output:
        class_id = int(row[4:].argmax())
        if row[4 + class_id] > confidence_min:
            x, y, w, h = (float(n) for n in row[:4])
            found.append((float(row[4 + class_id]), class_id, [x - w / 2, y - h / 2, x + w / 2, y + h / 2]))
    kept = []
    for box in sorted(found, key=lambda box: -box[0]):
        if all(better[1] != box[1] or overlap(better[2], box[2]) <= overlap_max for better in kept):
            kept.append(box)
    height, width = picture.shape[:2]
    gain = min(size / height, size / width)
    pad = round((size - round(width * gain)) / 2 - 0.1), round((size - round(height * gain)) / 2 - 0.1)
    boxes = []
    for confidence, class_id, (left, top, right, bottom) in kept:
        left, right = (min(max((n - pad[0]) / gain, 0), width) for n in (left, right))
        top, bottom = (min(max((n - pad[1]) / gain, 0), height) for n in (top, bottom))
        boxes.append({"x": left, "y": top, "width": right - left, "height": bottom - top, "confidence": confidence,
                      "class_id": class_id})
    return boxes


def yolo(models):
    session = onnxruntime.InferenceSession(models / "nudenet" / "320n.onnx")
    picture = np.array(Image.open(models / "samples" / "astronaut.png").convert("RGB"))
    cases = []
    # all of it, and a part that is no square
    for left, top, width, height in [(0, 0, 512, 512), (100, 40, 401, 290)]:
        part = np.ascontiguousarray(picture[top:top + height, left:left + width])
        for confidence_min in [0.25, 0.05]:
            boxes = detections(session, part, 320, confidence_min, 0.45)
            cases.append({"part": [left, top, width, height], "confidence_min": confidence_min, "detections": boxes})
    return cases


def efficientnet(models):
    """After transformers' image processors: the longer side is rounded down, the crop's corner too."""
    folder = models / "efficientnet-lite0"
    config = json.loads((folder / "preprocessor_config.json").read_text())
    picture = Image.open(models / "samples" / "chelsea.png").convert("RGB")
    short = min(picture.size)
    size = [config["size"]["shortest_edge"] * side // short for side in picture.size]
    picture = np.array(picture.resize(size, Image.Resampling(config["resample"])))
    side = config["crop_size"]["height"]
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    picture = picture[top:top + side, left:left + side] * config["rescale_factor"]
    picture = (picture - config["image_mean"]) / config["image_std"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tensor = picture.transpose(2, 0, 1)[None].astype(np.float32)
    logits = session.run(None, {session.get_inputs()[0].name: tensor})[0][0]
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = np.argsort(-scores)[:5]
    return [{"class_id": int(index), "score": float(scores[index])} for index in best]


def write(name, value):
    (HERE / name).write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    write("resized.json", resized())
    write("efficientnet_classes.json", efficientnet(pathlib.Path(sys.argv[1])))
    write("yolo_nudenet.json", yolo(pathlib.Path(sys.argv[1])))
