"""What `run.sh --dry` starts in the place of programs that need a GPU. The lines have the form of the real ones, and no times.

    stand_in.py torch RUN...              lines like torch_meta.py's
    stand_in.py convolutions              lines like the bench cuda_convolutions'
    stand_in.py cudnn FILE                lines like cudnn_convolutions.py's, of the convolutions in FILE
    stand_in.py sanitizer OPTION... PROGRAM ARGUMENT...
                                          runs the program, as compute-sanitizer does
"""

import json
import os
import sys


def main():
    what, *rest = sys.argv[1:]
    if what == "torch":
        for run in rest:
            model, run = run.split("/")
            mode, precision, *graph = run.split(":")
            print(json.dumps({"peer": "torch", "model": model, "mode": mode + ("+graph" if graph else ""), "precision": precision,
                              "ms": {"median": None, "min": None, "max": None}}), flush=True)
    elif what == "convolutions":
        for role in ("forward", "data gradient", "weight gradient"):
            print(json.dumps({"net": "resnet32", "n": 100, "side": 32, "ci": 16, "co": 16, "kernel": 3, "stride": 1, "role": role,
                              "precision": "f32", "ms": None, "tflops": None}), flush=True)
    elif what == "cudnn":
        with open(rest[0], encoding="utf-8") as file:
            for text in file:
                print(json.dumps({**json.loads(text), "cudnn_ms": None, "of_cudnn": None}), flush=True)
    elif what == "sanitizer":
        program = next(i for i, word in enumerate(rest) if os.path.isfile(word))
        os.execv(rest[program], rest[program:])
    else:
        sys.exit(f"stand_in.py: no stand-in for {what}")


if __name__ == "__main__":
    main()
