"""Make one video with the lemica client and save it.

python examples/generate.py "a red circle moving right on a black background" --budget fast -o circle.mp4
"""

import argparse

from lemica_client import Client, LemicaClientError

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prompt")
parser.add_argument("--url", default="grpc://127.0.0.1:8001", help="grpc://HOST:PORT or http://HOST:PORT")
parser.add_argument("--budget", help="full, a name in the model's plan, or a number of computed steps")
parser.add_argument("--seed", type=int)
parser.add_argument("-o", "--output", default="video.mp4", help=".mp4, .gif or .webp")
options = parser.parse_args()

try:
    with Client(options.url) as client:
        video = client.generate(options.prompt, seed=options.seed, budget=options.budget)
    video.save(options.output)
except LemicaClientError as error:
    raise SystemExit(f"{type(error).__name__}: {error}") from error
print(
    f"{options.output}: {video.frames.shape} {video.frames.dtype}, {len(video.info['computed_steps'])} computed steps"
)
