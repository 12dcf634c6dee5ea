"""Run the demo, and keep the figures and the picture that the README shows.

    python benchmarks/demo.py [--json FILE] [--picture FILE.png]

The picture needs Chromium. The last line is a JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = ("configuration", "predicted_error", "interval", "peak", "budget", "fp32", "measured", "proof")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "peppp", "demo", folder, "--json"]
        answer = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
        if arguments.picture:
            picture(Path(answer["page"]), arguments.picture)
    found = {name: answer[name] for name in KEPT} | {"configurations": len(answer["predictions"])}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def picture(page: Path, path: Path) -> None:
    """Draw the top of a page as a picture of 1200 by 790 pixels."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    ]
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            ["chromium", *options, f"--user-data-dir={profile}", "--window-size=1200,790",
             f"--screenshot={path.resolve()}", page.resolve().as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
